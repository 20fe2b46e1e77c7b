// A PV domain on a MemoryMachine: frames of the machine, Xen's view of them, vCPUs, and a guest that knows how to be
// suspended (pv-guest.ts). As strict as Xen about frames, page types and states; what only PV has is in pv-calls.ts.
//
//   created ──start──▶ running ◀──resume── suspended        destroy() frees all frames
//      └─ populate, writePages, pv.set… (a target is filled here)

import { ReplaySubject, Subject } from 'rxjs';
import { DomainType, INVALID_FRAME } from '../../src/stream/format.js';
import type { GuestWidth } from '../../src/stream/records/pv.js';
import type { Bitmap } from '../../src/hypervisor/bitmap.js';
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
} from '../../src/hypervisor/port.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import type { PvSource, PvTarget } from '../../src/hypervisor/port-pv.js';
import type { MemoryMachine } from './machine.js';
import { PvCalls } from './pv-calls.js';
import { PvMemory } from './pv-memory.js';

/** The calls of the port, as a script sees them. */
export type MemoryPvCall =
  | Exclude<keyof SourceDomain | keyof TargetDomain, 'output$' | 'events$' | 'pv' | 'source'>
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
  readonly memory: PvMemory;
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
  #hasRun = false;
  /** True if the toolstack filled it: its guest finds itself in a new domain. */
  #filled = false;

  constructor(options: MemoryPvDomainOptions) {
    this.name = options.name ?? 'memory-pv';
    this.machine = options.machine;
    this.pages = options.pages;
    this.memory = new PvMemory(options.machine, options.pages);
    this.tsc = options.tsc ?? { mode: 0, khz: 0, nsec: 0n, incarnation: 0 };
    this.policy = options.cpuPolicy ?? { cpuid: NO_BYTES, msrs: NO_BYTES };
    this.script = options.script ?? null;
    this.pv = new PvCalls(this, options.width ?? 8, options.vcpus ?? 1);
  }

  get state(): DomainState {
    return this.#state;
  }

  get loggingDirty(): boolean {
    return this.memory.logging;
  }

  // ── what the guest does, and what Xen knows: for tests and the rest of this folder ──

  /** A frame for the pfn, as the domain builder gives it. @throws OUT_OF_MEMORY, FRAME_OUT_OF_RANGE */
  give(pfn: number): number {
    return this.memory.give(pfn);
  }

  /** INVALID_FRAME where there is none. */
  mfnOf(pfn: number): number {
    return this.memory.mfnOf(pfn);
  }

  /** A page's live words. Writing here is not seen by the dirty log: use write(). */
  words(pfn: number): Uint32Array {
    return this.machine.words(this.memory.mfnThere(pfn));
  }

  octets(pfn: number): Uint8Array {
    return this.machine.octets(this.memory.mfnThere(pfn));
  }

  /** The guest writes to a page (of any type: as if through Xen, where it is a page table). */
  write(pfn: number, bytes: Uint8Array, offset = 0): void {
    this.octets(pfn).set(bytes, offset);
    this.markDirty(this.mfnOf(pfn));
  }

  markDirty(mfn: number): void {
    this.memory.mark(mfn);
  }

  /** The guest gives a page back; what its own p2m says is its business. */
  punch(pfn: number): void {
    this.memory.punch(pfn);
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
      this.memory.freeAll();
      this.output$.complete();
      this.events$.complete();
    });
  }

  start(): Promise<void> {
    return this.call('start', () => {
      this.need('created');
      if (this.#filled) this.guest?.resumed('new domain');
      this.#state = 'running';
      this.#hasRun = true;
    });
  }

  /** Not seen by a script: it changes nothing. */
  source(): this {
    if (!this.#hasRun) this.need('running');
    return this;
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
      if (this.memory.logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is enabled already');
      this.memory.logging = true;
      this.memory.log.clearAll();
    });
  }

  cleanLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.call('cleanLogDirty', () => {
      const stats = this.#readLog(into);
      this.memory.log.clearAll();
      return stats;
    });
  }

  peekLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.call('peekLogDirty', () => this.#readLog(into));
  }

  disableLogDirty(): Promise<void> {
    return this.call('disableLogDirty', () => {
      this.needGuest();
      if (!this.memory.logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
      this.memory.logging = false;
    });
  }

  pageTypes(gfns: Uint32Array, count: number, types: Uint8Array): Promise<void> {
    return this.call('pageTypes', () => {
      this.needGuest();
      this.memory.types(gfns, count, types);
    });
  }

  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    return this.call('copyPages', () => {
      this.needGuest();
      this.memory.copyOut(gfns, count, slab, offset);
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
      for (let i = 0; i < count; i++) gfns[i] = this.memory.give(pfns[i] ?? INVALID_FRAME);
    });
  }

  writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    return this.call('writePages', () => {
      this.needGuest();
      this.memory.copyIn(gfns, count, data);
    });
  }

  comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]> {
    return this.call('comparePages', () => {
      this.needGuest();
      return this.memory.compare(gfns, count, data);
    });
  }

  clearPage(gfn: number): Promise<void> {
    return this.call('clearPage', () => {
      this.needGuest();
      this.memory.check(Uint32Array.of(gfn), 1);
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

  #readLog(into: Bitmap): DirtyStats {
    this.needGuest();
    if (!this.memory.logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
    return { dirtyCount: this.memory.readLog(into), faultCount: 0 };
  }
}

function notHvm(): never {
  throw new HypervisorError('UNSUPPORTED', 'a PV domain has no HVM state');
}
