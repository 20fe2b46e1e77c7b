// libxl's layer (version 2): a header, and records framed as libxc's are, one of which says "here is libxc's stream".
//
//   header (16)             ident "LibxlFmt" u64 | version u32 | options u32                        big-endian
//   END, LIBXC_CONTEXT, CHECKPOINT_END                                                              empty
//   EMULATOR_XENSTORE_DATA  emulator_id u32 | index u32 | key NUL value NUL …
//   EMULATOR_CONTEXT        emulator_id u32 | index u32 | blob
//   CHECKPOINT_STATE        control_id u32                                                          COLO only
//
// Source: Xen's docs/specs/libxl-migration-stream.pandoc. How the layers lie in each other: record-reader.ts.

import { StreamError } from './error.js';
import { viewOf } from './octets.js';
import type { StreamRecord } from './record.js';
import { concatenate } from './writer.js';

export const LIBXL_HEADER_BYTES = 16;
const IDENT = 0x4c6962786c466d74n;
const VERSION = 2;
const OPTION_BIG_ENDIAN = 1;
const OPTION_LEGACY = 2;

export const LibxlRecordType = {
  END: 0,
  LIBXC_CONTEXT: 1,
  EMULATOR_XENSTORE_DATA: 2,
  EMULATOR_CONTEXT: 3,
  CHECKPOINT_END: 4,
  CHECKPOINT_STATE: 5,
} as const;
export type LibxlRecordType = (typeof LibxlRecordType)[keyof typeof LibxlRecordType];

export const EmulatorId = { UNKNOWN: 0, QEMU_TRADITIONAL: 1, QEMU_UPSTREAM: 2 } as const;
export type EmulatorId = (typeof EmulatorId)[keyof typeof EmulatorId];

/** What CHECKPOINT_STATE says: the first from primary to secondary, the others back. */
export const CheckpointState = { NEW: 0, SVM_SUSPENDED: 1, SVM_READY: 2, SVM_RESUMED: 3 } as const;
export type CheckpointState = (typeof CheckpointState)[keyof typeof CheckpointState];

/** Emulator and index, before what an emulator's record holds. */
export const EMULATOR_HEADER_BYTES = 8;
const CHECKPOINT_STATE_BYTES = 4;
/** With the padding counted, as the specification draws it. */
const CHECKPOINT_STATE_BYTES_MAX = 8;

const typeNames: Readonly<Record<number, string>> = {
  [LibxlRecordType.END]: 'End',
  [LibxlRecordType.LIBXC_CONTEXT]: 'Libxc context',
  [LibxlRecordType.EMULATOR_XENSTORE_DATA]: 'Emulator xenstore data',
  [LibxlRecordType.EMULATOR_CONTEXT]: 'Emulator context',
  [LibxlRecordType.CHECKPOINT_END]: 'Checkpoint end',
  [LibxlRecordType.CHECKPOINT_STATE]: 'Checkpoint state',
};

export function libxlRecordTypeName(type: number): string {
  return typeNames[type] ?? 'Reserved';
}

/**
 * Whether a record that follows CHECKPOINT_END, or stands on COLO's back channel, is libxl's CHECKPOINT_STATE.
 * X86_PV_VCPU_EXTENDED of libxc has the same type, but never comes first in a checkpoint, and is longer.
 */
export function isCheckpointState(type: number, length: number): boolean {
  return type === LibxlRecordType.CHECKPOINT_STATE && length <= CHECKPOINT_STATE_BYTES_MAX;
}

export interface LibxlHeader {
  /** Written by the tool that converts streams of Xen 4.4 and earlier. */
  readonly legacy: boolean;
}

export interface EmulatorContext {
  readonly emulatorId: number;
  /** Which of the domain's emulators. */
  readonly index: number;
  /** The emulator's own blob, a view of the record. */
  readonly context: Uint8Array;
}

/**
 * Decodes the header, 16 octets. @param offset where it stands, for the facts of an error
 * @throws StreamError TRUNCATED, BAD_ID, UNSUPPORTED_VERSION, BIG_ENDIAN
 */
export function decodeLibxlHeader(bytes: Uint8Array, offset = 0): LibxlHeader {
  if (bytes.length < LIBXL_HEADER_BYTES) {
    throw new StreamError('TRUNCATED', "libxl's header is cut", { offset, length: bytes.length });
  }
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== IDENT) {
    throw new StreamError('BAD_ID', 'not a libxl stream: the ident is not "LibxlFmt"', { offset });
  }
  const version = view.getUint32(8);
  if (version !== VERSION) {
    const message = `libxl stream of version ${version}, only ${VERSION} is read`;
    throw new StreamError('UNSUPPORTED_VERSION', message, { offset: offset + 8, version });
  }
  const options = view.getUint32(12);
  if ((options & OPTION_BIG_ENDIAN) !== 0) {
    throw new StreamError('BIG_ENDIAN', 'the libxl stream is big-endian', { offset: offset + 12, options });
  }
  return { legacy: (options & OPTION_LEGACY) !== 0 };
}

export function encodeLibxlHeader(header: LibxlHeader = { legacy: false }): Uint8Array {
  const bytes = new Uint8Array(LIBXL_HEADER_BYTES);
  const view = viewOf(bytes);
  view.setBigUint64(0, IDENT);
  view.setUint32(8, VERSION);
  view.setUint32(12, header.legacy ? OPTION_LEGACY : 0);
  return bytes;
}

/** @throws StreamError BAD_RECORD */
export function decodeEmulatorContext(record: StreamRecord): EmulatorContext {
  return { ...decodeEmulatorHeader(record), context: record.body.subarray(EMULATOR_HEADER_BYTES) };
}

export function encodeEmulatorContext(emulator: EmulatorContext): Uint8Array {
  return concatenate([encodeEmulatorHeader(emulator), emulator.context]);
}

/**
 * Checks a record's form, as checkRecord does for libxc's. Types that the specification does not name are left alone.
 * @throws StreamError BAD_RECORD
 */
export function checkLibxlRecord(record: StreamRecord): void {
  switch (record.type) {
    case LibxlRecordType.END:
    case LibxlRecordType.LIBXC_CONTEXT:
    case LibxlRecordType.CHECKPOINT_END:
      if (record.body.length !== 0) throw bad(record, 'that is not empty');
      break;
    case LibxlRecordType.EMULATOR_CONTEXT:
      decodeEmulatorHeader(record);
      break;
    case LibxlRecordType.EMULATOR_XENSTORE_DATA:
      decodeEmulatorHeader(record);
      if (!isPairsOfStrings(record.body.subarray(EMULATOR_HEADER_BYTES))) {
        throw bad(record, 'that is not pairs of key and value');
      }
      break;
    case LibxlRecordType.CHECKPOINT_STATE:
      if (!isKnownState(record.body)) throw bad(record, 'with no state that is known');
      break;
    default:
      break;
  }
}

/** An even number of strings, each with its NUL; none is possible. */
export function isPairsOfStrings(octets: Uint8Array): boolean {
  const strings = octets.reduce((count, octet) => count + Number(octet === 0), 0);
  return strings % 2 === 0 && (octets.length === 0 || octets[octets.length - 1] === 0);
}

function isKnownState(body: Uint8Array): boolean {
  return (
    body.length >= CHECKPOINT_STATE_BYTES && viewOf(body).getUint32(0, true) <= CheckpointState.SVM_RESUMED
  );
}

function decodeEmulatorHeader(record: StreamRecord): { emulatorId: number; index: number } {
  if (record.body.length < EMULATOR_HEADER_BYTES) {
    throw bad(record, `shorter than its header of ${EMULATOR_HEADER_BYTES} octets`);
  }
  const view = viewOf(record.body);
  const emulatorId = view.getUint32(0, true);
  if (emulatorId > EmulatorId.QEMU_UPSTREAM) {
    throw bad(record, `of an emulator ${emulatorId} that is not known`);
  }
  return { emulatorId, index: view.getUint32(4, true) };
}

function encodeEmulatorHeader({ emulatorId, index }: { emulatorId: number; index: number }): Uint8Array {
  const header = new Uint8Array(EMULATOR_HEADER_BYTES);
  const view = viewOf(header);
  view.setUint32(0, emulatorId, true);
  view.setUint32(4, index, true);
  return header;
}

function bad(record: StreamRecord, what: string): StreamError {
  const { type, offset, body } = record;
  return new StreamError('BAD_RECORD', `${libxlRecordTypeName(type)} record of libxl ${what}`, {
    offset,
    type,
    length: body.length,
  });
}
