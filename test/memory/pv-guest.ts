// As much of a PV kernel as migration sees: where its start_info and its p2m are, what it does to them when it is
// suspended (frame numbers that the toolstack will translate become pfns), when the suspend is cancelled (mfns
// again), and in a new domain (its lists of frames name the old machine's: they are built anew).
//
//   tree   shared_info.pfn_to_mfn_frame_list_list ─▶ top page ─▶ list pages ─▶ p2m pages
//   list   shared_info.p2m_cr3, p2m_vaddr ─▶ the kernel's own page tables ─▶ p2m pages

import type { PvGuest, MemoryPvDomain } from './pv-domain.js';

export type P2mShape =
  | { readonly kind: 'tree'; readonly topPfn: number; readonly listPfns: readonly number[] }
  | { readonly kind: 'list'; readonly rootPfn: number; readonly vaddr: bigint };

export interface PvGuestPlan {
  /** Pfns 0 to pfns - 1. */
  readonly pfns: number;
  readonly startInfoPfn: number;
  /** The pages of its p2m, in order. */
  readonly p2mPfns: readonly number[];
  readonly p2m: P2mShape;
}

/** Octet offsets in start_info, shared_info and vcpu_guest_context: Xen's public headers. */
const OFFSETS = {
  4: {
    store: 44,
    console: 52,
    maxPfn: 2316,
    frameListList: 2320,
    p2mCr3: 2328,
    p2mVaddr: 2332,
    generation: 2336,
    edx: 524,
  },
  8: {
    store: 56,
    console: 72,
    maxPfn: 3088,
    frameListList: 3096,
    p2mCr3: 3112,
    p2mVaddr: 3120,
    generation: 3128,
    edx: 616,
  },
} as const;

export class PvGuestKernel implements PvGuest {
  readonly plan: PvGuestPlan;
  readonly #domain: MemoryPvDomain;

  constructor(domain: MemoryPvDomain, plan: PvGuestPlan) {
    this.#domain = domain;
    this.plan = plan;
  }

  suspending(): void {
    const { machine } = this.#domain;
    this.#eachRing((mfn) => machine.pfnOf(mfn));
    const { context } = this.#domain.pv.vcpus[0] ?? { context: new Uint8Array(0) };
    const view = new DataView(context.buffer, context.byteOffset, context.byteLength);
    this.#write(view, OFFSETS[this.#domain.pv.width].edx, this.#domain.mfnOf(this.plan.startInfoPfn));
  }

  resumed(where: 'same domain' | 'new domain'): void {
    if (where === 'same domain') this.#eachRing((pfn) => this.#domain.mfnOf(pfn));
    else this.publishP2m();
  }

  /** Writes the lists of frames that lead to the p2m, and tells Xen where they begin. */
  publishP2m(): void {
    const { pv } = this.#domain;
    const at = OFFSETS[pv.width];
    const shared = viewOf(pv.sharedInfo);
    const { p2m, p2mPfns, pfns } = this.plan;
    this.#write(shared, at.maxPfn, pfns);
    if (p2m.kind === 'list') {
      const mfn = this.#domain.mfnOf(p2m.rootPfn);
      const cr3 = pv.width === 8 ? BigInt(mfn) << 12n : BigInt(((mfn << 12) | (mfn >>> 20)) >>> 0);
      this.#writeLong(shared, at.p2mCr3, cr3);
      this.#writeLong(shared, at.p2mVaddr, p2m.vaddr);
      this.#write(shared, at.generation, 0);
      return;
    }
    const perPage = 4096 / pv.width;
    p2mPfns.forEach((pfn, i) => {
      const list = this.#page(p2m.listPfns[Math.floor(i / perPage)] ?? 0);
      this.#write(list, (i % perPage) * pv.width, this.#domain.mfnOf(pfn));
    });
    const top = this.#page(p2m.topPfn);
    p2m.listPfns.forEach((pfn, i) => this.#write(top, i * pv.width, this.#domain.mfnOf(pfn)));
    for (const pfn of [p2m.topPfn, ...p2m.listPfns]) this.#domain.markDirty(this.#domain.mfnOf(pfn));
    this.#writeLong(shared, at.p2mCr3, 0n);
    this.#write(shared, at.frameListList, this.#domain.mfnOf(p2m.topPfn));
  }

  /** The guest moved a page of its linear p2m. */
  countMove(): void {
    const { pv } = this.#domain;
    const shared = viewOf(pv.sharedInfo);
    const at = OFFSETS[pv.width].generation;
    shared.setUint32(at, shared.getUint32(at, true) + 1, true);
  }

  /** An entry of the guest's own p2m; -1 is no frame. */
  setP2m(pfn: number, mfn: number): void {
    const { width } = this.#domain.pv;
    const perPage = 4096 / width;
    const page = this.plan.p2mPfns[Math.floor(pfn / perPage)] ?? 0;
    const value = mfn < 0 ? 0xffffffff : mfn;
    const view = this.#page(page);
    const at = (pfn % perPage) * width;
    view.setUint32(at, value, true);
    if (width === 8) view.setUint32(at + 4, mfn < 0 ? 0xffffffff : 0, true);
    this.#domain.markDirty(this.#domain.mfnOf(page));
  }

  /** Xenstore's and the console's frame in start_info. */
  #eachRing(translate: (frame: number) => number): void {
    const at = OFFSETS[this.#domain.pv.width];
    const page = this.#page(this.plan.startInfoPfn);
    for (const field of [at.store, at.console]) {
      this.#write(page, field, translate(page.getUint32(field, true)));
    }
    this.#domain.markDirty(this.#domain.mfnOf(this.plan.startInfoPfn));
  }

  #page(pfn: number): DataView {
    return viewOf(this.#domain.octets(pfn));
  }

  #write(view: DataView, at: number, frame: number): void {
    this.#writeLong(view, at, BigInt(frame));
  }

  #writeLong(view: DataView, at: number, value: bigint): void {
    if (this.#domain.pv.width === 8) view.setBigUint64(at, value, true);
    else view.setUint32(at, Number(value), true);
  }
}

function viewOf(octets: Uint8Array): DataView {
  return new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
}
