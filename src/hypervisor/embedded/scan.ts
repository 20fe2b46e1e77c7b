// Log-dirty by comparison: RAM against a shadow, a copy of it as it was at the last clean. A stride of 64 KiB that is
// equal is done with; in one that is not, each page is compared.
//
//   RAM     |0000|a...|0000|b...|        a stride that was all zeroes has no shadow: it is compared with one block of
//   shadow  | -- |a...| -- |b'..|        zeroes, which stays in the cache, so that memory never touched costs half
//                            ^ changed: its pages are compared, marked, and copied into the shadow
//
// The scan is bound by memory bandwidth, and it happens in the pause: it is the pause.

import { PAGE_SIZE } from '../../stream/format.js';
import type { Bitmap } from '../bitmap.js';

const STRIDE_BYTES = 64 * 1024;
const PAGES_PER_STRIDE = STRIDE_BYTES / PAGE_SIZE;
const WORDS_PER_PAGE = PAGE_SIZE / 4;
const WORDS_PER_STRIDE = STRIDE_BYTES / 4;

const zeroes = Buffer.alloc(STRIDE_BYTES);

/** RAM, as octets and as words of the same memory. Its size is a multiple of 64 KiB. */
export interface Ram {
  readonly octets: Buffer;
  readonly words: Uint32Array;
}

/** Copies a page between word arrays. (Measured: a view and set() take 1 µs, a loop over the words 2.5 µs.) */
export function copyPageWords(from: Uint32Array, fromAt: number, to: Uint32Array, toAt: number): void {
  to.set(from.subarray(fromAt, fromAt + WORDS_PER_PAGE), toAt);
}

export class DirtyScan {
  readonly #shadow: Buffer;
  readonly #shadowWords: Uint32Array;
  /** 1: the shadow of this stride is all zeroes, and stands nowhere. */
  readonly #zeroStride: Uint8Array;

  /** Everything is clean: the shadow becomes a copy of `ram`. */
  constructor(ram: Ram) {
    const memory = new ArrayBuffer(ram.octets.length); // pages of it that are never written cost nothing
    this.#shadow = Buffer.from(memory);
    this.#shadowWords = new Uint32Array(memory);
    this.#zeroStride = new Uint8Array(ram.octets.length / STRIDE_BYTES);
    for (let stride = 0; stride < this.#zeroStride.length; stride++) {
      const start = stride * STRIDE_BYTES;
      if (zeroes.compare(ram.octets, start, start + STRIDE_BYTES) === 0) {
        this.#zeroStride[stride] = 1;
      } else {
        ram.octets.copy(this.#shadow, start, start, start + STRIDE_BYTES);
      }
    }
  }

  /**
   * Sets the bits of `into` (cleared first) to the pages that differ from the shadow; with `clean`, these pages are
   * clean from now on. Returns their number.
   */
  scan(ram: Ram, into: Bitmap, clean: boolean): number {
    into.clearAll();
    const { octets, words } = ram;
    const shadow = this.#shadow;
    const shadowWords = this.#shadowWords;
    const zeroStride = this.#zeroStride;
    let dirty = 0;
    for (let stride = 0; stride < zeroStride.length; stride++) {
      const start = stride * STRIDE_BYTES;
      const end = start + STRIDE_BYTES;
      const wasZero = zeroStride[stride] === 1;
      if (wasZero) {
        if (zeroes.compare(octets, start, end) === 0) continue;
        if (clean) zeroStride[stride] = 0; // its shadow is zeroes still: it was never written
      } else if (shadow.compare(octets, start, end, start, end) === 0) {
        continue;
      }
      for (let page = 0; page < PAGES_PER_STRIDE; page++) {
        const pageStart = start + page * PAGE_SIZE;
        const pageEnd = pageStart + PAGE_SIZE;
        if (shadow.compare(octets, pageStart, pageEnd, pageStart, pageEnd) === 0) continue;
        const pfn = stride * PAGES_PER_STRIDE + page;
        into.set(pfn);
        dirty++;
        if (clean) {
          const word = stride * WORDS_PER_STRIDE + page * WORDS_PER_PAGE;
          copyPageWords(words, word, shadowWords, word);
        }
      }
    }
    return dirty;
  }
}
