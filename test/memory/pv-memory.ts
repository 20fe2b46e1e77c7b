// The frames of one PV domain: which of the machine's it has, where each pfn lies (which Xen does not know, but a test
// wants to), and which pages were written to.

import { INVALID_FRAME, PAGE_SIZE, PageType } from '../../src/stream/format.js';
import { Bitmap } from '../../src/hypervisor/bitmap.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import type { MemoryMachine } from './machine.js';
import { levelOf } from './page-types.js';

export class PvMemory {
  readonly machine: MemoryMachine;
  /** The machine's number for the domain. */
  readonly id: number;
  readonly pages: number;
  /** By pfn: pages written to since the log was cleared, while `logging`. */
  readonly log: Bitmap;
  logging = false;
  #held = 0;
  readonly #mfns: Uint32Array;

  /** @param pages the most pfns that the domain may have, and the most pages */
  constructor(machine: MemoryMachine, pages: number) {
    this.machine = machine;
    this.id = machine.newDomain();
    this.pages = pages;
    this.log = new Bitmap(pages);
    this.#mfns = new Uint32Array(pages).fill(INVALID_FRAME);
  }

  /** A frame for the pfn. @throws OUT_OF_MEMORY, FRAME_OUT_OF_RANGE */
  give(pfn: number): number {
    if (pfn >= this.pages) throw this.#outOfRange(pfn);
    const mfn = this.#held < this.pages ? this.machine.allot(this.id) : INVALID_FRAME;
    if (mfn === INVALID_FRAME) {
      throw new HypervisorError('OUT_OF_MEMORY', 'no memory left for the domain', {
        held: this.#held,
        limit: this.pages,
      });
    }
    this.#held++;
    this.machine.setM2p(mfn, pfn);
    this.#mfns[pfn] = mfn;
    return mfn;
  }

  /** Takes the pfn's frame back. @throws NOT_POPULATED */
  punch(pfn: number): void {
    const mfn = this.mfnThere(pfn);
    this.mark(mfn);
    this.#mfns[pfn] = INVALID_FRAME;
    this.#held--;
    this.machine.free(mfn);
  }

  /** Everything, the shared info page too. */
  freeAll(): void {
    this.machine.freeAll(this.id);
    this.#mfns.fill(INVALID_FRAME);
  }

  /** INVALID_FRAME where there is none. */
  mfnOf(pfn: number): number {
    return this.#mfns[pfn] ?? INVALID_FRAME;
  }

  /** @throws NOT_POPULATED */
  mfnThere(pfn: number): number {
    const mfn = this.mfnOf(pfn);
    if (mfn === INVALID_FRAME) {
      throw new HypervisorError('NOT_POPULATED', `pfn ${pfn} has no memory`, { pfn });
    }
    return mfn;
  }

  mark(mfn: number): void {
    const pfn = this.machine.pfnOf(mfn);
    if (this.logging && pfn < this.pages) this.log.set(pfn);
  }

  /** The first `count` frames must be the domain's. @throws FRAME_OUT_OF_RANGE */
  check(mfns: Uint32Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const mfn = mfns[i] ?? INVALID_FRAME;
      if (!this.machine.isOwnedBy(mfn, this.id)) throw this.#outOfRange(mfn);
    }
  }

  types(mfns: Uint32Array, count: number, into: Uint8Array): void {
    for (let i = 0; i < count; i++) {
      const mfn = mfns[i] ?? INVALID_FRAME;
      into[i] = this.machine.isOwnedBy(mfn, this.id) ? (this.machine.types[mfn] ?? 0) : PageType.XTAB;
    }
  }

  copyOut(mfns: Uint32Array, count: number, slab: Uint8Array, offset: number): void {
    this.check(mfns, count);
    for (let i = 0; i < count; i++) slab.set(this.machine.octets(mfns[i] ?? 0), offset + i * PAGE_SIZE);
  }

  /** As the toolstack maps frames to fill them: Xen lets nobody write to a page table so. */
  copyIn(mfns: Uint32Array, count: number, data: Uint8Array): void {
    this.check(mfns, count);
    for (let i = 0; i < count; i++) {
      const mfn = mfns[i] ?? 0;
      if (levelOf(this.machine.types[mfn] ?? 0) !== 0) {
        throw new HypervisorError('FAILED', 'a page table cannot be mapped for writing', { mfn });
      }
      this.machine.octets(mfn).set(data.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
      this.mark(mfn);
    }
  }

  /** The indices of those that differ. */
  compare(mfns: Uint32Array, count: number, data: Uint8Array): number[] {
    this.check(mfns, count);
    const different: number[] = [];
    for (let i = 0; i < count; i++) {
      const mine = this.machine.octets(mfns[i] ?? 0);
      if (Buffer.compare(mine, data.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE)) !== 0) different.push(i);
    }
    return different;
  }

  /** How many of the pages that `into` has room for are dirty; a guest's p2m may be smaller than what it may have. */
  readLog(into: Bitmap): number {
    into.clearAll();
    for (let p = this.log.next(0); p >= 0 && p < into.size; p = this.log.next(p + 1)) into.set(p);
    return into.count();
  }

  #outOfRange(frame: number): HypervisorError {
    return new HypervisorError('FRAME_OUT_OF_RANGE', `the domain has no frame ${frame}`, {
      frame,
      pages: this.pages,
    });
  }
}
