// A domain that is nothing but memory: RAM in one shared array, dirtied by whoever holds the object. It stands in
// for a hypervisor wherever the saver and the restorer are to be tested or measured by themselves, and is as strict
// as one: a call in the wrong state, a frame that is not there, a log that is not enabled all fail as they would.
//
//   created ──start──▶ running ◀──resume── suspended         shutdown(), crash() end it from any of these,
//      │                  └─────suspend──────▶┘              destroy() from all
//      └─ populate, writePages, set… (a target is filled here)

import { ReplaySubject, Subject } from 'rxjs';
import { DomainType, INVALID_FRAME, PageType } from '../../src/stream/format.js';
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
import type { MemoryDisks } from './disks.js';
import { Ram } from './ram.js';

/** The calls of the port, as a script sees them. */
export type MemoryDomainCall = Exclude<
  keyof SourceDomain | keyof TargetDomain,
  'output$' | 'events$' | 'source' | 'disks'
>;

/**
 * Sees every call of the port before it takes effect: throw a HypervisorError and the call fails with it; change the
 * domain and it looks as if the guest had done so. `number` counts all calls from 0.
 */
export type MemoryDomainScript = (call: MemoryDomainCall, number: number) => void;

export interface MemoryDomainOptions {
  readonly name?: string;
  readonly pages: number;
  /** Default: x86 HVM. */
  readonly type?: DomainType;
  /** A target: no page has memory until it is populated. Default: all have, but the holes. */
  readonly empty?: boolean;
  /** Pfns without memory (ballooned out, or never there). */
  readonly holes?: Iterable<number>;
  /** Pages that a target may populate (OUT_OF_MEMORY beyond); default: all. */
  readonly pagesMax?: number;
  readonly context?: Uint8Array;
  /** It has a device model with a state of its own; hvmContext() is empty then unless `context` is given. */
  readonly emulator?: boolean;
  readonly params?: readonly HvmParam[];
  readonly tsc?: TscInfo;
  readonly cpuPolicy?: CpuPolicy;
  readonly script?: MemoryDomainScript;
  /** Of a source and of a target. */
  readonly disks?: MemoryDisks;
}

const NO_BYTES = new Uint8Array(0);
const STATES_WITH_A_GUEST: ReadonlySet<DomainState> = new Set(['created', 'running', 'suspended']);

export class MemoryDomain implements SourceDomain, TargetDomain {
  readonly name: string;
  readonly pages: number;
  readonly type: DomainType;
  readonly output$ = new Subject<Uint8Array>();
  readonly events$ = new ReplaySubject<DomainEvent>(1);
  /** All RAM, holes included (they read as zeroes). Writing here is not seen by the dirty log: use write(). */
  readonly memory: Uint8Array;
  /** Pages that have memory. */
  readonly populated: Bitmap;
  /** The context, parameters, … that the domain has: given at creation, or set by a restore. */
  context: Uint8Array;
  /** The device model's state, where there is one. */
  emulatorState: Uint8Array = NO_BYTES;
  readonly emulatorContext?: () => Promise<Uint8Array>;
  readonly setEmulatorContext?: (context: Uint8Array) => Promise<void>;
  readonly params: Map<bigint, bigint>;
  tsc: TscInfo;
  policy: CpuPolicy;
  /** What arrived by input(), in order. */
  readonly inputs: Uint8Array[] = [];
  readonly disks?: MemoryDisks;
  script: MemoryDomainScript | null;
  /** Calls of the port so far. */
  calls = 0;

  #state: DomainState = 'created';
  #hasRun = false;
  readonly #ram: Ram;
  readonly #pagesMax: number;

  constructor(options: MemoryDomainOptions) {
    if (!Number.isInteger(options.pages) || options.pages < 1) {
      throw new HypervisorError('BAD_CONFIGURATION', 'a domain has at least one page', {
        pages: options.pages,
      });
    }
    this.name = options.name ?? 'memory';
    this.pages = options.pages;
    this.type = options.type ?? DomainType.X86_HVM;
    this.#ram = new Ram(options.pages);
    this.memory = this.#ram.octets;
    this.populated = this.#ram.populated;
    this.#pagesMax = options.pagesMax ?? options.pages;
    if (options.empty !== true) this.populated.setAll();
    for (const pfn of options.holes ?? []) this.populated.clear(pfn);
    const isBare = options.empty === true || options.emulator === true;
    this.context = options.context ?? (isBare ? NO_BYTES : new Uint8Array(8));
    if (options.emulator === true) {
      if (options.empty !== true) this.emulatorState = new Uint8Array(8);
      this.emulatorContext = () => this.#emulatorContext();
      this.setEmulatorContext = (context) => this.#setEmulatorContext(context);
    }
    this.params = new Map((options.params ?? []).map(({ index, value }) => [index, value]));
    this.tsc = options.tsc ?? { mode: 0, khz: 0, nsec: 0n, incarnation: 0 };
    this.policy = options.cpuPolicy ?? { cpuid: NO_BYTES, msrs: NO_BYTES };
    if (options.disks !== undefined) this.disks = options.disks;
    this.script = options.script ?? null;
  }

  get state(): DomainState {
    return this.#state;
  }

  get loggingDirty(): boolean {
    return this.#ram.logging;
  }

  // ── what the guest does: for tests and benchmarks ──

  /** The guest writes to its memory, from the beginning of a page on (several pages if the bytes are longer). */
  write(pfn: number, bytes: Uint8Array, offset = 0): void {
    this.#ram.write(pfn, bytes, offset);
  }

  /** Marks pages as written without changing them. */
  dirty(pfns: Iterable<number>): void {
    for (const pfn of pfns) {
      this.#ram.check(pfn);
      this.#ram.mark(pfn);
    }
  }

  /** One page of the live memory, not a copy. */
  page(pfn: number): Uint8Array {
    return this.#ram.page(pfn);
  }

  /** A copy of all RAM. */
  memoryCopy(): Uint8Array {
    return this.memory.slice();
  }

  /** The guest gives a page back (balloon); it reads as zeroes if it gets it again. */
  punch(pfn: number): void {
    this.populated.clear(pfn);
    this.#ram.clear(pfn);
  }

  /** The guest says something; only a running one can. */
  say(bytes: Uint8Array): void {
    this.#need('running');
    this.output$.next(bytes);
  }

  /** The guest shuts itself down. */
  shutdown(): void {
    this.#end('shutdown', { kind: 'shutdown' });
  }

  crash(reason = 'crashed by the test'): void {
    this.#end('crashed', { kind: 'crashed', reason });
  }

  // ── the port ──

  info(): Promise<DomainInfo> {
    return this.#call('info', () => ({
      name: this.name,
      type: this.type,
      p2mSize: this.pages,
      state: this.#state,
      hypervisor: 'memory',
      versionMajor: 4,
      versionMinor: 17,
    }));
  }

  input(bytes: Uint8Array): Promise<void> {
    return this.#call('input', () => {
      this.#need('running');
      this.inputs.push(bytes.slice());
    });
  }

  destroy(): Promise<void> {
    return this.#call('destroy', () => {
      if (this.#state === 'destroyed') return;
      this.#state = 'destroyed';
      this.output$.complete();
      this.events$.complete();
    });
  }

  start(): Promise<void> {
    return this.#call('start', () => {
      this.#need('created');
      this.#state = 'running';
      this.#hasRun = true;
    });
  }

  /** Not seen by a script: it changes nothing. */
  source(): this {
    if (!this.#hasRun) this.#need('running');
    return this;
  }

  suspend(): Promise<void> {
    return this.#call('suspend', () => {
      this.#need('running');
      this.#state = 'suspended';
    });
  }

  resume(): Promise<void> {
    return this.#call('resume', () => {
      this.#need('suspended');
      this.#state = 'running';
    });
  }

  enableLogDirty(): Promise<void> {
    return this.#call('enableLogDirty', () => {
      this.#needGuest();
      if (this.#ram.logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is enabled already');
      this.#ram.logging = true;
      this.#ram.log.clearAll();
    });
  }

  cleanLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.#call('cleanLogDirty', () => {
      const stats = this.#readLog(into);
      this.#ram.log.clearAll();
      return stats;
    });
  }

  peekLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.#call('peekLogDirty', () => this.#readLog(into));
  }

  disableLogDirty(): Promise<void> {
    return this.#call('disableLogDirty', () => {
      this.#needGuest();
      if (!this.#ram.logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
      this.#ram.logging = false;
    });
  }

  pageTypes(gfns: Uint32Array, count: number, types: Uint8Array): Promise<void> {
    return this.#call('pageTypes', () => {
      this.#needGuest();
      for (let i = 0; i < count; i++) {
        const gfn = gfns[i] ?? INVALID_FRAME;
        if (gfn !== INVALID_FRAME) this.#ram.checkRange(gfn);
        types[i] = this.populated.has(gfn) ? PageType.NOTAB : PageType.XTAB;
      }
    });
  }

  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    return this.#call('copyPages', () => {
      this.#needGuest();
      this.#ram.read(gfns, count, slab, offset);
    });
  }

  hvmContext(): Promise<Uint8Array> {
    return this.#call('hvmContext', () => {
      this.#need('suspended');
      return this.context.slice();
    });
  }

  hvmParams(): Promise<readonly HvmParam[]> {
    return this.#call('hvmParams', () => {
      this.#needGuest();
      return Array.from(this.params, ([index, value]) => ({ index, value }));
    });
  }

  tscInfo(): Promise<TscInfo> {
    return this.#call('tscInfo', () => {
      this.#needGuest();
      return this.tsc;
    });
  }

  cpuPolicy(): Promise<CpuPolicy> {
    return this.#call('cpuPolicy', () => {
      this.#needGuest();
      return { cpuid: this.policy.cpuid.slice(), msrs: this.policy.msrs.slice() };
    });
  }

  populate(pfns: Uint32Array, count: number, gfns: Uint32Array): Promise<void> {
    return this.#call('populate', () => {
      this.#needGuest();
      for (let i = 0; i < count; i++) this.#ram.checkRange(pfns[i] ?? INVALID_FRAME);
      const held = this.populated.count();
      if (held + count > this.#pagesMax) {
        throw new HypervisorError('OUT_OF_MEMORY', 'no memory left for the domain', {
          held,
          asked: count,
          limit: this.#pagesMax,
        });
      }
      for (let i = 0; i < count; i++) {
        const pfn = pfns[i] ?? 0;
        this.populated.set(pfn);
        gfns[i] = pfn;
      }
    });
  }

  writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    return this.#call('writePages', () => {
      this.#needGuest();
      this.#ram.fill(gfns, count, data);
    });
  }

  comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]> {
    return this.#call('comparePages', () => {
      this.#needGuest();
      return this.#ram.compare(gfns, count, data);
    });
  }

  clearPage(gfn: number): Promise<void> {
    return this.#call('clearPage', () => {
      this.#needGuest();
      this.#ram.check(gfn);
      this.#ram.clear(gfn);
    });
  }

  setHvmContext(context: Uint8Array): Promise<void> {
    return this.#call('setHvmContext', () => {
      this.#needGuest();
      this.context = context.slice();
    });
  }

  setHvmParam(param: HvmParam): Promise<void> {
    return this.#call('setHvmParam', () => {
      this.#needGuest();
      this.params.set(param.index, param.value);
    });
  }

  setTscInfo(info: TscInfo): Promise<void> {
    return this.#call('setTscInfo', () => {
      this.#needGuest();
      this.tsc = info;
    });
  }

  setCpuPolicy(policy: CpuPolicy): Promise<void> {
    return this.#call('setCpuPolicy', () => {
      this.#needGuest();
      this.policy = { cpuid: policy.cpuid.slice(), msrs: policy.msrs.slice() };
    });
  }

  // ── inside ──

  #emulatorContext(): Promise<Uint8Array> {
    return this.#call('emulatorContext', () => {
      this.#need('suspended');
      return this.emulatorState.slice();
    });
  }

  #setEmulatorContext(context: Uint8Array): Promise<void> {
    return this.#call('setEmulatorContext', () => {
      this.#needGuest();
      this.emulatorState = context.slice();
    });
  }

  /** Every port call comes through here: it is counted, shown to the script, and answers by a promise. */
  #call<T>(call: MemoryDomainCall, effect: () => T): Promise<T> {
    const number = this.calls++;
    try {
      this.script?.(call, number);
      return Promise.resolve(effect());
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #readLog(into: Bitmap): DirtyStats {
    this.#needGuest();
    const { log, logging } = this.#ram;
    if (!logging) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
    into.words.set(log.words);
    return { dirtyCount: log.count(), faultCount: 0 };
  }

  #need(state: DomainState): void {
    this.#needGuest();
    if (this.#state !== state) {
      throw new HypervisorError('WRONG_STATE', `the domain is ${this.#state}, not ${state}`, {
        state: this.#state,
        needed: state,
      });
    }
  }

  #needGuest(): void {
    if (!STATES_WITH_A_GUEST.has(this.#state)) {
      throw new HypervisorError('DOMAIN_GONE', `the domain is gone: ${this.#state}`, { state: this.#state });
    }
  }

  #end(state: DomainState, event: DomainEvent): void {
    if (!STATES_WITH_A_GUEST.has(this.#state)) return;
    this.#state = state;
    this.events$.next(event);
  }
}
