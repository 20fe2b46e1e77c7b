// Which pfns of the domain have memory. The map grows to the next power of two when a higher pfn comes, so that a
// small domain with a large address space costs little.

import { Bitmap } from '../hypervisor/bitmap.js';

/** 32 MiB of guest. */
const INITIAL_PFNS = 8192;

export class PopulatedPfns {
  #bitmap = new Bitmap(INITIAL_PFNS);

  /** Pfns that can be held before the map grows: a power of two. */
  get capacity(): number {
    return this.#bitmap.size;
  }

  has(pfn: number): boolean {
    return this.#bitmap.has(pfn);
  }

  set(pfn: number): void {
    if (pfn >= this.#bitmap.size) this.#grow(pfn);
    this.#bitmap.set(pfn);
  }

  #grow(pfn: number): void {
    const grown = new Bitmap(2 ** (Math.floor(Math.log2(pfn)) + 1));
    grown.words.set(this.#bitmap.words);
    this.#bitmap = grown;
  }
}
