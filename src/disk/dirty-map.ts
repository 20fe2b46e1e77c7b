// Which parts of a disk differ, or may: a bit for each chunk of 64 KiB. What is kept of the guest's writes where there is
// no room, or no use, for their data.
//
// On the wire it is the lengths of its runs, clear and set in turn, the first one clear, up to the last that is set:
//
//   chunks  · · · # # · #     3 2 1 1     each number in groups of seven bits, the lowest first; the top bit of an
//                                         octet says that another follows

import { u32At } from './extents.js';
import { DiskError, demandOnDisk } from './error.js';

export const CHUNK_BYTES = 64 * 1024;
/** A number in groups of seven bits that is exact as a number of JavaScript's. */
const GROUPS_MAX = 7;

export interface DiskRange {
  readonly offset: number;
  readonly length: number;
}

export class DirtyMap {
  /** Of the disk. The last chunk may be shorter than the others. */
  readonly bytes: number;
  readonly chunks: number;
  /** Bit c of word w stands for chunk 32 w + c. */
  readonly words: Uint32Array<ArrayBuffer>;

  /** @param words of a map of the same disk, which become this one's */
  constructor(bytes: number, words?: Uint32Array<ArrayBuffer>) {
    this.bytes = bytes;
    this.chunks = Math.ceil(bytes / CHUNK_BYTES);
    const wordCount = Math.ceil(this.chunks / 32);
    this.words = words ?? new Uint32Array(wordCount);
    if (this.words.length === wordCount) return;
    throw new RangeError(`a map of ${this.chunks} chunks needs ${wordCount} words, not ${this.words.length}`);
  }

  /** Sets every chunk that the range touches. @throws DiskError OUT_OF_DISK */
  mark(offset: number, length: number): void {
    demandOnDisk(offset, length, this.bytes);
    if (length === 0) return;
    this.#fill(Math.floor(offset / CHUNK_BYTES), Math.ceil((offset + length) / CHUNK_BYTES), true);
  }

  markAll(): void {
    this.#fill(0, this.chunks, true);
  }

  /** Clears every chunk that the range touches. @throws DiskError OUT_OF_DISK */
  clear(offset: number, length: number): void {
    demandOnDisk(offset, length, this.bytes);
    if (length === 0) return;
    this.#fill(Math.floor(offset / CHUNK_BYTES), Math.ceil((offset + length) / CHUNK_BYTES), false);
  }

  has(chunk: number): boolean {
    return chunk >= 0 && chunk < this.chunks && ((u32At(this.words, chunk >>> 5) >>> (chunk & 31)) & 1) === 1;
  }

  /** This map becomes the union of itself and the other, which must be of a disk of the same size. */
  or(other: DirtyMap): void {
    if (other.bytes !== this.bytes) {
      throw new RangeError(`maps of disks of ${this.bytes} and ${other.bytes} octets cannot be united`);
    }
    for (let w = 0; w < this.words.length; w++) this.words[w] = u32At(this.words, w) | u32At(other.words, w);
  }

  get isEmpty(): boolean {
    return this.#next(0, true) === this.chunks;
  }

  /** Chunks that are set. */
  count(): number {
    let total = 0;
    for (const { first, end } of this.#chunkRuns()) total += end - first;
    return total;
  }

  /** Octets of the disk in the chunks that are set. */
  octets(): number {
    let total = 0;
    for (const { length } of this.runs()) total += length;
    return total;
  }

  /**
   * The first run of set chunks at or after `offset`, which must be a chunk's, of `lengthMax` octets at most (a multiple
   * of a chunk); null: there is none.
   */
  nextRun(offset: number, lengthMax = Infinity): DiskRange | null {
    const first = this.#next(offset / CHUNK_BYTES, true);
    if (first === this.chunks) return null;
    const end = Math.min(this.#next(first, false), first + lengthMax / CHUNK_BYTES);
    return this.#range(first, end);
  }

  /** All of them, in ascending order. What is set or cleared meanwhile may or may not be seen. */
  *runs(): Generator<DiskRange> {
    for (const { first, end } of this.#chunkRuns()) yield this.#range(first, end);
  }

  encode(): Uint8Array {
    const octets: number[] = [];
    let last = 0;
    for (const { first, end } of this.#chunkRuns()) {
      pushNumber(octets, first - last);
      pushNumber(octets, end - first);
      last = end;
    }
    return Uint8Array.from(octets);
  }

  /** @param bytes of the disk, which is not on the wire. @throws DiskError BAD_MAP */
  static decode(octets: Uint8Array, bytes: number): DirtyMap {
    const map = new DirtyMap(bytes);
    let chunk = 0;
    let at = 0;
    for (let isSet = false; at < octets.length || isSet; isSet = !isSet) {
      const begins = at;
      let run = 0;
      for (let group = 0, factor = 1; ; group++, factor *= 128) {
        const octet = octets[at++];
        if (octet === undefined || group === GROUPS_MAX) throw bad('a number does not end');
        run += (octet & 0x7f) * factor;
        if (octet >= 0x80) continue;
        if (octet === 0 && group > 0) throw bad('a number is longer than it need be');
        break;
      }
      if (run === 0 && begins > 0) throw bad('a run has no length');
      if (chunk + run > map.chunks) throw bad('it goes beyond the end of the disk');
      if (isSet) map.#fill(chunk, chunk + run, true);
      chunk += run;
    }
    return map;

    function bad(what: string): DiskError {
      return new DiskError('BAD_MAP', `this is no dirty map of the disk: ${what}`, { at, bytes });
    }
  }

  *#chunkRuns(): Generator<{ readonly first: number; readonly end: number }> {
    for (let end = 0; ;) {
      const first = this.#next(end, true);
      if (first === this.chunks) return;
      end = this.#next(first, false);
      yield { first, end };
    }
  }

  #range(first: number, end: number): DiskRange {
    const offset = first * CHUNK_BYTES;
    return { offset, length: Math.min(end * CHUNK_BYTES, this.bytes) - offset };
  }

  /** The first chunk at or after this one that is so; `chunks`: there is none. */
  #next(from: number, isSet: boolean): number {
    const flip = isSet ? 0 : 0xffffffff;
    let w = from >>> 5;
    if (w >= this.words.length) return this.chunks;
    let word = (((u32At(this.words, w) ^ flip) >>> (from & 31)) << (from & 31)) >>> 0;
    while (word === 0) {
      w++;
      if (w >= this.words.length) return this.chunks;
      word = (u32At(this.words, w) ^ flip) >>> 0;
    }
    return Math.min(this.chunks, w * 32 + (31 - Math.clz32(word & -word)));
  }

  /** Chunks first … end - 1. */
  #fill(first: number, end: number, isSet: boolean): void {
    const { words } = this;
    for (let chunk = first; chunk < end;) {
      const w = chunk >>> 5;
      if ((chunk & 31) === 0 && end - chunk >= 32) {
        const last = end >>> 5;
        words.fill(isSet ? 0xffffffff : 0, w, last);
        chunk = last * 32;
        continue;
      }
      const bits = Math.min(32 - (chunk & 31), end - chunk);
      const mask = (bits === 32 ? 0xffffffff : (1 << bits) - 1) << (chunk & 31);
      words[w] = isSet ? u32At(words, w) | mask : u32At(words, w) & ~mask;
      chunk += bits;
    }
  }
}

function pushNumber(octets: number[], value: number): void {
  for (; value >= 128; value = Math.floor(value / 128)) octets.push((value % 128) + 128);
  octets.push(value);
}
