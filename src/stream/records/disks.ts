// What Romulus adds to libxc's stream: the disks that are replicated, and what was written to them. Both records are
// optional, so that Xen's readers pass over them.
//
//   DISKS         | count u32 | 0 u32 | (bytes u64 | id 64, its end zeroes) × count                            once
//   DISK_WRITES   | disk u32 | count u32 | (offset u64 | kind, length u64) × count | data of the DATA extents  before
//                                                        63-60  59-0                 one after another         CHECKPOINT
//
// `disk` is an index into the list. The extents of a record ascend and do not overlap; those of records that follow each
// other may: the later one counts. Like entries of PAGE_DATA they are columns of numbers, used again for the next record.

import { RecordType } from '../format.js';
import { readUint32, viewOf, writeUint32 } from '../octets.js';
import type { StreamRecord } from '../record.js';
import { badRecord, demandAtLeast, recordError } from './shape.js';

export const WriteKind = { DATA: 0, ZERO: 1, DISCARD: 2 } as const;
export type WriteKind = (typeof WriteKind)[keyof typeof WriteKind];

/** Extents that do not overlap, in ascending order; each column has `count` values. */
export interface Extents {
  readonly count: number;
  readonly offsets: Float64Array<ArrayBuffer>;
  readonly lengths: Float64Array<ArrayBuffer>;
  readonly kinds: Uint8Array<ArrayBuffer>;
  /** DATA: where it begins in the data that belong to the extents; those say how they lie. */
  readonly places: Uint32Array<ArrayBuffer>;
}

/** A disk in the list. */
export interface StreamDisk {
  /** 1 to 64 of A-Z a-z 0-9 . _ - */
  readonly id: string;
  /** A multiple of 512. */
  readonly bytes: number;
}

/** Disks in a list. */
export const DISKS_MAX = 256;
/** Extents in a record. */
export const DISK_EXTENTS_MAX = 65_536;
/** Before the extents, and of each of them. */
export const DISK_WRITES_HEADER_BYTES = 8;
export const DISK_EXTENT_BYTES = 16;

const LIST_HEADER_BYTES = 8;
const ID_BYTES = 64;
const LISTED_BYTES = 8 + ID_BYTES;
const ID = /^[A-Za-z0-9._-]{1,64}$/;
const SECTOR_BYTES = 512;
/** The upper half of a length, without the kind. What is longer than a number is exact is refused. */
const LENGTH_HIGH_MASK = 0x0fffffff;
const TWO_32 = 2 ** 32;

/** The body of the list's record. */
export function encodeDisks(disks: readonly StreamDisk[]): Uint8Array {
  const body = new Uint8Array(LIST_HEADER_BYTES + disks.length * LISTED_BYTES);
  writeUint32(body, 0, disks.length);
  let at = LIST_HEADER_BYTES;
  for (const { id, bytes } of disks) {
    writeUint64(body, at, bytes);
    body.set(new TextEncoder().encode(id), at + 8);
    at += LISTED_BYTES;
  }
  return body;
}

/** @throws StreamError BAD_RECORD */
export function decodeDisks(record: StreamRecord): StreamDisk[] {
  const { body } = record;
  demandAtLeast(record, LIST_HEADER_BYTES);
  const count = readUint32(body, 0);
  if (count === 0 || count > DISKS_MAX || body.length !== LIST_HEADER_BYTES + count * LISTED_BYTES) {
    throw badRecord(record, `of the wrong size for ${count} disks`);
  }
  if (readUint32(body, 4) !== 0) throw badRecord(record, 'whose reserved field is not zero');
  const disks: StreamDisk[] = [];
  for (let at = LIST_HEADER_BYTES; at < body.length; at += LISTED_BYTES) {
    const bytes = readUint64(body, at);
    const named = Buffer.from(body.buffer, body.byteOffset + at + 8, ID_BYTES).toString('latin1');
    const id = named.replace(/\0+$/, '');
    if (!ID.test(id)) throw badRecord(record, `with a name of disk ${disks.length} that is none`);
    if (bytes === 0 || !Number.isSafeInteger(bytes) || bytes % SECTOR_BYTES !== 0) {
      throw badRecord(record, `with a size of disk ${id} that is none`);
    }
    if (disks.some((other) => other.id === id)) throw badRecord(record, `that names disk ${id} twice`);
    disks.push({ id, bytes });
  }
  return disks;
}

/** Writes the 8 octets that DISK_WRITES' body begins with. */
export function writeDiskWritesHeader(target: Uint8Array, at: number, disk: number, count: number): void {
  writeUint32(target, at, disk);
  writeUint32(target, at + 4, count);
}

/** Writes the 16 octets of an extent. A view: for thousands of them, an octet at a time is slow. */
export function writeDiskExtent(
  target: DataView,
  at: number,
  offset: number,
  length: number,
  kind: number,
): void {
  // What is more than 32 bits is cut off.
  target.setUint32(at, offset, true);
  target.setUint32(at + 4, offset / TWO_32, true);
  target.setUint32(at + 8, length, true);
  target.setUint32(at + 12, (kind << 28) | (length / TWO_32), true);
}

/** What one DISK_WRITES record says. Its columns grow and are used again: valid until the next decodeDiskWrites. */
export class DiskWritesBatch implements Extents {
  disk = 0;
  count = 0;
  offsets = new Float64Array(0);
  lengths = new Float64Array(0);
  kinds = new Uint8Array(0);
  /** From the beginning of the data. */
  places = new Uint32Array(0);
  /** Where in the record's body the data begin. */
  dataOffset = 0;
  /** Of the disk: behind the last extent. */
  end = 0;

  reserve(count: number): void {
    if (this.offsets.length >= count) return;
    this.offsets = new Float64Array(count);
    this.lengths = new Float64Array(count);
    this.kinds = new Uint8Array(count);
    this.places = new Uint32Array(count);
  }
}

/**
 * Checks the form of a DISK_WRITES record, and returns how many octets of data it has. What the disk is, it cannot know.
 * @throws StreamError BAD_RECORD
 */
export function checkDiskWrites(record: StreamRecord): number {
  const { body } = record;
  demandAtLeast(record, DISK_WRITES_HEADER_BYTES);
  const count = readUint32(body, 4);
  const dataOffset = DISK_WRITES_HEADER_BYTES + count * DISK_EXTENT_BYTES;
  if (count === 0 || count > DISK_EXTENTS_MAX || body.length < dataOffset) {
    throw badRecord(record, `of the wrong size for ${count} extents`);
  }
  const view = viewOf(body);
  let data = 0;
  let last = 0;
  for (let at = DISK_WRITES_HEADER_BYTES; at < dataOffset; at += DISK_EXTENT_BYTES) {
    const lengthHigh = view.getUint32(at + 12, true);
    const kind = lengthHigh >>> 28;
    const offset = view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
    const length = (lengthHigh & LENGTH_HIGH_MASK) * TWO_32 + view.getUint32(at + 8, true);
    const isOrdered = offset >= last && length > 0 && offset + length <= Number.MAX_SAFE_INTEGER;
    if (!isOrdered || kind > WriteKind.DISCARD) {
      const index = (at - DISK_WRITES_HEADER_BYTES) / DISK_EXTENT_BYTES;
      const what = `with ${length} octets of kind ${kind} at ${offset}, behind ${last}`;
      throw recordError('BAD_RECORD', record, what, { index, at: offset, bytes: length, kind });
    }
    last = offset + length;
    if (kind === WriteKind.DATA) data += length;
  }
  if (body.length !== dataOffset + data) {
    throw badRecord(record, `of the wrong size: ${count} extents take ${dataOffset + data} octets`);
  }
  return data;
}

/**
 * Decodes a DISK_WRITES record into `into`, which keeps its memory. The data are not touched.
 * @throws StreamError BAD_RECORD; `into` is unchanged then
 */
export function decodeDiskWrites(record: StreamRecord, into: DiskWritesBatch): void {
  checkDiskWrites(record);
  const { body } = record;
  const view = viewOf(body);
  const count = view.getUint32(4, true);
  into.reserve(count);
  const { offsets, lengths, kinds, places } = into;
  let at = DISK_WRITES_HEADER_BYTES;
  let place = 0;
  let end = 0;
  for (let index = 0; index < count; index++) {
    const lengthHigh = view.getUint32(at + 12, true);
    const kind = lengthHigh >>> 28;
    const offset = view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
    const length = (lengthHigh & LENGTH_HIGH_MASK) * TWO_32 + view.getUint32(at + 8, true);
    offsets[index] = offset;
    lengths[index] = length;
    kinds[index] = kind;
    places[index] = kind === WriteKind.DATA ? place : 0;
    if (kind === WriteKind.DATA) place += length;
    end = offset + length;
    at += DISK_EXTENT_BYTES;
  }
  into.disk = view.getUint32(0, true);
  into.count = count;
  into.dataOffset = at;
  into.end = end;
}

export function isDiskRecord(type: number): boolean {
  return type === RecordType.DISKS || type === RecordType.DISK_WRITES;
}

function writeUint64(target: Uint8Array, at: number, value: number): void {
  writeUint32(target, at, value);
  writeUint32(target, at + 4, Math.floor(value / TWO_32));
}

/** Not exact above 2^53, and then not safe either. */
function readUint64(octets: Uint8Array, at: number): number {
  return readUint32(octets, at + 4) * TWO_32 + readUint32(octets, at);
}
