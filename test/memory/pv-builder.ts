// Builds a PV guest in an empty domain, as a domain builder and the kernel's first steps leave it: memory with holes,
// page tables that map it (read-only where it is itself page tables), a p2m of either shape, start_info, rings, vCPUs.
// What it builds is decided by the options and the seed alone.
//
//   64-bit: all memory at 0xffff888000000000, a linear p2m at 0xffffc90000000000
//   32-bit: all memory at 0xc0000000,         a linear p2m at 0x80000000

import { INVALID_FRAME } from '../../src/stream/format.js';
import { VCPU_CONTEXT_BYTES } from '../../src/stream/records/pv.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import type { MemoryPvDomain } from './pv-domain.js';
import { type P2mShape, PvGuestKernel } from './pv-guest.js';

export interface PvGuestOptions {
  readonly pfns: number;
  readonly p2m: 'tree' | 'list';
  /** Pfns without memory. */
  readonly holes?: Iterable<number>;
  /** The pfns that special pages (tables, p2m, start_info, …) take, in this order. Default: from the highest down. */
  readonly place?: Iterable<number>;
  /** Decides contents and flags. Default: 1. */
  readonly seed?: number;
  /** Page tables of level 1 that are pinned besides and map nothing. Default: 0. */
  readonly pinnedTables?: number;
}

export interface BuiltPvGuest {
  readonly kernel: PvGuestKernel;
  /** The top page table. */
  readonly rootPfn: number;
  /** All page tables by pfn, with their level. */
  readonly tables: ReadonlyMap<number, number>;
  /** Pages that are nothing special: the guest may write to them as it likes. */
  readonly dataPfns: readonly number[];
}

const LAYOUT = {
  4: {
    memory: 0xc0000000n,
    p2m: 0x80000000n,
    levels: 3,
    edx: 524,
    flags: 512,
    gdt: 2640,
    gdtEntries: 2704,
    registers: 2716,
  },
  8: {
    memory: 0xffff888000000000n,
    p2m: 0xffffc90000000000n,
    levels: 4,
    edx: 616,
    flags: 512,
    gdt: 4832,
    gdtEntries: 4960,
    registers: 4984,
  },
} as const;
const START_INFO = {
  4: { store: 44, storePort: 48, console: 52, consolePort: 56 },
  8: { store: 56, storePort: 64, console: 72, consolePort: 80 },
} as const;
const PRESENT = 1;
const WRITABLE = 2;
/** VGCF_online, VGCF_in_kernel. */
const VCPU_FLAGS = 0x24;

/** @throws HypervisorError OUT_OF_MEMORY, BAD_CONFIGURATION (too many holes for the special pages) */
export function buildPvGuest(domain: MemoryPvDomain, options: PvGuestOptions): BuiltPvGuest {
  return new Builder(domain, options).build();
}

class Builder {
  readonly #domain: MemoryPvDomain;
  readonly #options: PvGuestOptions;
  readonly #width: 4 | 8;
  readonly #free: Iterator<number>;
  readonly #used = new Set<number>();
  /** Page tables by level and the part of the address that they map. */
  readonly #tables = new Map<string, number>();
  readonly #levels = new Map<number, number>();
  /** Entries to be written when it is known which pages are tables. */
  readonly #entries: {
    readonly table: number;
    readonly index: number;
    readonly target: number;
    readonly level: number;
  }[] = [];
  #random: number;

  constructor(domain: MemoryPvDomain, options: PvGuestOptions) {
    this.#domain = domain;
    this.#options = options;
    this.#width = domain.pv.width;
    this.#random = options.seed ?? 1;
    const descending = Array.from({ length: options.pfns }, (_, i) => options.pfns - 1 - i);
    this.#free = (options.place ?? descending)[Symbol.iterator]();
  }

  build(): BuiltPvGuest {
    const { pfns } = this.#options;
    const width = this.#width;
    const layout = LAYOUT[width];
    const holes = new Set(this.#options.holes ?? []);
    for (let pfn = 0; pfn < pfns; pfn++) if (!holes.has(pfn)) this.#domain.give(pfn);

    const startInfoPfn = this.#take();
    const storePfn = this.#take();
    const consolePfn = this.#take();
    const gdtPfns = this.#domain.pv.vcpus.map(() => this.#take());
    const perPage = 4096 / width;
    const p2mPfns = this.#takeSome(Math.ceil(pfns / perPage));
    const rootPfn = this.#tableFor(layout.levels, 0n);
    for (let pfn = 0; pfn < pfns; pfn++) {
      if (!holes.has(pfn)) this.#map(layout.memory + BigInt(pfn) * 4096n, pfn);
    }
    const p2m = this.#p2m(rootPfn, p2mPfns);
    const userPfn = width === 8 ? this.#take() : -1;
    const pinned = this.#takeSome(this.#options.pinnedTables ?? 0);

    if (userPfn >= 0) this.#levels.set(userPfn, 4);
    for (const pfn of pinned) this.#levels.set(pfn, 1);
    const dataPfns: number[] = [];
    for (let pfn = 0; pfn < pfns; pfn++) {
      if (holes.has(pfn) || this.#used.has(pfn)) continue;
      dataPfns.push(pfn);
      this.#fill(this.#domain.words(pfn));
    }
    for (const entry of this.#entries) this.#writeEntry(entry);

    const kernel = new PvGuestKernel(this.#domain, { pfns, startInfoPfn, p2mPfns, p2m });
    for (let pfn = 0; pfn < p2mPfns.length * perPage; pfn++) {
      kernel.setP2m(pfn, pfn < pfns && !holes.has(pfn) ? this.#mfn(pfn) : -1);
    }
    kernel.publishP2m();
    this.#startInfo(startInfoPfn, storePfn, consolePfn);
    this.#pin(rootPfn, userPfn, pinned);
    this.#vcpus(rootPfn, userPfn, gdtPfns);
    return { kernel, rootPfn, tables: this.#levels, dataPfns };
  }

  #p2m(rootPfn: number, p2mPfns: readonly number[]): P2mShape {
    if (this.#options.p2m === 'list') {
      const vaddr = LAYOUT[this.#width].p2m;
      p2mPfns.forEach((pfn, i) => this.#map(vaddr + BigInt(i) * 4096n, pfn));
      return { kind: 'list', rootPfn, vaddr };
    }
    const lists = Math.ceil(p2mPfns.length / (4096 / this.#width));
    return { kind: 'tree', topPfn: this.#take(), listPfns: this.#takeSome(lists) };
  }

  /** The next special page. */
  #take(): number {
    for (let next = this.#free.next(); next.done !== true; next = this.#free.next()) {
      const pfn = next.value;
      if (this.#domain.mfnOf(pfn) !== INVALID_FRAME && !this.#used.has(pfn)) {
        this.#used.add(pfn);
        return pfn;
      }
    }
    throw new HypervisorError('BAD_CONFIGURATION', 'the guest has not enough pages for its tables', {
      pfns: this.#options.pfns,
      taken: this.#used.size,
    });
  }

  #takeSome(count: number): number[] {
    return Array.from({ length: count }, () => this.#take());
  }

  #tableFor(level: number, vaddr: bigint): number {
    const { levels } = LAYOUT[this.#width];
    const prefix = level === levels ? 0n : vaddr >> BigInt(12 + 9 * level);
    const key = `${level} ${prefix.toString()}`;
    let table = this.#tables.get(key);
    if (table === undefined) {
      table = this.#take();
      this.#tables.set(key, table);
      this.#levels.set(table, level);
      if (level < levels) this.#enter(this.#tableFor(level + 1, vaddr), level + 1, vaddr, table);
    }
    return table;
  }

  #map(vaddr: bigint, pfn: number): void {
    this.#enter(this.#tableFor(1, vaddr), 1, vaddr, pfn);
  }

  #enter(table: number, level: number, vaddr: bigint, target: number): void {
    const index = Number((vaddr >> BigInt(12 + 9 * (level - 1))) & 511n);
    this.#entries.push({ table, index, target, level });
  }

  #writeEntry({
    table,
    index,
    target,
    level,
  }: {
    table: number;
    index: number;
    target: number;
    level: number;
  }): void {
    const words = this.#domain.words(table);
    const mfn = this.#mfn(target);
    // Accessed, dirty, global, available bits; the PAT bit stands where a superpage's mark would above level 1.
    let flags = PRESENT | (this.#next() & (level === 1 ? 0xfe0 : 0xe60));
    if (this.#width === 4 && level === 3) flags = PRESENT;
    else if (level > 1 || !this.#levels.has(target)) flags |= WRITABLE;
    const high = this.#width === 4 && level === 3 ? 0 : this.#next() & 0xfff00000;
    words[index * 2] = (mfn << 12) | flags;
    words[index * 2 + 1] = (mfn >>> 20) | high;
  }

  #startInfo(startInfoPfn: number, storePfn: number, consolePfn: number): void {
    const at = START_INFO[this.#width];
    const view = this.#view(startInfoPfn);
    view.setUint32(at.store, this.#mfn(storePfn), true);
    view.setUint32(at.storePort, 1, true);
    view.setUint32(at.console, this.#mfn(consolePfn), true);
    view.setUint32(at.consolePort, 2, true);
    view.setUint32(32, this.#options.pfns, true);
    // The console is served: a restore will say that it is not.
    this.#fill(this.#domain.words(storePfn));
  }

  #pin(rootPfn: number, userPfn: number, pinned: readonly number[]): void {
    const { pv } = this.#domain;
    if (userPfn >= 0) this.#domain.words(userPfn).set(this.#domain.words(rootPfn));
    pv.pin(this.#mfn(rootPfn), LAYOUT[this.#width].levels);
    if (userPfn >= 0) pv.pin(this.#mfn(userPfn), 4);
    for (const pfn of pinned) pv.pin(this.#mfn(pfn), 1);
  }

  #vcpus(rootPfn: number, userPfn: number, gdtPfns: readonly number[]): void {
    const width = this.#width;
    const at = LAYOUT[width];
    this.#domain.pv.vcpus.forEach((vcpu, id) => {
      const context = this.#octets(VCPU_CONTEXT_BYTES[width]);
      const view = new DataView(context.buffer);
      const write = (offset: number, value: bigint): void => {
        if (width === 8) view.setBigUint64(offset, value, true);
        else view.setUint32(offset, Number(value), true);
      };
      write(at.flags, BigInt(VCPU_FLAGS));
      // One frame of the GDT, not all of it used.
      write(at.gdt, BigInt(this.#mfn(gdtPfns[id] ?? 0)));
      write(at.gdtEntries, 500n);
      const root = this.#mfn(rootPfn);
      write(
        at.registers + 3 * width,
        width === 8 ? BigInt(root) << 12n : BigInt(((root << 12) | (root >>> 20)) >>> 0),
      );
      write(at.registers + width, id === 0 && userPfn >= 0 ? BigInt(this.#mfn(userPfn)) << 12n : 0n);
      vcpu.context = context;
      vcpu.online = true;
      vcpu.extended = this.#octets(72);
      vcpu.xsave = id === 0 ? this.#octets(856) : new Uint8Array(0);
      vcpu.msrs = id === 1 ? this.#octets(32) : new Uint8Array(0);
    });
  }

  #mfn(pfn: number): number {
    return this.#domain.mfnOf(pfn);
  }

  #view(pfn: number): DataView {
    const octets = this.#domain.octets(pfn);
    return new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
  }

  #next(): number {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) | 0;
    return this.#random >>> 0;
  }

  #fill(words: Uint32Array): void {
    for (let i = 0; i < words.length; i++) words[i] = this.#next();
  }

  #octets(length: number): Uint8Array<ArrayBuffer> {
    const octets = new Uint8Array(length);
    this.#fill(new Uint32Array(octets.buffer));
    return octets;
  }
}
