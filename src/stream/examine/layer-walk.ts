// The walk through the layers of a stream, as they lie in each other (record-reader.ts draws it), record by record.
//
//   ── take 8 ──▶ ◀── record header ──┐            PAGE_DATA │ count │ pfn entries │ pages … │
//   ── take n ──▶ ◀── body, padding ──┤ record()              take    take, piece   skip
//   ── skip n ──▶ ◀── how far it was ─┘                               by piece

import { valueAt } from '../bounds.js';
import {
  DOMAIN_HEADER_BYTES,
  IMAGE_HEADER_BYTES,
  PAGE_DATA_ENTRY_BYTES,
  PAGE_DATA_HEADER_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_LENGTH_MAX,
  RecordType,
  hasPageData,
  paddedLength,
} from '../format.js';
import { decodeDomainHeader, decodeImageHeader } from '../headers.js';
import type { Layer } from '../record-reader.js';
import { LIBXL_HEADER_BYTES, LibxlRecordType, decodeLibxlHeader, isCheckpointState } from '../libxl.js';
import { viewOf } from '../octets.js';
import { XL_HEADER_BYTES, beginsLikeXl, decodeXlHeader, xlHeaderLength } from '../xl.js';
import { type Cursor, Cut } from './cursor.js';
import { recordName } from './names.js';
import type { Checkpoint, StreamVisitor, Walk, WalkedPages } from './visitor.js';

/** Entries of PAGE_DATA that are taken at once. */
const PIECE_ENTRIES = 4096;
const EMPTY = new Uint8Array(0);

interface RecordHead {
  readonly type: number;
  readonly length: number;
}

export class LayerWalker {
  readonly #visitor: StreamVisitor;
  readonly #cursor: Cursor;
  #checkpoint: Checkpoint | null = null;
  #recordsSince = false;

  constructor(cursor: Cursor, visitor: StreamVisitor) {
    this.#cursor = cursor;
    this.#visitor = visitor;
  }

  /** The last one that is whole. */
  get checkpoint(): Checkpoint | null {
    return this.#checkpoint;
  }

  /** Records of libxc came since the last checkpoint. */
  get recordsSince(): boolean {
    return this.#recordsSince;
  }

  /** A stream whose outermost layer this is, of which `first` was taken already. True if its END came. */
  *layers(layer: Layer, first: Uint8Array): Walk<boolean> {
    switch (layer) {
      case 'xl':
        yield* this.#xlHeader(first);
        return yield* this.#libxlStream(EMPTY);
      case 'libxl':
        return yield* this.#libxlStream(first);
      case 'libxc':
        yield* this.#libxcHeaders(first);
        for (;;) {
          const ended = yield* this.#libxcRecords(null);
          if (ended !== 'checkpoint') return ended === 'end';
          this.#completeCheckpoint();
        }
    }
  }

  *#xlHeader(first: Uint8Array): Walk<void> {
    const fixed = yield* this.#cursor.fill(first, XL_HEADER_BYTES, "xl's header");
    if (!beginsLikeXl(fixed)) {
      throw this.#cursor.stop('not-a-stream', 0, null, "begins like xl's header, and then does not");
    }
    const length = this.#cursor.decoded('xl.header', 0, () => xlHeaderLength(fixed));
    const whole = yield* this.#cursor.fill(fixed, length, "xl's header");
    const header = this.#cursor.decoded('xl.header', 0, () => decodeXlHeader(whole));
    this.#cursor.markWhole();
    this.#visitor.xl?.(header, this.#cursor.offset);
  }

  *#libxlStream(first: Uint8Array): Walk<boolean> {
    const offset = this.#cursor.offset - first.length;
    const bytes = yield* this.#cursor.fill(first, LIBXL_HEADER_BYTES, "libxl's header");
    const header = this.#cursor.decoded('libxl.header', offset, () => decodeLibxlHeader(bytes, offset));
    this.#cursor.markWhole();
    this.#visitor.libxl?.(header, offset, viewOf(bytes).getUint32(12));

    let context: 'none' | 'open' | 'checkpoint' | 'ended' = 'none';
    for (;;) {
      const head = yield* this.#recordHead('libxl');
      if (head === null) return false;
      const at = this.#cursor.offset - RECORD_HEADER_BYTES;
      const name = recordName('libxl', head.type);
      yield* this.#body('libxl', head);
      switch (head.type) {
        case LibxlRecordType.LIBXC_CONTEXT:
          if (context !== 'none') throw this.#cursor.stop('libxl.order', at, name, 'a second LIBXC_CONTEXT');
          yield* this.#libxcHeaders(EMPTY);
          context = 'open';
          break;
        case LibxlRecordType.CHECKPOINT_END:
          if (context !== 'checkpoint') {
            this.#cursor.find('libxl.order', at, name, 'CHECKPOINT_END outside a checkpoint');
            break;
          }
          this.#completeCheckpoint();
          context = 'open';
          break;
        case LibxlRecordType.END:
          if (context !== 'ended') {
            this.#cursor.find('libxl.order', at, name, "END before libxc's END");
          }
          return true;
        default:
          break;
      }
      if (context === 'open') {
        const next = yield* this.#afterCheckpoint(head.type === LibxlRecordType.CHECKPOINT_END);
        if (next === 'open') return false;
        context = next === 'end' ? 'ended' : 'checkpoint';
      }
    }
  }

  /** libxc's records up to its END or CHECKPOINT; after CHECKPOINT_END, CHECKPOINT_STATE may come before. */
  *#afterCheckpoint(stateMayCome: boolean): Walk<'end' | 'checkpoint' | 'open'> {
    if (!stateMayCome) return yield* this.#libxcRecords(null);
    for (;;) {
      const head = yield* this.#recordHead('libxc');
      if (head === null) return 'open';
      if (!isCheckpointState(head.type, head.length)) return yield* this.#libxcRecords(head);
      yield* this.#body('libxl', head);
    }
  }

  *#libxcHeaders(first: Uint8Array): Walk<void> {
    const offset = this.#cursor.offset - first.length;
    const where = "libxc's headers";
    const image = (yield* this.#cursor.fill(first, IMAGE_HEADER_BYTES, where)).slice();
    const { version } = this.#cursor.decoded('libxc.header', offset, () => decodeImageHeader(image, offset));
    const bytes = yield* this.#cursor.fill(image, IMAGE_HEADER_BYTES + DOMAIN_HEADER_BYTES, where);
    const at = offset + IMAGE_HEADER_BYTES;
    const domain = this.#cursor.decoded('libxc.domain-header', at, () =>
      decodeDomainHeader(bytes.subarray(IMAGE_HEADER_BYTES), at),
    );
    this.#cursor.markWhole();
    this.#visitor.libxc?.({ version, ...domain }, offset, bytes);
  }

  /** Records of libxc up to END or CHECKPOINT; the head of the first may have been read already. */
  *#libxcRecords(first: RecordHead | null): Walk<'end' | 'checkpoint' | 'open'> {
    let head = first ?? (yield* this.#recordHead('libxc'));
    while (head !== null) {
      if (head.type === RecordType.PAGE_DATA) {
        yield* this.#pageData(head.length);
      } else {
        yield* this.#body('libxc', head);
      }
      switch (head.type) {
        case RecordType.END:
          return 'end';
        case RecordType.CHECKPOINT:
          return 'checkpoint';
        default:
          this.#recordsSince = true;
      }
      head = yield* this.#recordHead('libxc');
    }
    return 'open';
  }

  /** COLO's back channel: records of both layers, no headers, no END. */
  *backChannelRecords(first: Uint8Array): Walk<boolean> {
    const view = viewOf(first);
    let head: RecordHead | null = { type: view.getUint32(0, true), length: view.getUint32(4, true) };
    while (head !== null) {
      yield* this.#body(isCheckpointState(head.type, head.length) ? 'libxl' : 'libxc', head);
      head = yield* this.#recordHead('libxc');
    }
    return false;
  }

  /** Type and length of the next record; null where the stream ends before it. */
  *#recordHead(layer: 'libxl' | 'libxc'): Walk<RecordHead | null> {
    const bytes = yield* this.#cursor.take(RECORD_HEADER_BYTES);
    if (bytes.length === 0) return null;
    if (bytes.length < RECORD_HEADER_BYTES) throw new Cut(`a record header of ${layer}`);
    const view = viewOf(bytes);
    const head = { type: view.getUint32(0, true), length: view.getUint32(4, true) };
    if (paddedLength(head.length) > RECORD_LENGTH_MAX) {
      const at = this.#cursor.offset - RECORD_HEADER_BYTES;
      const limit = `at most ${RECORD_LENGTH_MAX} are possible`;
      throw this.#cursor.stop('length', at, recordName(layer, head.type), `${head.length} octets, ${limit}`);
    }
    return head;
  }

  *#body(layer: 'libxl' | 'libxc', { type, length }: RecordHead): Walk<void> {
    const offset = this.#cursor.offset - RECORD_HEADER_BYTES;
    const padded = paddedLength(length);
    const octets = padded === 0 ? EMPTY : yield* this.#cursor.take(padded);
    if (octets.length < padded) throw new Cut(recordName(layer, type));
    this.#cursor.markWhole();
    this.#visitor.record?.({
      layer,
      type,
      offset,
      length,
      body: octets.subarray(0, length),
      dirtyPadding: nonZero(octets.subarray(length)),
      pages: null,
    });
  }

  *#pageData(length: number): Walk<void> {
    const offset = this.#cursor.offset - RECORD_HEADER_BYTES;
    const headLength = Math.min(length, PAGE_DATA_HEADER_BYTES);
    const head = yield* this.#cursor.takeAll(headLength, 'PAGE_DATA');
    const room = Math.floor((length - PAGE_DATA_HEADER_BYTES) / PAGE_DATA_ENTRY_BYTES);
    const counted = headLength === PAGE_DATA_HEADER_BYTES;
    const count = counted ? viewOf(head).getUint32(0, true) : -1;
    const pages: WalkedPages = {
      offset,
      length,
      count,
      reserved: counted ? viewOf(head).getUint32(4, true) : 0,
      entries: Math.max(0, Math.min(count, room)),
      dataOffset: this.#cursor.offset + Math.max(0, count) * PAGE_DATA_ENTRY_BYTES,
      types: new Uint32Array(16),
      dataPages: 0,
      firstPfn: -1,
    };
    for (let left = pages.entries; left > 0;) {
      const taken = Math.min(left, PIECE_ENTRIES);
      const entries = viewOf(yield* this.#cursor.takeAll(taken * PAGE_DATA_ENTRY_BYTES, 'PAGE_DATA'));
      if (pages.firstPfn < 0) {
        pages.firstPfn = entries.getUint32(0, true) + (entries.getUint32(4, true) & 0xfffff) * 2 ** 32;
      }
      this.#visitor.pageEntries?.(entries, pages);
      countTypes(entries, pages);
      left -= taken;
    }
    const rest = length - headLength - pages.entries * PAGE_DATA_ENTRY_BYTES;
    yield* this.#cursor.skip(Math.max(0, rest), 'PAGE_DATA');
    const padding = yield* this.#cursor.takeAll(paddedLength(length) - length, 'PAGE_DATA');
    this.#cursor.markWhole();
    this.#visitor.record?.({
      layer: 'libxc',
      type: RecordType.PAGE_DATA,
      offset,
      length,
      body: EMPTY,
      dirtyPadding: nonZero(padding),
      pages,
    });
  }

  #completeCheckpoint(): void {
    this.#checkpoint = { number: (this.#checkpoint?.number ?? 0) + 1, end: this.#cursor.offset };
    this.#recordsSince = false;
    this.#visitor.checkpoint?.(this.#checkpoint.number, this.#checkpoint.end);
  }
}

function countTypes(entries: DataView, pages: WalkedPages): void {
  const { types } = pages;
  for (let at = 4; at < entries.byteLength; at += PAGE_DATA_ENTRY_BYTES) {
    const type = entries.getUint32(at, true) >>> 28;
    types[type] = valueAt(types, type) + 1;
  }
  let dataPages = 0;
  for (let type = 0; type < 16; type += 1) {
    dataPages += hasPageData(type) ? valueAt(types, type) : 0;
  }
  pages.dataPages = dataPages;
}

function nonZero(octets: Uint8Array): number {
  let count = 0;
  for (const octet of octets) {
    count += octet === 0 ? 0 : 1;
  }
  return count;
}
