// The slab: memory taken once, in which the records of a checkpoint are laid out as they will go over the wire, so
// that a page is copied exactly once, from the domain to its place in the record.
//
//   | headroom 8 | record hdr 8 | count, 0 | pfn entry × n | page × m | headroom 8 | record hdr 8 | …
//   └──────────────────────── one piece ─────────────────────────────┘└─ next piece …
//
// A PAGE_DATA record is a piece by itself. Small records that follow one another share a piece. Everything is a
// multiple of 8 octets, so pages stay aligned to words.

import { valueAt } from '../stream/bounds.js';
import { HEADROOM, type StreamPiece } from '../stream/flow.js';
import {
  MAX_BATCH_SIZE,
  PAGE_DATA_HEADER_BYTES,
  PAGE_SIZE,
  RECORD_HEADER_BYTES,
  RecordType,
  paddedLength,
} from '../stream/format.js';
import { writePageDataHeader, writePfnEntry, writeRecordHeader } from '../stream/writer.js';
import { SaveError } from './error.js';

const PFN_ENTRY_BYTES = 8;
/** What a PAGE_DATA record takes before its pfn list. */
const PAGE_DATA_START = HEADROOM + RECORD_HEADER_BYTES + PAGE_DATA_HEADER_BYTES;

/** A slab holds at least one record with one page. */
const SLAB_BYTES_MIN = PAGE_DATA_START + PFN_ENTRY_BYTES + PAGE_SIZE;

interface MutablePiece {
  readonly memory: Uint8Array;
  readonly start: number;
  end: number;
}

export class Slab {
  readonly memory: Uint8Array;
  #used = 0;
  /** The piece that a small record may still be added to. */
  #open: MutablePiece | null = null;

  constructor(bytes: number) {
    this.memory = new Uint8Array(new SharedArrayBuffer(bytes));
  }

  get isEmpty(): boolean {
    return this.#used === 0;
  }

  reset(): void {
    this.#used = 0;
    this.#open = null;
  }

  /** How many pfns, all with data, the next PAGE_DATA record may have: 0 when the slab is full. */
  batchRoom(): number {
    const room = this.memory.length - this.#used - PAGE_DATA_START;
    return Math.max(0, Math.min(MAX_BATCH_SIZE, Math.floor(room / (PFN_ENTRY_BYTES + PAGE_SIZE))));
  }

  /** Where the first page of a record of `count` pfns will stand. */
  pagesOffset(count: number): number {
    return this.#used + PAGE_DATA_START + count * PFN_ENTRY_BYTES;
  }

  /** Finishes the record whose pages were put at pagesOffset(count): the piece that it makes. */
  closePageData(pfns: Uint32Array, types: Uint8Array, count: number, pages: number): StreamPiece {
    const memory = this.memory;
    const start = this.#used + HEADROOM;
    const body = start + RECORD_HEADER_BYTES;
    const length = PAGE_DATA_HEADER_BYTES + count * PFN_ENTRY_BYTES + pages * PAGE_SIZE;
    writeRecordHeader(memory, start, RecordType.PAGE_DATA, length);
    writePageDataHeader(memory, body, count);
    let at = body + PAGE_DATA_HEADER_BYTES;
    for (let i = 0; i < count; i++) {
      writePfnEntry(memory, at, valueAt(pfns, i), valueAt(types, i));
      at += PFN_ENTRY_BYTES;
    }
    this.#used = body + length;
    this.#open = null;
    return { memory, start, end: this.#used };
  }

  /** Octets that the body of a record which is a piece by itself may have, padding included. */
  bodyRoom(): number {
    return Math.max(0, this.memory.length - this.bodyOffset());
  }

  /** Where it will stand: at a multiple of 8, as its piece does. */
  bodyOffset(): number {
    return this.#used + HEADROOM + RECORD_HEADER_BYTES;
  }

  /** Finishes the record whose body was put at bodyOffset(): the piece that it makes. */
  closeBody(type: number, length: number): StreamPiece {
    const memory = this.memory;
    const start = this.#used + HEADROOM;
    const end = this.bodyOffset() + length;
    writeRecordHeader(memory, start, type, length);
    this.#used = this.bodyOffset() + paddedLength(length);
    memory.fill(0, end, this.#used);
    this.#open = null;
    return { memory, start, end: this.#used };
  }

  /**
   * Appends finished octets (whole records, a multiple of 8). A piece if they begin one, null if they went into the
   * piece before, false if there is no room for them here.
   */
  append(parts: readonly Uint8Array[], bytes: number): StreamPiece | null | false {
    const added = this.#open;
    const start = added === null ? this.#used + HEADROOM : this.#used;
    if (start + bytes > this.memory.length) return false;
    let at = start;
    for (const part of parts) {
      this.memory.set(part, at);
      at += part.length;
    }
    this.#used = at;
    if (added !== null) {
      added.end = at;
      return null;
    }
    this.#open = { memory: this.memory, start, end: at };
    return this.#open;
  }

  /** The next small record begins a piece of its own: what was appended is on its way. */
  closePiece(): void {
    this.#open = null;
  }
}

/**
 * The slabs of one stream after another: one more than the checkpoints that may be on their way while the next is
 * captured, each of `bytes` octets.
 * @throws SaveError BAD_OPTIONS
 */
export function makeSlabs(count: number, bytes: number): readonly Slab[] {
  if (!Number.isInteger(bytes) || bytes < SLAB_BYTES_MIN || bytes % 8 !== 0) {
    const message = `slabBytes must be a multiple of 8 and at least ${SLAB_BYTES_MIN}, not ${bytes}`;
    throw new SaveError('BAD_OPTIONS', message, { slabBytes: bytes });
  }
  if (!Number.isInteger(count) || count < 1) {
    throw new SaveError('BAD_OPTIONS', `slabCount must be at least 1, not ${count}`, { slabCount: count });
  }
  return Array.from({ length: count }, () => new Slab(bytes));
}
