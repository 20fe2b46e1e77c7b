// What the tests of PV guests share: what a fixture's kernel knows of itself, found out from its stream, and the
// comparison of two images of one domain that lay on different machines.

import { expect } from 'chai';
import { type P2mShape, type PvGuestPlan } from '../memory/pv-guest.js';
import type { MemoryPvDomain } from '../memory/pv-domain.js';
import type { RestoreEndpoints } from '../../src/guest/ops.js';
import { ChunkSource } from '../../src/restore/file-source.js';
import { RecordType } from '../../src/stream/format.js';
import type { PvImage } from './pv-image.js';

const CONSOLE_CONNECTION = 3088;
const SHARED_INFO = {
  4: { selector: 4, arch: 2316, archEnd: 2344, fll: 2320, cr3: 2328, vaddr: 2332 },
  8: { selector: 8, arch: 3088, archEnd: 3136, fll: 3096, cr3: 3112, vaddr: 3120 },
} as const;
const START_INFO = {
  4: { sharedInfo: 36, store: 44, console: 52 },
  8: { sharedInfo: 40, store: 56, console: 72 },
} as const;
const EDX = { 4: 524, 8: 616 } as const;

/** A source whose records may be changed: a restore of page tables does. */
export function privateSource(octets: Uint8Array, chunkBytes = 1024 * 1024): ChunkSource {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < octets.length; at += chunkBytes) {
      yield await Promise.resolve(octets.slice(at, at + chunkBytes));
    }
  }
  return new ChunkSource(chunks());
}

/** Event channels as the guests of the tests had them. */
export function endpointsOfTests(): RestoreEndpoints {
  return {
    xenstoreGfn: 0,
    consoleGfn: 0,
    xenstoreEvtchn: 1,
    consoleEvtchn: 2,
    xenstoreDomid: 4,
    consoleDomid: 3,
  };
}

export function viewOf(octets: Uint8Array): DataView {
  return new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
}

export function long(octets: Uint8Array, at: number, width: 4 | 8): bigint {
  const view = viewOf(octets);
  return width === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
}

export function body(image: PvImage, type: number, vcpu?: number): Uint8Array {
  const key = vcpu === undefined ? type.toString() : `${type} of vCPU ${vcpu}`;
  return image.bodies.get(key) ?? expect.fail(`no record ${key}`);
}

function page(image: PvImage, pfn: number): Uint8Array {
  return image.pages.get(pfn) ?? expect.fail(`no page ${pfn}`);
}

const m2ps = new WeakMap<PvImage, ReadonlyMap<bigint, number>>();

/** pfn by mfn of the machine that the image was saved on, by the guest's own p2m; empty if its pages were zeroed. */
export function savedM2p(image: PvImage): ReadonlyMap<bigint, number> {
  const known = m2ps.get(image);
  if (known !== undefined) return known;
  const perPage = 4096 / image.width;
  const invalid = image.width === 8 ? 0xffffffffffffffffn : 0xffffffffn;
  const m2p = new Map<bigint, number>();
  for (let pfn = 0; pfn <= image.maxPfn; pfn++) {
    const p2mPage = page(image, image.p2mPfns[Math.floor(pfn / perPage)] ?? -1);
    const mfn = long(p2mPage, (pfn % perPage) * image.width, image.width);
    if (mfn !== 0n && mfn !== invalid) m2p.set(mfn, pfn);
  }
  m2ps.set(image, m2p);
  return m2p;
}

export function startInfoPfn(image: PvImage): number {
  return Number(long(body(image, RecordType.X86_PV_VCPU_BASIC, 0), 8 + EDX[image.width], image.width));
}

/** What the kernel that was saved in this stream knows of itself. */
export function planOf(image: PvImage): PvGuestPlan {
  return {
    pfns: image.maxPfn + 1,
    startInfoPfn: startInfoPfn(image),
    p2mPfns: image.p2mPfns,
    p2m: shapeOf(image),
  };
}

function shapeOf(image: PvImage): P2mShape {
  const { width } = image;
  const shared = body(image, RecordType.SHARED_INFO);
  if (long(shared, SHARED_INFO[width].cr3, width) !== 0n) {
    const vaddr = long(shared, SHARED_INFO[width].vaddr, width);
    return { kind: 'list', rootPfn: rootThatMaps(image, vaddr), vaddr };
  }
  const m2p = savedM2p(image);
  const pfnOf = (mfn: bigint): number => m2p.get(mfn) ?? expect.fail(`mfn ${mfn} is not the guest's`);
  const topPfn = pfnOf(long(shared, SHARED_INFO[width].fll, width));
  const lists = Math.ceil(image.p2mPfns.length / (4096 / width));
  const listPfns = Array.from({ length: lists }, (_, i) =>
    pfnOf(long(page(image, topPfn), i * width, width)),
  );
  return { kind: 'tree', topPfn, listPfns };
}

/** The first top page table, in pfns, that leads from the address to the p2m's first and last page. */
function rootThatMaps(image: PvImage, vaddr: bigint): number {
  const top = image.width === 8 ? 4 : 3;
  const last = vaddr + BigInt((image.p2mPfns.length - 1) * 4096);
  for (const [pfn, type] of image.types) {
    if (type === 0 || type > 12 || (type & 7) !== top) continue;
    if (walk(image, pfn, vaddr, top) !== image.p2mPfns[0]) continue;
    if (walk(image, pfn, last, top) === image.p2mPfns.at(-1)) return pfn;
  }
  return expect.fail('no page table maps the p2m');
}

/** The pfn that an address is mapped to, -1: none. */
export function walk(image: PvImage, root: number, vaddr: bigint, levels: number): number {
  let pfn = root;
  for (let level = levels; level > 0; level--) {
    const table = image.pages.get(pfn);
    if (table === undefined) return -1;
    const index = Number((vaddr >> BigInt(12 + 9 * (level - 1))) & 511n);
    const entry = viewOf(table).getBigUint64(index * 8, true);
    if ((entry & 1n) === 0n) return -1;
    pfn = Number((entry >> 12n) & 0xffffffffffn);
  }
  return pfn;
}

export interface CompareOptions {
  /** The source's pages that are no page tables were zeroed. */
  readonly zeroed?: boolean;
}

/**
 * Every page, type, vCPU field and record of `saved`, a domain on the machine of `domain`, is that of `original`; frame
 * numbers are compared by the pfns that they stand for.
 */
export function expectSameDomain(
  original: PvImage,
  saved: PvImage,
  domain: MemoryPvDomain,
  plan: PvGuestPlan,
  options: CompareOptions = {},
): void {
  const { width } = original;
  expect(saved.width).to.equal(width);
  expect(saved.maxPfn).to.equal(original.maxPfn);
  expect(saved.p2mPfns).to.deep.equal(original.p2mPfns);
  expect([...saved.bodies.keys()]).to.have.members([...original.bodies.keys()]);

  for (let pfn = 0; pfn <= original.maxPfn; pfn++) {
    expect(saved.types.get(pfn), `type of pfn ${pfn}`).to.equal(original.types.get(pfn));
  }
  const special = specialPages(original, plan);
  for (const [pfn, mine] of original.pages) {
    const theirs = page(saved, pfn);
    const meaning = special.get(pfn);
    if (meaning === undefined) {
      if (Buffer.compare(mine, theirs) !== 0) expect.fail(`page ${pfn} differs`);
    } else if (meaning === 'frames') {
      compareFrames(original, mine, theirs, domain, pfn, options.zeroed === true);
    } else {
      compareMasked(mine, theirs, meaning, `page ${pfn}`, options.zeroed === true);
    }
  }
  expect(saved.pages.size).to.equal(original.pages.size);
  for (const [key, mine] of original.bodies) {
    const theirs = saved.bodies.get(key) ?? expect.fail(`no record ${key}`);
    if (key === RecordType.SHARED_INFO.toString()) compareSharedInfo(mine, theirs, width, domain, plan);
    else expect(Buffer.compare(mine, theirs), `record ${key}`).to.equal(0);
  }
}

/** Pages that hold frame numbers of the host ('frames'), or octets [from, to) that are the host's. */
function specialPages(image: PvImage, plan: PvGuestPlan): Map<number, 'frames' | [number, number][]> {
  const { width } = image;
  const special = new Map<number, 'frames' | [number, number][]>();
  const startInfo = page(image, plan.startInfoPfn);
  special.set(Number(long(startInfo, START_INFO[width].console, width)), [
    [CONSOLE_CONNECTION, CONSOLE_CONNECTION + 1],
  ]);
  // pages, shared_info and flags, in one run.
  special.set(plan.startInfoPfn, [[START_INFO[width].sharedInfo, START_INFO[width].sharedInfo + width]]);
  for (const pfn of plan.p2mPfns) special.set(pfn, 'frames');
  if (plan.p2m.kind === 'tree')
    for (const pfn of [plan.p2m.topPfn, ...plan.p2m.listPfns]) special.set(pfn, 'frames');
  return special;
}

function compareFrames(
  original: PvImage,
  mine: Uint8Array,
  theirs: Uint8Array,
  domain: MemoryPvDomain,
  pfn: number,
  zeroed: boolean,
): void {
  const { width } = original;
  const m2p = zeroed ? null : savedM2p(original);
  for (let at = 0; at < 4096; at += width) {
    const now = long(theirs, at, width);
    if (m2p === null) {
      const index = original.p2mPfns.indexOf(pfn) * (4096 / width) + at / width;
      if (index <= original.maxPfn) expect(now).to.equal(BigInt(domain.mfnOf(index)));
      continue;
    }
    const before = m2p.get(long(mine, at, width));
    // Not a frame of the guest: the same on both sides.
    if (before === undefined) expect(now).to.equal(long(mine, at, width));
    else expect(domain.machine.pfnOf(Number(now)), `frame at ${at} of page ${pfn}`).to.equal(before);
  }
}

function compareMasked(
  mine: Uint8Array,
  theirs: Uint8Array,
  ranges: readonly [number, number][],
  what: string,
  zeroed: boolean,
): void {
  // start_info of a zeroed guest is filled in by the restore.
  if (zeroed) return;
  const a = mine.slice();
  const b = theirs.slice();
  for (const [from, to] of ranges) {
    a.fill(0, from, to);
    b.fill(0, from, to);
  }
  expect(Buffer.compare(a, b), what).to.equal(0);
}

function compareSharedInfo(
  mine: Uint8Array,
  theirs: Uint8Array,
  width: 4 | 8,
  domain: MemoryPvDomain,
  plan: PvGuestPlan,
): void {
  const at = SHARED_INFO[width];
  const a = mine.slice();
  for (let vcpu = 0; vcpu < 32; vcpu++) a.fill(0, vcpu * 64 + at.selector, vcpu * 64 + at.selector + width);
  expect(Buffer.compare(a.subarray(0, 2048), theirs.subarray(0, 2048)), 'vcpu_info').to.equal(0);
  const root = plan.p2m.kind === 'tree' ? plan.p2m.topPfn : plan.p2m.rootPfn;
  const frame = BigInt(domain.mfnOf(root));
  if (plan.p2m.kind === 'tree') {
    expect(long(theirs, at.fll, width)).to.equal(frame);
    expect(long(theirs, at.cr3, width)).to.equal(0n);
  } else {
    const cr3 = width === 8 ? frame << 12n : ((frame << 12n) | (frame >> 20n)) & 0xffffffffn;
    expect(long(theirs, at.cr3, width)).to.equal(cr3);
  }
  const b = theirs.slice();
  for (const bytes of [a, b]) for (const field of [at.fll, at.cr3]) bytes.fill(0, field, field + width);
  expect(Buffer.compare(a.subarray(at.arch, at.archEnd), b.subarray(at.arch, at.archEnd)), 'arch').to.equal(
    0,
  );
}
