// The guest's pseudo-physical map: pfn to mfn by the guest's own p2m, mfn to pfn by Xen's m2p, and whether the two
// agree. The p2m is a list of pages of guest longs: the guest's own pages, mapped, when it is saved; pages of ours,
// to be copied over the guest's when all its memory is known, when it is restored.
//
//   pfn ─▶ p2m[pfn / entries per page][pfn % entries] = mfn ─▶ m2p[mfn] = pfn

import { outOfBounds, valueAt } from '../../stream/bounds.js';
import { INVALID_FRAME, PAGE_SIZE } from '../../stream/format.js';
import type { GuestWidth } from '../../stream/records/pv.js';

const WORDS_PER_PAGE = PAGE_SIZE / 4;
const NO_M2P = new Uint32Array(0);

export class Physmap {
  readonly width: GuestWidth;
  /** Entries of a page of the p2m are 2 to this power. */
  readonly entryShift: number;
  /** The highest pfn; -1: none. */
  maxPfn = -1;
  /** Pages of the p2m, 1024 words each. */
  p2m: readonly Uint32Array[] = [];
  /** Xen's table, two words an entry. */
  m2p: Uint32Array = NO_M2P;
  maxMfn = -1;

  constructor(width: GuestWidth) {
    this.width = width;
    this.entryShift = width === 8 ? 9 : 10;
  }

  /** INVALID_FRAME: no frame now, or an entry that is no frame of this guest (a foreign frame's mark is above bit 31). */
  pfnToMfn(pfn: number): number {
    const page = this.p2m[pfn >>> this.entryShift];
    if (page === undefined || pfn > this.maxPfn) return INVALID_FRAME;
    return this.width === 4 ? valueAt(page, pfn & 1023) : frameOf(page, (pfn & 511) * 2);
  }

  /** @throws RangeError above the p2m */
  setPfnToMfn(pfn: number, mfn: number): void {
    const page = this.p2m[pfn >>> this.entryShift];
    if (page === undefined || pfn > this.maxPfn) {
      throw new RangeError(`pfn ${pfn} is above the p2m's last, ${this.maxPfn}`);
    }
    if (this.width === 4) {
      page[pfn & 1023] = mfn;
    } else {
      const at = (pfn & 511) * 2;
      page[at] = mfn;
      page[at + 1] = mfn === INVALID_FRAME ? INVALID_FRAME : 0;
    }
  }

  /** INVALID_FRAME: nobody's, shared, or not a frame of the machine. */
  mfnToPfn(mfn: number): number {
    if (mfn > this.maxMfn) return INVALID_FRAME;
    return frameOf(this.m2p, mfn * 2);
  }

  /** The pfn of a frame that m2p and p2m agree on, else INVALID_FRAME: libxc's mfn_in_pseudophysmap and mfn_to_pfn. */
  ownPfn(mfn: number): number {
    const pfn = this.mfnToPfn(mfn);
    return pfn !== INVALID_FRAME && this.pfnToMfn(pfn) === mfn ? pfn : INVALID_FRAME;
  }

  /** Makes room for pfns up to maxPfn in pages of ours; the new ones have no frame. */
  expand(maxPfn: number): void {
    const pages = [...this.p2m];
    const wanted = (maxPfn >>> this.entryShift) + 1;
    while (pages.length < wanted) pages.push(new Uint32Array(WORDS_PER_PAGE).fill(INVALID_FRAME));
    this.p2m = pages;
    this.maxPfn = maxPfn;
  }

  /** What an error says about a frame that the two tables do not agree on. */
  facts(mfn: number): { mfn: number; maxMfn: number; pfn: number; maxPfn: number; p2m: number } {
    const pfn = this.mfnToPfn(mfn);
    return { mfn, maxMfn: this.maxMfn, pfn, maxPfn: this.maxPfn, p2m: this.pfnToMfn(pfn) };
  }
}

/** The frame in two words of a table; INVALID_FRAME if one cannot hold it. */
function frameOf(table: Uint32Array, at: number): number {
  const high = table[at + 1];
  if (high === undefined) throw outOfBounds(table.length, at + 1);
  return high === 0 ? valueAt(table, at) : INVALID_FRAME;
}
