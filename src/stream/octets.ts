// A queue of octets that arrive in chunks cut anywhere and leave in runs of a wanted length.
//
//   push ──▶ │ tail … chunk … chunk … head │ ──▶ take / skip
//                                    ▲ headStart: octets of the head chunk that have left already
//
// A run that lies in one chunk leaves as a view of it; one that does not is copied together when it leaves, never
// before. Memory is therefore what was pushed, not what a length field promises. Many tiny chunks are merged now and
// then, so that an octet that comes alone does not keep an object of its own for long.

import { valueAt } from './bounds.js';

const EMPTY = new Uint8Array(0);

/** Node's Buffers are Uint8Arrays whose slice() is no copy: who keeps one of what comes out would keep a view. */
function plain(chunk: Uint8Array): Uint8Array {
  return Buffer.isBuffer(chunk) ? new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length) : chunk;
}

/** After this many chunks without a merge the queue looks whether they are worth merging. */
const MERGE_CHUNKS = 1024;
/** Chunks are merged if they are shorter than this on average: longer ones cost less to keep than to copy. */
const MERGE_AVERAGE_BYTES = 1024;
/** Slots of chunks that have left are given back once there are this many (and as many as are left). */
const DROP_CHUNKS = 64;

export class OctetQueue {
  readonly #chunks: Uint8Array[] = [];
  /** Index of the chunk that the next octet lies in. */
  #head = 0;
  /** Octets of it that have left. */
  #headStart = 0;
  #length = 0;
  /** The chunks from this index on have never been merged, and are #unmergedBytes long together. */
  #unmergedFrom = 0;
  #unmergedBytes = 0;

  /** Octets in the queue. */
  get length(): number {
    return this.#length;
  }

  /** The chunk belongs to the queue until its octets have left, and to the views of it after that. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#chunks.push(plain(chunk));
    this.#length += chunk.length;
    this.#unmergedBytes += chunk.length;
    if (this.#chunks.length - this.#unmergedFrom >= MERGE_CHUNKS) {
      this.#merge();
    }
  }

  /** The little-endian u32 that starts `at` octets after the first. The queue must hold it. */
  peekUint32(at: number): number {
    this.#demand(at + 4);
    const chunk = valueAt(this.#chunks, this.#head);
    const start = this.#headStart + at;
    if (start + 4 <= chunk.length) return readUint32(chunk, start);
    return readUint32(this.peek(at + 4), at);
  }

  /** The next `length` octets without taking them; a copy where they lie in more than one chunk. */
  peek(length: number): Uint8Array {
    this.#demand(length);
    if (length === 0) return EMPTY;
    const chunk = valueAt(this.#chunks, this.#head);
    if (this.#headStart + length <= chunk.length) {
      return chunk.subarray(this.#headStart, this.#headStart + length);
    }
    const assembled = new Uint8Array(length);
    let filled = 0;
    let index = this.#head;
    let start = this.#headStart;
    while (filled < length) {
      const source = valueAt(this.#chunks, index);
      const end = Math.min(source.length, start + length - filled);
      assembled.set(source.subarray(start, end), filled);
      filled += end - start;
      index += 1;
      start = 0;
    }
    return assembled;
  }

  /** Takes the next `length` octets: a view of the chunk that they lie in, or a copy. */
  take(length: number): Uint8Array {
    const octets = this.peek(length);
    this.skip(length);
    return octets;
  }

  /** Drops the next `length` octets. */
  skip(length: number): void {
    this.#demand(length);
    this.#length -= length;
    let start = this.#headStart + length;
    let chunk = this.#chunks[this.#head];
    while (chunk !== undefined && start >= chunk.length) {
      start -= chunk.length;
      if (this.#head >= this.#unmergedFrom) {
        this.#unmergedFrom = this.#head + 1;
        this.#unmergedBytes -= chunk.length;
      }
      // Nothing but this slot may hold the chunk's memory any longer.
      this.#chunks[this.#head] = EMPTY;
      this.#head += 1;
      chunk = this.#chunks[this.#head];
    }
    this.#headStart = start;
    this.#dropLeft();
  }

  #demand(length: number): void {
    if (length > this.#length) {
      throw new RangeError(`${length} octets wanted of a queue that holds ${this.#length}`);
    }
  }

  /** Splicing costs what is left, so it waits until as much has left: constant cost per chunk in the long run. */
  #dropLeft(): void {
    if (this.#head === this.#chunks.length) {
      this.#chunks.length = 0;
    } else if (this.#head >= DROP_CHUNKS && this.#head * 2 >= this.#chunks.length) {
      this.#chunks.splice(0, this.#head);
    } else {
      return;
    }
    this.#unmergedFrom = Math.max(0, this.#unmergedFrom - this.#head);
    this.#head = 0;
  }

  /** Copies the chunks that were never merged into one if they are short: each octet is merged at most once. */
  #merge(): void {
    const from = this.#unmergedFrom;
    const count = this.#chunks.length - from;
    if (this.#unmergedBytes < count * MERGE_AVERAGE_BYTES) {
      const merged = new Uint8Array(this.#unmergedBytes);
      let filled = 0;
      for (let index = from; index < this.#chunks.length; index += 1) {
        const chunk = valueAt(this.#chunks, index);
        merged.set(chunk, filled);
        filled += chunk.length;
      }
      this.#chunks.length = from;
      this.#chunks.push(merged);
    }
    this.#unmergedFrom = this.#chunks.length;
    this.#unmergedBytes = 0;
  }
}

/** The little-endian u32 at octet `at`. */
export function readUint32(octets: Uint8Array, at: number): number {
  return (
    (valueAt(octets, at) |
      (valueAt(octets, at + 1) << 8) |
      (valueAt(octets, at + 2) << 16) |
      (valueAt(octets, at + 3) << 24)) >>>
    0
  );
}

/** Writes a little-endian u32 to octet `at`. */
export function writeUint32(octets: Uint8Array, at: number, value: number): void {
  octets[at] = value;
  octets[at + 1] = value >>> 8;
  octets[at + 2] = value >>> 16;
  octets[at + 3] = value >>> 24;
}

/** True if the octets may be the beginning of what begins with the magic: all of it that is there agrees. */
export function beginsWith(octets: Uint8Array, magic: Uint8Array): boolean {
  return octets.subarray(0, magic.length).every((octet, index) => octet === magic[index]);
}

/** A view of the memory through which whole numbers are read and written. */
export function viewOf(octets: ArrayBufferView): DataView {
  return new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
}
