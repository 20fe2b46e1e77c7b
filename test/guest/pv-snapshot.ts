// What a PV domain is, read straight from the machine and made generic by code of its own (64-bit integers, no hurry),
// for comparison with what the saver wrote and with what a restore made of it.

import { expect } from 'chai';
import { XEN_COMPAT_M2P_MFN } from '../memory/machine.js';
import type { MemoryPvDomain } from '../memory/pv-domain.js';
import { INVALID_FRAME } from '../../src/stream/format.js';
import type { PvImage } from './pv-image.js';

const FRAME_MASK = 0x000ffffffffff000n;

export interface PvSnapshot {
  /** By pfn, page tables in pfns. */
  readonly pages: Map<number, Uint8Array>;
  readonly types: Map<number, number>;
}

export function snapshotOf(domain: MemoryPvDomain): PvSnapshot {
  const { machine } = domain;
  const pages = new Map<number, Uint8Array>();
  const types = new Map<number, number>();
  for (let pfn = 0; pfn < domain.pages; pfn++) {
    const mfn = domain.mfnOf(pfn);
    if (mfn === INVALID_FRAME) continue;
    const type = machine.types[mfn] ?? 0;
    types.set(pfn, type);
    pages.set(pfn, generic(domain, machine.octets(mfn).slice(), type & 7));
  }
  return { pages, types };
}

/** Page tables with pfns for mfns, and without what is Xen's. */
function generic(domain: MemoryPvDomain, page: Uint8Array, level: number): Uint8Array {
  if (level === 0) return page;
  const { width } = domain.pv;
  const view = new DataView(page.buffer);
  const first = view.getBigUint64(428 * 8, true);
  const compat = (first & FRAME_MASK) >> 12n === BigInt(XEN_COMPAT_M2P_MFN);
  for (let i = 0; i < 512; i++) {
    const entry = view.getBigUint64(i * 8, true);
    const isXens =
      width === 8
        ? level === 4 && i >= 256 && i < 272
        : (level === 3 && i >= 4) || (level === 2 && i >= 428 && compat);
    if (isXens) {
      view.setBigUint64(i * 8, 0n, true);
    } else if ((entry & 1n) === 1n) {
      const pfn = domain.machine.pfnOf(Number((entry & FRAME_MASK) >> 12n));
      view.setBigUint64(i * 8, (entry & ~FRAME_MASK) | (BigInt(pfn) << 12n), true);
    }
  }
  return page;
}

/** The stream describes the domain that the snapshot was taken of. */
export function expectImage(image: PvImage, snapshot: PvSnapshot): void {
  for (let pfn = 0; pfn <= image.maxPfn; pfn++) {
    const type = snapshot.types.get(pfn);
    // Never there, given back: no data.
    if (type === undefined) {
      expect(image.types.get(pfn), `type of hole ${pfn}`).to.equal(15);
      continue;
    }
    expect(image.types.get(pfn), `type of pfn ${pfn}`).to.equal(type);
    const page = image.pages.get(pfn) ?? expect.fail(`no page ${pfn}`);
    if (Buffer.compare(page, snapshot.pages.get(pfn) ?? page) !== 0) expect.fail(`page ${pfn} differs`);
  }
}

/** Two domains are the same but for the pages named. */
export function expectSameSnapshot(a: PvSnapshot, b: PvSnapshot, but: ReadonlySet<number>): void {
  expect([...b.types]).to.deep.equal([...a.types]);
  for (const [pfn, page] of a.pages) {
    if (but.has(pfn)) continue;
    if (Buffer.compare(page, b.pages.get(pfn) ?? new Uint8Array(0)) !== 0) expect.fail(`page ${pfn} differs`);
  }
}
