// Which pages of a domain have changed, found from outside and without its hypervisor's help: of each page a stamp of 32
// bits is kept, and compared with that of the page now. Four octets a page, and a reading of it; a page that changed and
// has the same stamp (one in four thousand million) is taken for one that did not.

import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_SIZE } from '../stream/format.js';
import { valueAt } from '../stream/bounds.js';
import { Bitmap, wordAt } from './bitmap.js';
import type { SourceDomain } from './port.js';

/** Pages that are read at a time: half a megabyte, a millisecond's work. */
export const SLAB_PAGES = 128;
const WORDS_PER_PAGE = PAGE_SIZE / 4;
/** FNV's. */
const PRIME = 0x01000193;

/** Memory for so many pages, which a domain in a worker fills without another copy. */
export function openSlab(): Uint32Array {
  return new Uint32Array(new SharedArrayBuffer(SLAB_PAGES * PAGE_SIZE));
}

/**
 * After each slab, for about as long as that keeps this process busy: memory that answers at once would hold up all else, and
 * a guest that is replicated would feel it.
 */
export const REST_MS = 1;

export class PageStamps {
  readonly #stamps: Uint32Array;
  readonly #known: Bitmap;

  /** `pages`: of the domain. */
  constructor(pages: number) {
    this.#stamps = new Uint32Array(pages);
    this.#known = new Bitmap(pages);
  }

  /** The first `count` frames hold what lies in the slab, page after page. */
  note(gfns: Uint32Array, count: number, slab: Uint32Array): void {
    for (let k = 0; k < count; k++) {
      const gfn = valueAt(gfns, k);
      this.#stamps[gfn] = stampOf(slab, k);
      this.#known.set(gfn);
    }
  }

  /**
   * The pages that are not as they were noted, and notes them as they are now. `among`: default, all that were noted; `most`:
   * it looks for no more of them.
   * @throws as copyPages()
   */
  async changed(
    domain: Pick<SourceDomain, 'copyPages'>,
    { among = this.#known, most = Infinity }: { among?: Bitmap; most?: number } = {},
  ): Promise<Bitmap> {
    const changed = new Bitmap(this.#known.size);
    const slab = openSlab();
    const octets = new Uint8Array(slab.buffer);
    const frames = new Uint32Array(SLAB_PAGES);
    let found = 0;
    for (let next = among.next(0); next >= 0 && found < most;) {
      let count = 0;
      for (; next >= 0 && count < SLAB_PAGES; next = among.next(next + 1)) frames[count++] = next;
      await domain.copyPages(frames, count, octets, 0);
      for (let k = 0; k < count; k++) {
        const gfn = valueAt(frames, k);
        const stamp = stampOf(slab, k);
        if (wordAt(this.#stamps, gfn) === stamp) continue;
        this.#stamps[gfn] = stamp;
        changed.set(gfn);
        found++;
      }
      await sleep(REST_MS);
    }
    return changed;
  }
}

/** Of the k-th page. */
function stampOf(slab: Uint32Array, k: number): number {
  let stamp = 0;
  const end = (k + 1) * WORDS_PER_PAGE;
  for (let at = k * WORDS_PER_PAGE; at < end; at++) stamp = Math.imul(stamp ^ wordAt(slab, at), PRIME);
  return stamp >>> 0;
}
