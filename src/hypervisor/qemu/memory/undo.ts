// What RAM was at the last checkpoint that QEMU could load: each page as it was before it was first written since. With
// it a standby goes back to that checkpoint, and forward again.
//
//   RAM    … n-1 ──writes──▶ n          swap ──▶ n-1   swap ──▶ n
//   kept     ·     pages of n-1                  pages of n
//
// Limited: beyond the limit nothing is kept, and there is no way back.

import { INVALID_FRAME, PAGE_SIZE } from '../../../stream/format.js';
import { Bitmap } from '../../bitmap.js';
import { readFrames, writeFrames } from './ram-file.js';

const GROWTH_PAGES = 256;
/** Pages that are exchanged at a time. */
const SWAP_PAGES = 256;

export class Undo {
  readonly #ramFd: number;
  readonly #pagesMax: number;
  readonly #kept: Bitmap;
  #frames = new Uint32Array(GROWTH_PAGES);
  #pages = Buffer.alloc(GROWTH_PAGES * PAGE_SIZE);
  #count = 0;
  #overflown = false;

  constructor(ramFd: number, pages: number, limitBytes: number) {
    this.#ramFd = ramFd;
    this.#pagesMax = Math.floor(limitBytes / PAGE_SIZE);
    this.#kept = new Bitmap(pages);
  }

  /** There is no way back. */
  get overflown(): boolean {
    return this.#overflown;
  }

  get pages(): number {
    return this.#count;
  }

  /** The frames are about to be written. @throws HypervisorError FAILED */
  keep(gfns: Uint32Array, count: number): void {
    if (this.#overflown) return;
    for (let k = 0; k < count;) {
      const run = this.#newRun(gfns, k, count);
      if (run === 0) {
        k++;
        continue;
      }
      if (this.#count + run > this.#pagesMax) {
        this.#overflown = true;
        return;
      }
      this.#reserve(this.#count + run);
      const frames = this.#frames.subarray(this.#count, this.#count + run);
      for (let i = 0; i < run; i++) {
        frames[i] = gfns[k + i] ?? INVALID_FRAME;
        this.#kept.set(frames[i] ?? INVALID_FRAME);
      }
      readFrames(this.#ramFd, frames, run, this.#pages, this.#count * PAGE_SIZE);
      this.#count += run;
      k += run;
    }
  }

  /** Exchanges what is kept and what RAM holds: back, or forward again. @throws HypervisorError FAILED */
  swap(): void {
    const now = Buffer.alloc(SWAP_PAGES * PAGE_SIZE);
    for (let from = 0; from < this.#count; from += SWAP_PAGES) {
      const pages = Math.min(SWAP_PAGES, this.#count - from);
      const frames = this.#frames.subarray(from, from + pages);
      const kept = this.#pages.subarray(from * PAGE_SIZE, (from + pages) * PAGE_SIZE);
      readFrames(this.#ramFd, frames, pages, now, 0);
      writeFrames(this.#ramFd, frames, pages, kept);
      now.copy(kept, 0, 0, kept.length);
    }
  }

  /** What RAM is now is what to go back to. */
  clear(): void {
    for (let k = 0; k < this.#count; k++) this.#kept.clear(this.#frames[k] ?? INVALID_FRAME);
    this.#count = 0;
    this.#overflown = false;
  }

  /** How many frames from `from` on are not kept yet, and follow one another. */
  #newRun(gfns: Uint32Array, from: number, count: number): number {
    const first = gfns[from] ?? INVALID_FRAME;
    let run = 0;
    while (from + run < count && gfns[from + run] === first + run && !this.#kept.has(first + run)) run++;
    return run;
  }

  #reserve(pages: number): void {
    if (pages <= this.#frames.length) return;
    const room = Math.min(this.#pagesMax, Math.max(pages, this.#frames.length * 2));
    const frames = new Uint32Array(room);
    frames.set(this.#frames);
    const memory = Buffer.alloc(room * PAGE_SIZE);
    this.#pages.copy(memory);
    this.#frames = frames;
    this.#pages = memory;
  }
}
