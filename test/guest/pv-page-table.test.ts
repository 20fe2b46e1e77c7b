// Page tables by themselves: what goes out comes back up to frame numbers, what is Xen's is dropped, what cannot be
// migrated is found, whatever else stands in the entries.

import { expect } from 'chai';
import fc from 'fast-check';
import {
  ALL_GOOD,
  PageView,
  checkTable,
  collectMissing,
  localiseTable,
  normaliseTable,
  tableLevel,
} from '../../src/guest/x86-pv/page-table.js';
import { Physmap } from '../../src/guest/x86-pv/physmap.js';
import { INVALID_FRAME, PageType } from '../../src/stream/format.js';

const FRAME_MASK = 0x000ffffffffff000n;
const COMPAT = 4;
/** Frames on both sides of 2^20 have bits in both halves of an entry. */
const HIGH = 0x100000 - 100;

/** A guest whose pfn p lies at frames[p]. */
function physmapOf(width: 4 | 8, frames: readonly number[]): Physmap {
  const physmap = new Physmap(width);
  physmap.expand(frames.length - 1);
  physmap.maxMfn = Math.max(...frames) + 10;
  physmap.m2p = new Uint32Array(2 * (physmap.maxMfn + 1)).fill(INVALID_FRAME);
  frames.forEach((mfn, pfn) => {
    physmap.setPfnToMfn(pfn, mfn);
    physmap.m2p[mfn * 2] = pfn;
    physmap.m2p[mfn * 2 + 1] = 0;
  });
  return physmap;
}

const entries = (pfns: number, level: number): fc.Arbitrary<bigint[]> =>
  fc
    .array(
      fc.record({
        // Bits 0 to 11; above level 1 never a superpage.
        low: fc.nat(0xfff).map((flags) => (level > 1 ? flags & ~0x80 : flags)),
        high: fc.nat(0xfff),
        pfn: fc.nat(pfns - 1),
        // Never the frame by which a PAE guest's L2 is known that maps Xen.
        garbage: fc.bigInt({ min: BigInt(COMPAT) + 1n, max: (1n << 40n) - 1n }),
      }),
      { minLength: 512, maxLength: 512 },
    )
    .map((made) =>
      made.map(({ low, high, pfn, garbage }) => {
        const frame = (low & 1) === 1 ? BigInt(pfn) : garbage;
        return (BigInt(high) << 52n) | (frame << 12n) | BigInt(low);
      }),
    );

const guests = fc
  .record({
    width: fc.constantFrom(4 as const, 8 as const),
    pfns: fc.integer({ min: 1, max: 200 }),
    level: fc.integer({ min: 1, max: 4 }),
    base: fc.constantFrom(100, HIGH),
    shuffle: fc.array(fc.nat(1 << 20), { minLength: 200, maxLength: 200 }),
    offset: fc.nat(64),
  })
  .map((made) => ({ ...made, level: Math.min(made.level, made.width === 8 ? 4 : 3) }))
  .chain((made) => entries(made.pfns, made.level).map((table) => ({ ...made, table })));

function frameOrder(pfns: number, shuffle: readonly number[], base: number): number[] {
  const order = Array.from({ length: pfns }, (_, i) => i);
  order.sort((a, b) => (shuffle[a] ?? 0) - (shuffle[b] ?? 0));
  return order.map((at) => base + at);
}

/** The table as it stands in the guest: the entries' pfns as frames. */
function inGuest(table: readonly bigint[], frames: readonly number[], view: DataView, offset: number): void {
  table.forEach((entry, i) => {
    const mfn = BigInt(frames[Number((entry & FRAME_MASK) >> 12n)] ?? 0);
    const present = (entry & 1n) === 1n;
    view.setBigUint64(offset + i * 8, present ? (entry & ~FRAME_MASK) | (mfn << 12n) : entry, true);
  });
}

function isXens(width: 4 | 8, level: number, index: number): boolean {
  return width === 8 ? level === 4 && index >= 256 && index <= 271 : level === 3 && index >= 4;
}

describe('page tables of a PV guest', () => {
  it('become pfns and then the frames of another machine', () => {
    fc.assert(
      fc.property(guests, ({ width, pfns, level, base, shuffle, offset, table }) => {
        const levels = width === 8 ? 4 : 3;
        const here = frameOrder(pfns, shuffle, base);
        const memory = new Uint8Array(4096 + offset);
        const view = new PageView().over(memory);
        inGuest(table, here, view, offset);
        const bad = normaliseTable(view, offset, level, levels, physmapOf(width, here), COMPAT);
        expect(bad).to.equal(ALL_GOOD);
        table.forEach((entry, i) => {
          expect(view.getBigUint64(offset + i * 8, true), `entry ${i}`).to.equal(
            isXens(width, level, i) ? 0n : entry,
          );
        });

        expect(checkTable(view, offset, level, pfns - 1)).to.equal(ALL_GOOD);
        const there = frameOrder(pfns, shuffle.toReversed(), 300);
        const other = physmapOf(width, there);
        expect(collectMissing(view, offset, other, new Uint32Array(512))).to.equal(0);
        expect(localiseTable(view, offset, other)).to.equal(ALL_GOOD);
        const expected = new DataView(new ArrayBuffer(4096));
        inGuest(
          table.map((entry, i) => (isXens(width, level, i) ? 0n : entry)),
          there,
          expected,
          0,
        );
        expect(Buffer.compare(memory.subarray(offset), new Uint8Array(expected.buffer))).to.equal(0);
        // Nothing beside the page was touched.
        expect(memory.subarray(0, offset).every((octet) => octet === 0)).to.equal(true);
      }),
      { numRuns: 60 },
    );
  });

  it('say which entry cannot go out: a foreign frame, one beyond 32 bits, a superpage', () => {
    const faults = fc.record({ at: fc.nat(511), kind: fc.constantFrom('foreign', 'high', 'superpage') });
    fc.assert(
      fc.property(guests, faults, ({ width, pfns, level, base, shuffle, table }, { at, kind }) => {
        fc.pre(!isXens(width, level, at) && (kind !== 'superpage' || level > 1));
        const here = frameOrder(pfns, shuffle, base);
        const view = new DataView(new ArrayBuffer(4096));
        inGuest(table, here, view, 0);
        const frame = BigInt(here[0] ?? 0);
        const entry = {
          foreign: (BigInt(base + pfns) << 12n) | 1n,
          high: ((frame + (1n << 32n)) << 12n) | 1n,
          superpage: (frame << 12n) | 0x81n,
        }[kind];
        view.setBigUint64(at * 8, entry, true);
        const levels = width === 8 ? 4 : 3;
        expect(normaliseTable(view, 0, level, levels, physmapOf(width, here), COMPAT)).to.equal(at);
        expect(view.getBigUint64(at * 8, true)).to.equal(entry);
      }),
      { numRuns: 60 },
    );
  });

  it('say which entry cannot come in: a pfn that is too high, one beyond 32 bits, a superpage', () => {
    const faults = fc.record({ at: fc.nat(511), kind: fc.constantFrom('far', 'high', 'superpage') });
    fc.assert(
      fc.property(guests, faults, ({ pfns, level, table }, { at, kind }) => {
        fc.pre(kind !== 'superpage' || level > 1);
        const view = new DataView(new ArrayBuffer(4096));
        table.forEach((entry, i) => {
          view.setBigUint64(i * 8, entry, true);
        });
        const entry = { far: (BigInt(pfns) << 12n) | 1n, high: (1n << 44n) | 1n, superpage: 0x81n }[kind];
        view.setBigUint64(at * 8, entry, true);
        expect(checkTable(view, 0, level, pfns - 1)).to.equal(at);
      }),
      { numRuns: 60 },
    );
  });

  it('name the pfns that have no frame yet, and then the entry that has none', () => {
    const physmap = physmapOf(8, [100, 101, 102]);
    physmap.setPfnToMfn(1, INVALID_FRAME);
    const view = new DataView(new ArrayBuffer(4096));
    for (const [i, pfn] of [0, 1, 2, 1].entries()) view.setBigUint64(i * 8, (BigInt(pfn) << 12n) | 1n, true);
    const missing = new Uint32Array(512);
    expect(collectMissing(view, 0, physmap, missing)).to.equal(2);
    expect([...missing.subarray(0, 2)]).to.deep.equal([1, 1]);
    expect(localiseTable(view, 0, physmap)).to.equal(1);
    // p2m and m2p disagree: 102 is pfn 2's.
    physmap.setPfnToMfn(1, 102);
    view.setBigUint64(0, 1n, true);
    expect(localiseTable(view, 0, physmap)).to.equal(1);
  });

  it('of a 32-bit guest keep L2 slots 428 to 511 unless the compat m2p is there', () => {
    const physmap = physmapOf(4, [100]);
    for (const mapped of [false, true]) {
      const view = new DataView(new ArrayBuffer(4096));
      for (let i = 428; i < 512; i++) view.setBigUint64(i * 8, (100n << 12n) | 1n, true);
      // Xen maps it with superpages, of frames that are nobody's.
      if (mapped)
        for (let i = 428; i < 512; i++)
          view.setBigUint64(i * 8, BigInt((COMPAT + (i - 428) * 512) * 4096 + 0x81), true);
      expect(normaliseTable(view, 0, 2, 3, physmap, COMPAT)).to.equal(ALL_GOOD);
      expect(view.getBigUint64(428 * 8, true)).to.equal(mapped ? 0n : 1n);
      expect(view.getBigUint64(511 * 8, true)).to.equal(mapped ? 0n : 1n);
    }
  });

  it('are told by their page type', () => {
    const levels = Array.from({ length: 16 }, (_, type) => tableLevel(type));
    expect(levels).to.deep.equal([0, 1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0]);
    expect(tableLevel(PageType.L4TAB_PIN)).to.equal(4);
  });

  it('come back as they were, of a whole guest', () => {
    const pages = 256;
    const frames = Array.from({ length: 4096 }, (_, pfn) => 5000 - pfn);
    const physmap = physmapOf(8, frames);
    const memory = new Uint8Array(pages * 4096);
    const view = new DataView(memory.buffer);
    for (let i = 0; i < pages * 512; i++)
      view.setBigUint64(i * 8, (BigInt(frames[i & 4095] ?? 0) << 12n) | 0x67n, true);
    const before = memory.slice();
    for (let at = 0; at < memory.length; at += 4096) normaliseTable(view, at, 1, 4, physmap, INVALID_FRAME);
    expect(Buffer.compare(memory, before)).not.to.equal(0);
    for (let at = 0; at < memory.length; at += 4096) localiseTable(view, at, physmap);
    expect(Buffer.compare(memory, before)).to.equal(0);
  });
});
