// Finding the p2m of a running PV guest. The guest says in its shared info page where it keeps it, in one of two ways:
//
//   a tree                                          a linear list (preferred, Linux since 4.1)
//   frame list list ─▶ frame lists ─▶ p2m pages     p2m_cr3, p2m_vaddr ─ page tables ─▶ p2m pages
//   (mfns in guest longs, 512 or 1024 a page)       (a virtual range, 4 or 3 levels; p2m_generation counts moves)
//
// A guest may say that its highest pfn is far above what it has. Where the end of its top level repeats one entry, no
// memory is there, and the p2m is cut before it, as libxc does: else the bitmaps would be as large as the lie.

import { HypervisorError } from '../../hypervisor/port.js';
import type { FrameMapping, PvDomain } from '../../hypervisor/port-pv.js';
import { valueAt } from '../../stream/bounds.js';
import { INVALID_FRAME, PAGE_SIZE, PFN_MAX } from '../../stream/format.js';
import { viewOf } from '../../stream/octets.js';
import { GuestError } from '../error.js';
import { cr3ToFrame, readFrame, readLong } from './layout.js';
import { entryFrame } from './page-table.js';
import type { X86PvSaveState } from './state.js';

interface P2mPages {
  readonly maxPfn: number;
  readonly mfns: Uint32Array;
}

/** What 64-bit guests cannot map, and the last address of 48 bits' lower half. */
const XEN_START_64 = 0xffff800000000000n;
const XEN_END_64 = 0xffff87ffffffffffn;
const XEN_START_32 = 0xf5800000n;
const XEN_END_32 = 0xffffffffn;
const ENTRY_SHIFT = 9n;

/**
 * Finds and maps the p2m: fills physmap.p2m, physmap.maxPfn, p2mPfns and p2mGeneration. What was mapped before is
 * unmapped when the new one has been found good.
 * @throws GuestError BAD_P2M, HypervisorError
 */
export async function mapP2m(state: X86PvSaveState): Promise<void> {
  const { layout, sharedInfo, physmap, pv } = state;
  const pfns = readLong(sharedInfo, layout.sharedInfo.maxPfn, layout.width);
  if (pfns < 1n || pfns > BigInt(PFN_MAX)) {
    throw badP2m(`it has ${pfns.toString()} pfns`, { pfns });
  }
  const maxPfn = Number(pfns - 1n);
  const p2mCr3 = readLong(sharedInfo, layout.sharedInfo.p2mCr3, layout.width);
  // Read before the list: if the guest moves it in between, the next look at the count tells.
  const generation = p2mCr3 === 0n ? null : readGeneration(state);
  const pages = await (p2mCr3 === 0n ? walkTree(state, maxPfn) : walkList(state, maxPfn, p2mCr3));

  const mapping = await mapGuestFrames(pv, pages.mfns);
  const before = { p2m: physmap.p2m, maxPfn: physmap.maxPfn };
  physmap.p2m = mapping.frames;
  physmap.maxPfn = pages.maxPfn;
  const p2mPfns = new Uint32Array(pages.mfns.length);
  for (let i = 0; i < p2mPfns.length; i++) {
    const mfn = valueAt(pages.mfns, i);
    const pfn = physmap.ownPfn(mfn);
    if (pfn === INVALID_FRAME) {
      const facts = { index: i, ...physmap.facts(mfn) };
      physmap.p2m = before.p2m;
      physmap.maxPfn = before.maxPfn;
      mapping.unmap();
      throw badP2m(`its page ${i} is not a frame of the guest`, facts);
    }
    p2mPfns[i] = pfn;
  }
  state.p2mMapping?.unmap();
  state.p2mMapping = mapping;
  state.p2mPfns = p2mPfns;
  state.p2mGeneration = generation;
}

export function readGeneration(state: X86PvSaveState): bigint {
  return readLong(state.sharedInfo, state.layout.sharedInfo.p2mGeneration, state.layout.width);
}

/** By the frame list list. */
async function walkTree(state: X86PvSaveState, statedMaxPfn: number): Promise<P2mPages> {
  const { pv, layout, sharedInfo } = state;
  const { maxMfn } = state.physmap;
  const { width } = layout;
  const perPage = PAGE_SIZE / width;
  const perList = perPage * perPage;
  let maxPfn = statedMaxPfn;
  const lists = Math.floor(maxPfn / perList) + 1;
  if (lists > perPage) throw badP2m(`its highest pfn ${maxPfn} is too high for a tree`, { maxPfn });
  const topMfn = readFrame(sharedInfo, layout.sharedInfo.frameListList, width);
  checkMfn(topMfn, maxMfn, 'frame list list', 0);

  const listMfns = await readFrames(pv, width, Uint32Array.of(topMfn), lists);
  for (let i = 0; i < lists; i++) checkMfn(valueAt(listMfns, i), maxMfn, 'frame list list', i);
  const used = startOfLastRun(listMfns) + 1;
  maxPfn = Math.min(maxPfn, used * perList - 1);

  const pages = Math.floor(maxPfn / perPage) + 1;
  const mfns = await readFrames(pv, width, listMfns.slice(0, used), pages);
  for (let i = 0; i < pages; i++) checkMfn(valueAt(mfns, i), maxMfn, 'frame list', i);
  return { maxPfn, mfns };
}

/** The first `count` guest longs, as frames, of pages that follow one another. */
async function readFrames(
  pv: PvDomain,
  width: 4 | 8,
  mfns: Uint32Array,
  count: number,
): Promise<Uint32Array> {
  const perPage = PAGE_SIZE / width;
  return readMapped(pv, mfns, count, (pages, i) =>
    readFrame(viewOf(valueAt(pages, Math.floor(i / perPage))), (i % perPage) * width, width),
  );
}

/** What `frameAt` reads from the pages of these mfns, `count` times. */
async function readMapped(
  pv: PvDomain,
  mfns: Uint32Array,
  count: number,
  frameAt: (pages: readonly Uint32Array[], index: number) => number,
): Promise<Uint32Array> {
  const mapping = await mapGuestFrames(pv, mfns);
  try {
    const frames = new Uint32Array(count);
    for (let i = 0; i < count; i++) frames[i] = frameAt(mapping.frames, i);
    return frames;
  } finally {
    mapping.unmap();
  }
}

/** By the guest's own page tables, from p2m_cr3 down. Entries are 64 bits whatever the guest's width. */
async function walkList(state: X86PvSaveState, statedMaxPfn: number, p2mCr3: bigint): Promise<P2mPages> {
  const { pv, layout, sharedInfo } = state;
  const { maxMfn } = state.physmap;
  const { width, levels } = layout;
  const perPage = PAGE_SIZE / width;
  let maxPfn = statedMaxPfn;
  const rootMfn = cr3ToFrame(p2mCr3, width);
  if (rootMfn === 0 || rootMfn > maxMfn) throw badP2m('its p2m_cr3 is bad', { p2mCr3, maxMfn });
  const start = readLong(sharedInfo, layout.sharedInfo.p2mVaddr, width);
  const lastByte = (pfn: number): bigint => start + BigInt((Math.floor(pfn / perPage) + 1) * PAGE_SIZE) - 1n;
  let end = lastByte(maxPfn);
  checkRange(width, start, end);

  let tables: Uint32Array = Uint32Array.of(rootMfn);
  for (let level: number = levels; level > 0; level--) {
    const shift = 12n + ENTRY_SHIFT * BigInt(level - 1);
    // The first of `tables` is the one that maps `start`, the others follow it in the address space.
    const first = Number((start >> shift) & (level === 3 && levels === 3 ? 3n : 511n));
    const count = Number((end >> shift) - (start >> shift)) + 1;
    tables = await readEntries(pv, tables, first, count, maxMfn, level);
    if (level !== 2) continue;
    const lastRun = startOfLastRun(tables);
    // A last entry that is like no other is memory; a run of the same one is not.
    const used = lastRun === count - 1 ? count : lastRun;
    const trimmed = used * 512 * perPage - 1;
    if (used > 0 && trimmed < maxPfn) {
      maxPfn = trimmed;
      end = lastByte(maxPfn);
      tables = tables.slice(0, Number((end >> shift) - (start >> shift)) + 1);
    }
  }
  return { maxPfn, mfns: tables };
}

/** The frames of the entries first … first + count - 1 of tables that follow one another. */
async function readEntries(
  pv: PvDomain,
  tables: Uint32Array,
  first: number,
  count: number,
  maxMfn: number,
  level: number,
): Promise<Uint32Array> {
  const frames = await readMapped(pv, tables, count, (pages, i) =>
    entryFrame(viewOf(valueAt(pages, (first + i) >>> 9)), ((first + i) & 511) * 8),
  );
  for (let i = 0; i < count; i++) {
    checkMfn(valueAt(frames, i), maxMfn, `page tables at level ${level}`, first + i);
  }
  return frames;
}

/** Where the equal frames at the end begin. */
function startOfLastRun(frames: Uint32Array): number {
  let at = frames.length - 1;
  while (at > 0 && frames[at - 1] === frames[at]) at--;
  return at;
}

function checkRange(width: 4 | 8, start: bigint, end: bigint): void {
  const good =
    width === 8
      ? isCanonical(start) &&
        isCanonical(end) &&
        end >> 64n === 0n &&
        outside(start, end, XEN_START_64, XEN_END_64)
      : end <= 0xffffffffn && outside(start, end, XEN_START_32, XEN_END_32);
  if (!good) {
    throw badP2m(`it cannot lie at 0x${start.toString(16)} to 0x${end.toString(16)}`, { start, end });
  }
}

function isCanonical(address: bigint): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
}

function outside(start: bigint, end: bigint, from: bigint, to: bigint): boolean {
  return end < from || start > to;
}

/** Frames that the guest named: that they are not its own is the guest's fault, not a failure of the hypervisor. */
async function mapGuestFrames(pv: PvDomain, mfns: Uint32Array): Promise<FrameMapping> {
  try {
    return await pv.mapFrames(mfns, mfns.length);
  } catch (cause) {
    if (!(cause instanceof HypervisorError) || cause.code !== 'FRAME_OUT_OF_RANGE') throw cause;
    const message = `the guest's p2m cannot be used: ${cause.message}`;
    throw new GuestError('BAD_P2M', message, cause.facts, { cause });
  }
}

function checkMfn(mfn: number, maxMfn: number, where: string, index: number): void {
  if (mfn === 0 || mfn > maxMfn) {
    const what = `mfn 0x${mfn.toString(16)} at index ${index} of its ${where} is bad`;
    throw badP2m(what, { mfn, index, maxMfn });
  }
}

function badP2m(what: string, facts: Readonly<Record<string, number | bigint>>): GuestError {
  return new GuestError('BAD_P2M', `the guest's p2m cannot be used: ${what}`, facts);
}
