// A bitmap over pfns: the dirty bitmap, the deferred pages, the populated pfns. 32 pages a word, so that a sparse
// bitmap of a large guest is walked a word at a time.

import { outOfBounds } from '../stream/bounds.js';

export class Bitmap {
  /** Bits, not words. */
  readonly size: number;
  /** Bit p of word w stands for pfn 32 w + p. Shared memory if asked for, so that a worker can fill it. */
  readonly words: Uint32Array;

  constructor(size: number, options: { shared?: boolean; words?: Uint32Array } = {}) {
    this.size = size;
    const wordCount = Math.ceil(size / 32);
    const Memory = options.shared === true ? SharedArrayBuffer : ArrayBuffer;
    this.words = options.words ?? new Uint32Array(new Memory(wordCount * 4));
    if (this.words.length === wordCount) return;
    throw new RangeError(`a bitmap of ${size} bits needs ${wordCount} words, not ${this.words.length}`);
  }

  has(bit: number): boolean {
    return bit >= 0 && bit < this.size && ((wordAt(this.words, bit >>> 5) >>> (bit & 31)) & 1) === 1;
  }

  set(bit: number): void {
    this.#check(bit);
    const word = bit >>> 5;
    this.words[word] = wordAt(this.words, word) | (1 << (bit & 31));
  }

  clear(bit: number): void {
    this.#check(bit);
    const word = bit >>> 5;
    this.words[word] = wordAt(this.words, word) & ~(1 << (bit & 31));
  }

  setAll(): void {
    this.words.fill(0xffffffff);
    const rest = this.size & 31;
    if (rest !== 0) this.words[this.words.length - 1] = 2 ** rest - 1;
  }

  clearAll(): void {
    this.words.fill(0);
  }

  /** This bitmap becomes the union of itself and the other, which must be of the same size. */
  or(other: Bitmap): void {
    if (other.size !== this.size) {
      throw new RangeError(`bitmaps of ${this.size} and ${other.size} bits cannot be united`);
    }
    const mine = this.words;
    const theirs = other.words;
    for (let w = 0; w < mine.length; w++) mine[w] = wordAt(mine, w) | wordAt(theirs, w);
  }

  count(): number {
    let total = 0;
    for (const word of this.words) {
      let v = word - ((word >>> 1) & 0x55555555);
      v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
      total += (((v + (v >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
    }
    return total;
  }

  /** The first set bit at or after `from`, or -1. The way to walk it: for (p = next(0); p >= 0; p = next(p + 1)). */
  next(from: number): number {
    if (from >= this.size) return -1;
    const words = this.words;
    let w = from >>> 5;
    let word = (wordAt(words, w) >>> (from & 31)) << (from & 31);
    while (word === 0) {
      w++;
      if (w >= words.length) return -1;
      word = wordAt(words, w);
    }
    return w * 32 + (31 - Math.clz32(word & -word));
  }

  #check(bit: number): void {
    if (!(bit >= 0 && bit < this.size))
      throw new RangeError(`bit ${bit} is outside a bitmap of ${this.size}`);
  }
}

/**
 * valueAt() for words, which are read for each page. (Measured: 2 ns; valueAt(), which sees arrays of all kinds, 18 ns.)
 * @throws BoundsError
 */
export function wordAt(words: Uint32Array, index: number): number {
  const word = words[index];
  if (word === undefined) throw outOfBounds(words.length, index);
  return word;
}
