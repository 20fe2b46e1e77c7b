// A PV domain on a MemoryMachine: frames of the machine, Xen's view of them, vCPUs, and a guest that knows how to be
// suspended (pv-guest.ts). As strict as Xen about frames, page types and states; what only PV has is in pv-calls.ts.
//
//   created ──start──▶ running ◀──resume── suspended        destroy() frees all frames
//      └─ populate, writePages, pv.set… (a target is filled here)

import { ReplaySubject, Subject } from 'rxjs';
import { DomainType, INVALID_FRAME, PAGE_SIZE, PageType } from '../../stream/format.js';
import type { GuestWidth } from '../../stream/records/pv.js';
import { Bitmap } from '../bitmap.js';
import type {
  CpuPolicy,
  DirtyStats,
  DomainEvent,
  DomainInfo,
  DomainState,
  HvmParam,
  SourceDomain,
  TargetDomain,
  TscInfo,
} from '../port.js';
import { HypervisorError } from '../port.js';
import type { PvSource, PvTarget } from '../port-pv.js';
import type { MemoryMachine } from './machine.js';
import { levelOf } from './page-types.js';
import { PvCalls } from './pv-calls.js';

/** The calls of the port, as a script sees them. */
export type MemoryPvCall =
  | Exclude<keyof SourceDomain | keyof TargetDomain, 'output$' | 'events$' | 'pv'>
  | `pv.${keyof PvSource | keyof PvTarget}`;

/** As a MemoryDomainScript: throws to make the call fail, or does what the guest would do just then. */
export type MemoryPvScript = (call: MemoryPvCall, number: number) => void;

/** What the kernel inside does when it is suspended and when it goes on. */
export interface PvGuest {
  /** About to be suspended: what the toolstack translates in start_info becomes pfns. */
  suspending(): void;
  /** Goes on, in the same domain (the suspend was cancelled) or in a new one. */
  resumed(where: 'same domain' | 'new domain'): void;
}

export interface MemoryPvDomainOptions {
  readonly machine: MemoryMachine;
  readonly name?: string;
  /** The most pfns that the domain may have, and the most pages. */
  readonly pages: number;
  /** Default: 8, the machine's own. */
  readonly width?: GuestWidth;
  /** Default: 1. */
  readonly vcpus?: number;
  readonly tsc?: TscInfo;
  readonly cpuPolicy?: CpuPolicy;
  readonly script?: MemoryPvScript;
}

const NO_BYTES = new Uint8Array(0);
const STATES_WITH_A_GUEST: ReadonlySet<DomainState> = new Set(['created', 'running', 'suspended']);

export class MemoryPvDomain implements SourceDomain, TargetDomain {
  readonly name: string;
  readonly machine: MemoryMachine;
  /** The machine's number for it. */
  readonly id: number;
  readonly pages: number;
  readonly output$ = new Subject<Uint8Array>();
  readonly events$ = new ReplaySubject<DomainEvent>(1);
  readonly pv: PvCalls;
  guest: PvGuest | null = null;
  tsc: TscInfo;
  policy: CpuPolicy;
  script: MemoryPvScript | null;
  /** Calls of the port so far. */
  calls = 0;
  readonly inputs: Uint8Array[] = [];

  #state: DomainState = 'created';
  #held = 0;
  /** True if the toolstack filled it: its guest finds itself in a new domain. */
  #filled = false;
  readonly #log: Bitmap;
  #logging = false;
  /** What nobody but a test needs: where each pfn lies. */
  readonly #mfns: Uint32Array;

  constructor(options: MemoryPvDomainOptions) {
    this.name = options.name ?? 'memory-pv';
    this.machine = options.machine;
    this.id = options.machine.newDomain();
    this.pages = options.pages;
    this.#log = new Bitmap(options.pages);
    this.#mfns = new Uint32Array(options.pages).fill(INVALID_FRAME);
    this.tsc = options.tsc ?? { mode: 0, khz: 0, nsec: 0n, incarnation: 0 };
    this.policy = options.cpuPolicy ?? { cpuid: NO_BYTES, msrs: NO_BYTES };
    this.script = options.script ?? null;
    this.pv = new PvCalls(this, options.width ?? 8, options.vcpus ?? 1);
  }

  get state(): DomainState {
    return this.#state;
  }

  get loggingDirty(): boolean {
    return this.#logging;
  }

  // ── what the guest does, and what Xen knows: for tests and the rest of this folder ──

  /** A frame for the pfn, as the domain builder gives it. @throws OUT_OF_MEMORY, FRAME_OUT_OF_RANGE */
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

  /** INVALID_FRAME where there is none. */
  mfnOf(pfn: number): number {
    return this.#mfns[pfn] ?? INVALID_FRAME;
  }

  /** A page's live words. Writing here is not seen by the dirty log: use write(). */
  words(pfn: number): Uint32Array {
    return this.machine.words(this.#mfnThere(pfn));
  }

  octets(pfn: number): Uint8Array {
    return this.machine.octets(this.#mfnThere(pfn));
  }

  /** The guest writes to a page (of any type: as if through Xen, where it is a page table). */
  write(pfn: number, bytes: Uint8Array, offset = 0): void {
    this.octets(pfn).set(bytes, offset);
    this.markDirty(this.mfnOf(pfn));
  }

  markDirty(mfn: number): void {
    const pfn = this.machine.pfnOf(mfn);
    if (this.#logging && pfn < this.pages) this.#log.set(pfn);
  }

  /** The guest gives a page back; what its own p2m says is its business. */
  punch(pfn: number): void {
    const mfn = this.#mfnThere(pfn);
    this.markDirty(mfn);
    this.#mfns[pfn] = INVALID_FRAME;
    this.#held--;
    this.machine.free(mfn);
  }

  say(bytes: Uint8Array): void {
    this.need('running');
    this.output$.next(bytes);
  }

  /** The guest shuts itself down. */
  shutdown(): void {
    if (!STATES_WITH_A_GUEST.has(this.#state)) return;
    this.#state = 'shutdown';
    this.events$.next({ kind: 'shutdown' });
  }

  // ── the port ──

  info(): Promise<DomainInfo> {
    return this.call('info', () => ({
      name: this.name,
      type: DomainType.X86_PV,
      p2mSize: this.pages,
      state: this.#state,
      hypervisor: 'memory',
      versionMajor: 4,
      versionMinor: 17,
    }));
  }

  input(bytes: Uint8Array): Promise<void> {
    return this.call('input', () => {
      this.need('running');
      this.inputs.push(bytes.slice());
    });
  }

  destroy(): Promise<void> {
    return this.call('destroy', () => {
      if (this.#state === 'destroyed') return;
      this.#state = 'destroyed';
      this.machine.freeAll(this.id);
      this.#mfns.fill(INVALID_FRAME);
      this.output$.complete();
      this.events$.complete();
    });
  }

  start(): Promise<void> {
    return this.call('start', () => {
      this.need('created');
      if (this.#filled) this.guest?.resumed('new domain');
      this.#state = 'running';
    });
  }

  suspend(): Promise<void> {
    return this.call('suspend', () => {
      this.need('running');
      this.guest?.suspending();
      this.#state = 'suspended';
    });
  }

  resume(): Promise<void> {
    return this.call('resume', () => {
      this.need('suspended');
      this.#state = 'running';
      this.guest?.resumed('same domain');
    });
  }

  enableLogDirty(): Promise<void> {
    return this.call('enableLogDirty', () => {
      this.needGuest();
      if (this.#logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is enabled already');
      this.#logging = true;
      this.#log.clearAll();
    });
  }

  cleanLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.call('cleanLogDirty', () => {
      const stats = this.#readLog(into);
      this.#log.clearAll();
      return stats;
    });
  }

  peekLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.call('peekLogDirty', () => this.#readLog(into));
  }

  disableLogDirty(): Promise<void> {
    return this.call('disableLogDirty', () => {
      this.needGuest();
      if (!this.#logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
      this.#logging = false;
    });
  }

  pageTypes(gfns: Uint32Array, count: number, types: Uint8Array): Promise<void> {
    return this.call('pageTypes', () => {
      this.needGuest();
      for (let i = 0; i < count; i++) {
        const mfn = gfns[i] ?? INVALID_FRAME;
        types[i] = this.machine.isOwnedBy(mfn, this.id) ? (this.machine.types[mfn] ?? 0) : PageType.XTAB;
      }
    });
  }

  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    return this.call('copyPages', () => {
      this.needGuest();
      this.checkFrames(gfns, count);
      for (let i = 0; i < count; i++) slab.set(this.machine.octets(gfns[i] ?? 0), offset + i * PAGE_SIZE);
    });
  }

  tscInfo(): Promise<TscInfo> {
    return this.call('tscInfo', () => {
      this.needGuest();
      return this.tsc;
    });
  }

  cpuPolicy(): Promise<CpuPolicy> {
    return this.call('cpuPolicy', () => {
      this.needGuest();
      return { cpuid: this.policy.cpuid.slice(), msrs: this.policy.msrs.slice() };
    });
  }

  populate(pfns: Uint32Array, count: number, gfns: Uint32Array): Promise<void> {
    return this.call('populate', () => {
      this.needGuest();
      this.#filled = true;
      for (let i = 0; i < count; i++) gfns[i] = this.give(pfns[i] ?? INVALID_FRAME);
    });
  }

  writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    return this.call('writePages', () => {
      this.needGuest();
      this.checkFrames(gfns, count);
      for (let i = 0; i < count; i++) {
        const mfn = gfns[i] ?? 0;
        if (levelOf(this.machine.types[mfn] ?? 0) !== 0) {
          throw new HypervisorError('FAILED', 'a page table cannot be mapped for writing', { mfn });
        }
        this.machine.octets(mfn).set(data.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
        this.markDirty(mfn);
      }
    });
  }

  comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]> {
    return this.call('comparePages', () => {
      this.needGuest();
      this.checkFrames(gfns, count);
      const different: number[] = [];
      for (let i = 0; i < count; i++) {
        const mine = this.machine.octets(gfns[i] ?? 0);
        if (Buffer.compare(mine, data.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE)) !== 0) different.push(i);
      }
      return different;
    });
  }

  clearPage(gfn: number): Promise<void> {
    return this.call('clearPage', () => {
      this.needGuest();
      this.checkFrames(Uint32Array.of(gfn), 1);
      this.machine.octets(gfn).fill(0);
      this.markDirty(gfn);
    });
  }

  hvmContext(): Promise<Uint8Array> {
    return this.call('hvmContext', notHvm);
  }

  hvmParams(): Promise<readonly HvmParam[]> {
    return this.call('hvmParams', notHvm);
  }

  setHvmContext(): Promise<void> {
    return this.call('setHvmContext', notHvm);
  }

  setHvmParam(): Promise<void> {
    return this.call('setHvmParam', notHvm);
  }

  setTscInfo(info: TscInfo): Promise<void> {
    return this.call('setTscInfo', () => {
      this.needGuest();
      this.tsc = info;
    });
  }

  setCpuPolicy(policy: CpuPolicy): Promise<void> {
    return this.call('setCpuPolicy', () => {
      this.needGuest();
      this.policy = { cpuid: policy.cpuid.slice(), msrs: policy.msrs.slice() };
    });
  }

  // ── inside ──

  /** Every port call comes through here: it is counted, shown to the script, and answers by a promise. */
  call<T>(call: MemoryPvCall, effect: () => T): Promise<T> {
    const number = this.calls++;
    try {
      this.script?.(call, number);
      return Promise.resolve(effect());
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  need(state: DomainState): void {
    this.needGuest();
    if (this.#state !== state) {
      throw new HypervisorError('WRONG_STATE', `the domain is ${this.#state}, not ${state}`, {
        state: this.#state,
        needed: state,
      });
    }
  }

  needGuest(): void {
    if (!STATES_WITH_A_GUEST.has(this.#state)) {
      throw new HypervisorError('DOMAIN_GONE', `the domain is gone: ${this.#state}`, { state: this.#state });
    }
  }

  /** The first `count` frames must be the domain's. */
  checkFrames(mfns: Uint32Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const mfn = mfns[i] ?? INVALID_FRAME;
      if (!this.machine.isOwnedBy(mfn, this.id)) throw this.#outOfRange(mfn);
    }
  }

  #readLog(into: Bitmap): DirtyStats {
    this.needGuest();
    if (!this.#logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
    into.clearAll();
    // The saver's bitmap is as large as the guest's p2m, which may be smaller than what the domain may have.
    for (let p = this.#log.next(0); p >= 0 && p < into.size; p = this.#log.next(p + 1)) into.set(p);
    return { dirtyCount: into.count(), faultCount: 0 };
  }

  #mfnThere(pfn: number): number {
    const mfn = this.mfnOf(pfn);
    if (mfn === INVALID_FRAME)
      throw new HypervisorError('NOT_POPULATED', `pfn ${pfn} has no memory`, { pfn });
    return mfn;
  }

  #outOfRange(frame: number): HypervisorError {
    return new HypervisorError('FRAME_OUT_OF_RANGE', `the domain has no frame ${frame}`, {
      frame,
      pages: this.pages,
    });
  }
}

function notHvm(): never {
  throw new HypervisorError('UNSUPPORTED', 'a PV domain has no HVM state');
}
