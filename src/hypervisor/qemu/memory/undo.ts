// What RAM was at the last checkpoint that QEMU could load: each page as it was before it was first written since. With
// it a standby goes back to that checkpoint, and forward again.
//
//   RAM    … n-1 ──writes──▶ n          swap ──▶ n-1   swap ──▶ n
//   kept     ·     pages of n-1                  pages of n
//
// Limited: beyond the limit nothing is kept, and there is no way back.

import { valueAt } from '../../../stream/bounds.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { Bitmap } from '../../bitmap.js';
import type { RamAccess } from './ram-access.js';

const GROWTH_PAGES = 256;
/** Pages that are exchanged at a time. */
const SWAP_PAGES = 256;

export class Undo {
  readonly #ram: RamAccess;
  readonly #pagesMax: number;
  readonly #kept: Bitmap;
  #frames = new Uint32Array(GROWTH_PAGES);
  #pages = Buffer.alloc(GROWTH_PAGES * PAGE_SIZE);
  #count = 0;
  #overflown = false;

  constructor(ram: RamAccess, pages: number, limitBytes: number) {
    this.#ram = ram;
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
  async keep(gfns: Uint32Array, count: number): Promise<void> {
    if (this.#overflown) return;
    const before = this.#count;
    this.#reserve(before + count);
    for (let k = 0; k < count; k++) {
      const gfn = valueAt(gfns, k);
      if (this.#kept.has(gfn)) continue;
      if (this.#count === this.#pagesMax) {
        this.#overflown = true;
        return;
      }
      this.#kept.set(gfn);
      this.#frames[this.#count++] = gfn;
    }
    const frames = this.#frames.subarray(before, this.#count);
    if (frames.length > 0) await this.#ram.read(frames, frames.length, this.#pages, before * PAGE_SIZE);
  }

  /** Exchanges what is kept and what RAM holds: back, or forward again. @throws HypervisorError FAILED */
  async swap(): Promise<void> {
    const now = Buffer.alloc(SWAP_PAGES * PAGE_SIZE);
    for (let from = 0; from < this.#count; from += SWAP_PAGES) {
      const pages = Math.min(SWAP_PAGES, this.#count - from);
      const frames = this.#frames.subarray(from, from + pages);
      const kept = this.#pages.subarray(from * PAGE_SIZE, (from + pages) * PAGE_SIZE);
      await this.#ram.read(frames, pages, now, 0);
      await this.#ram.write(frames, pages, kept);
      now.copy(kept, 0, 0, kept.length);
    }
  }

  /** What RAM is now is what to go back to. */
  clear(): void {
    for (let k = 0; k < this.#count; k++) this.#kept.clear(valueAt(this.#frames, k));
    this.#count = 0;
    this.#overflown = false;
  }

  /** As clear(), and gives back the memory that what was kept took. */
  free(): void {
    this.clear();
    this.#frames = new Uint32Array(GROWTH_PAGES);
    this.#pages = Buffer.alloc(GROWTH_PAGES * PAGE_SIZE);
  }

  /** For so many, or as many as there may be. */
  #reserve(pages: number): void {
    if (Math.min(pages, this.#pagesMax) <= this.#frames.length) return;
    const room = Math.min(this.#pagesMax, Math.max(pages, this.#frames.length * 2));
    const frames = new Uint32Array(room);
    frames.set(this.#frames);
    const memory = Buffer.alloc(room * PAGE_SIZE);
    this.#pages.copy(memory);
    this.#frames = frames;
    this.#pages = memory;
  }
}
