// Page tables of a PV guest: entries hold mfns, in the stream they hold pfns. Both ways are one loop over the 512
// entries of a page, in place, with no allocation.
//
//   63        52 51                     12 11        0
//   | flags      | frame                  | flags  P |      bit 0 present, bit 7 a superpage (above level 1)
//
// The slots that Xen puts its own mappings into are emptied on the way out; Xen fills them again on the other side.
//
//   64-bit L4: 256 … 271        PAE L3: 4 … 511        PAE L2: 428 … 511 where the first maps Xen's compat m2p
//
// Source: libxc's contract (x86_pv_normalise_page, x86_pv_localise_page) and Xen's public header xen-x86_32.h.

import { INVALID_FRAME } from '../../stream/format.js';
import type { Physmap } from './physmap.js';

export const ENTRIES = 512;
const PRESENT = 1;
const SUPERPAGE = 0x80;
/** Of an entry's upper word: the part of the frame that 32 bits cannot hold, and what is not the frame. */
const FRAME_TOO_HIGH = 0x000ff000;
const FRAME_HIGH = 0x00000fff;
const FLAGS_HIGH = 0xfff00000;
const FLAGS_LOW = 0x00000fff;

const L4_XEN_FIRST = 256;
const L4_XEN_LAST = 271;
const PAE_L3_GUEST_ENTRIES = 4;
/** HYPERVISOR_VIRT_START of a 32-bit guest, 0xf5800000, in L2 entries of 2 MiB. */
const PAE_L2_XEN_FIRST = 428;

/** No entry is bad. */
export const ALL_GOOD = -1;

/** A view of the memory that pages lie in, made anew only when they lie in another: one slab, many pages. */
export class PageView {
  #view: DataView = new DataView(new ArrayBuffer(0));

  /** Octet 0 of the view is octet 0 of the buffer: add page.byteOffset. */
  over(page: Uint8Array): DataView {
    if (this.#view.buffer !== page.buffer) this.#view = new DataView(page.buffer);
    return this.#view;
  }
}

/** The level of a page table's type, pinned or not; 0 for any other page. */
export function tableLevel(type: number): number {
  const level = type & 7;
  return level >= 1 && level <= 4 && type < 13 ? level : 0;
}

/** The frame of the entry at `at`; INVALID_FRAME if 32 bits cannot hold it. */
export function entryFrame(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  if ((high & FRAME_TOO_HIGH) !== 0) return INVALID_FRAME;
  return ((view.getUint32(at, true) >>> 12) | (high << 20)) >>> 0;
}

/** True if the entry at `at` maps a superpage, in a table of this level. */
export function isSuperpage(view: DataView, at: number, level: number): boolean {
  return level > 1 && (view.getUint32(at, true) & (PRESENT | SUPERPAGE)) === (PRESENT | SUPERPAGE);
}

/**
 * mfns to pfns, in the table at `offset`. Returns ALL_GOOD, or the index of the first entry that cannot be migrated,
 * which still stands as it was: a superpage, or a frame that is not the guest's.
 * @param levels of the guest: 3 or 4
 * @param compatM2pMfn0 first frame of the m2p that Xen maps into a 32-bit guest
 */
export function normaliseTable(
  view: DataView,
  offset: number,
  level: number,
  levels: number,
  physmap: Physmap,
  compatM2pMfn0: number,
): number {
  let xenFirst = ENTRIES;
  let xenLast = ENTRIES;
  if (levels === 4) {
    if (level === 4) {
      xenFirst = L4_XEN_FIRST;
      xenLast = L4_XEN_LAST;
    }
  } else if (level === 3) {
    xenFirst = PAE_L3_GUEST_ENTRIES;
  } else if (level === 2 && entryFrame(view, offset + PAE_L2_XEN_FIRST * 8) === compatM2pMfn0) {
    xenFirst = PAE_L2_XEN_FIRST;
  }

  const notAllowed = level > 1 ? SUPERPAGE : 0;
  for (let i = 0, at = offset; i < ENTRIES; i++, at += 8) {
    if (i >= xenFirst && i <= xenLast) {
      view.setUint32(at, 0, true);
      view.setUint32(at + 4, 0, true);
      continue;
    }
    const low = view.getUint32(at, true);
    if ((low & PRESENT) === 0) continue;
    const high = view.getUint32(at + 4, true);
    if ((low & notAllowed) !== 0 || (high & FRAME_TOO_HIGH) !== 0) return i;
    const pfn = physmap.ownPfn(((low >>> 12) | (high << 20)) >>> 0);
    if (pfn === INVALID_FRAME) return i;
    view.setUint32(at, (low & FLAGS_LOW) | (pfn << 12), true);
    view.setUint32(at + 4, (high & FLAGS_HIGH) | (pfn >>> 20), true);
  }
  return ALL_GOOD;
}

/**
 * The index of the first entry of a table from a stream that no guest with pfns up to maxPfn can have, or ALL_GOOD:
 * a superpage, or a pfn that is too high.
 */
export function checkTable(view: DataView, offset: number, level: number, maxPfn: number): number {
  const notAllowed = level > 1 ? SUPERPAGE : 0;
  for (let i = 0, at = offset; i < ENTRIES; i++, at += 8) {
    const low = view.getUint32(at, true);
    if ((low & PRESENT) === 0) continue;
    const high = view.getUint32(at + 4, true);
    if ((low & notAllowed) !== 0 || (high & FRAME_TOO_HIGH) !== 0) return i;
    if (((low >>> 12) | (high << 20)) >>> 0 > maxPfn) return i;
  }
  return ALL_GOOD;
}

/** Collects the pfns, of a table that passed checkTable, that have no frame yet; a pfn may be there twice. Their number. */
export function collectMissing(view: DataView, offset: number, physmap: Physmap, into: Uint32Array): number {
  let count = 0;
  for (let i = 0, at = offset; i < ENTRIES; i++, at += 8) {
    const low = view.getUint32(at, true);
    if ((low & PRESENT) === 0) continue;
    const pfn = ((low >>> 12) | (view.getUint32(at + 4, true) << 20)) >>> 0;
    if (physmap.pfnToMfn(pfn) === INVALID_FRAME) into[count++] = pfn;
  }
  return count;
}

/**
 * pfns to mfns, in a table that passed checkTable. Returns ALL_GOOD, or the index of the first entry whose frame m2p
 * and p2m do not agree on.
 */
export function localiseTable(view: DataView, offset: number, physmap: Physmap): number {
  for (let i = 0, at = offset; i < ENTRIES; i++, at += 8) {
    const low = view.getUint32(at, true);
    if ((low & PRESENT) === 0) continue;
    const high = view.getUint32(at + 4, true);
    const pfn = ((low >>> 12) | ((high & FRAME_HIGH) << 20)) >>> 0;
    const mfn = physmap.pfnToMfn(pfn);
    if (mfn === INVALID_FRAME || physmap.mfnToPfn(mfn) !== pfn) return i;
    view.setUint32(at, (low & FLAGS_LOW) | (mfn << 12), true);
    view.setUint32(at + 4, (high & FLAGS_HIGH) | (mfn >>> 20), true);
  }
  return ALL_GOOD;
}
