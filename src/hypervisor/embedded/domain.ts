// The domain's side of an embedded machine: the port's calls, turned into messages to the worker that the machine lives
// in. Calls may overlap; the worker answers them in order. A target is a domain that was created empty; once started it
// is a domain like any other, and can be protected again.

import { Worker } from 'node:worker_threads';
import { ReplaySubject, Subject } from 'rxjs';
import { asError } from '../../errors.js';
import { DomainType, INVALID_FRAME, PAGE_SIZE, PageType } from '../../stream/format.js';
import { Bitmap } from '../bitmap.js';
import {
  HypervisorError,
  type CpuPolicy,
  type DirtyStats,
  type DomainEvent,
  type DomainInfo,
  type DomainState,
  type HvmParam,
  type SourceDomain,
  type TargetDomain,
  type TscInfo,
} from '../port.js';
import type { MachineSpec } from './config.js';
import {
  SLOT_COUNT,
  SLOT_PAGES,
  type CallMessage,
  type CallName,
  type Calls,
  type ErrorMessage,
  type SharedMemory,
  type WorkerMessage,
  type WorkerStart,
} from './messages.js';

/** Slabs that the worker remembers; the oldest is forgotten for the next. */
const SLABS_REMEMBERED = 8;

interface PendingCall {
  readonly settle: (message: Extract<WorkerMessage, { kind: 'result' }>) => void;
  readonly reject: (error: HypervisorError) => void;
}

export class EmbeddedDomain implements SourceDomain, TargetDomain {
  readonly output$ = new Subject<Uint8Array>();
  readonly events$ = new ReplaySubject<DomainEvent>(1);

  private readonly spec: MachineSpec;
  private readonly worker: Worker;
  private readonly p2mSize: number;
  private readonly populated: Bitmap;
  private readonly dirty: Bitmap;
  private readonly staging: Uint8Array;
  private readonly stagingFrames: Uint32Array;
  /** Each slot's last use; the next one waits for it. */
  private readonly slots: Promise<unknown>[];
  private nextSlot = 0;
  private lastScan: Promise<unknown> = Promise.resolve();
  private readonly slabs = new Map<SharedArrayBuffer, number>();
  private nextSlab = 0;
  private readonly pending = new Map<number, PendingCall>();
  private nextCall = 0;
  private state: DomainState = 'created';
  private version = '0.0';
  private terminated: Promise<unknown> | null = null;

  /** Resolves when the machine is made. Fails with BAD_CONFIGURATION or FAILED. */
  static async open(spec: MachineSpec): Promise<EmbeddedDomain> {
    const domain = new EmbeddedDomain(spec);
    try {
      await domain.ready;
    } catch (error) {
      await domain.destroy();
      throw error;
    }
    return domain;
  }

  private readonly ready: Promise<void>;
  private settleReady: ((error?: HypervisorError) => void) | null = null;

  private constructor(spec: MachineSpec) {
    this.spec = spec;
    this.p2mSize = spec.memoryBytes / PAGE_SIZE;
    this.populated = new Bitmap(this.p2mSize);
    if (!spec.empty) this.populated.setAll();
    this.dirty = new Bitmap(this.p2mSize, { shared: true });
    const shared: SharedMemory = {
      staging: new SharedArrayBuffer(SLOT_COUNT * SLOT_PAGES * PAGE_SIZE),
      frames: new SharedArrayBuffer(SLOT_COUNT * SLOT_PAGES * 4),
      bitmap: this.dirty.words.buffer as SharedArrayBuffer, // asked for with `shared`
    };
    this.staging = new Uint8Array(shared.staging);
    this.stagingFrames = new Uint32Array(shared.frames);
    this.slots = new Array<Promise<unknown>>(SLOT_COUNT).fill(Promise.resolve());

    this.ready = new Promise((resolve, reject) => {
      this.settleReady = (error) => {
        this.settleReady = null;
        if (error) reject(error);
        else resolve();
      };
    });
    // v86 writes to the console; that is not this program's output.
    this.worker = new Worker(new URL('./worker.js', import.meta.url), {
      name: `domain ${spec.name}`,
      workerData: { spec, shared } satisfies WorkerStart,
      execArgv: [], // the program's own (--input-type, --inspect, …) are not for this thread
      stdout: true,
      stderr: true,
    });
    this.worker.stdout.resume();
    this.worker.stderr.resume();
    this.worker.on('message', (message: WorkerMessage) => this.receive(message));
    this.worker.on('error', (error) => this.ended({ kind: 'crashed', reason: asError(error).message }));
    this.worker.on('messageerror', (error) => this.ended({ kind: 'crashed', reason: error.message }));
    this.worker.on('exit', (code) => {
      this.ended({ kind: 'crashed', reason: `the machine's thread ended with code ${code}` });
    });
  }

  info(): Promise<DomainInfo> {
    const [major, minor] = this.version.split('.');
    return Promise.resolve({
      name: this.spec.name,
      type: DomainType.X86_HVM,
      p2mSize: this.p2mSize,
      state: this.state,
      hypervisor: 'embedded',
      versionMajor: Number(major),
      versionMinor: Number(minor),
    });
  }

  input(bytes: Uint8Array): Promise<void> {
    return this.call('input', bytes.slice());
  }

  async destroy(): Promise<void> {
    if (!this.terminated) {
      this.state = 'destroyed';
      const gone = new HypervisorError('DOMAIN_GONE', 'The domain was destroyed.', { name: this.spec.name });
      this.settleReady?.(gone);
      this.rejectPending(gone);
      this.terminated = this.worker.terminate();
    }
    await this.terminated;
    this.output$.complete();
    this.events$.complete();
  }

  async start(): Promise<void> {
    await this.call('start', undefined);
    this.enter('running');
  }

  async suspend(): Promise<void> {
    await this.call('suspend', undefined);
    this.enter('suspended');
  }

  async resume(): Promise<void> {
    await this.call('resume', undefined);
    this.enter('running');
  }

  enableLogDirty(): Promise<void> {
    return this.call('enableLogDirty', undefined);
  }

  cleanLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.scan(into, true);
  }

  peekLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.scan(into, false);
  }

  disableLogDirty(): Promise<void> {
    return this.call('disableLogDirty', undefined);
  }

  async pageTypes(gfns: Uint32Array, count: number, types: Uint8Array): Promise<void> {
    for (let k = 0; k < count; k++) {
      const gfn = gfns[k] ?? INVALID_FRAME;
      if (gfn === INVALID_FRAME) {
        types[k] = PageType.XTAB;
      } else {
        this.checkFrame(gfn);
        types[k] = PageType.NOTAB;
      }
    }
    return Promise.resolve();
  }

  async copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    this.checkFrames(gfns, count);
    if (offset + count * PAGE_SIZE > slab.length) {
      throw new HypervisorError('FAILED', 'The pages do not fit the slab.', {
        count,
        offset,
        length: slab.length,
      });
    }
    const memory = slab.buffer;
    const at = slab.byteOffset + offset;
    if (memory instanceof SharedArrayBuffer && at % 4 === 0 && memory.byteLength % 4 === 0) {
      const { slab: number, first } = this.nameSlab(memory);
      await this.call('copy', {
        frames: gfns.slice(0, count),
        slab: number,
        offset: at,
        ...(first && { memory }),
      });
    } else {
      await this.copyThroughStaging(gfns, count, slab, offset);
    }
  }

  hvmContext(): Promise<Uint8Array> {
    return this.call('saveContext', undefined);
  }

  hvmParams(): Promise<readonly HvmParam[]> {
    return Promise.resolve([]);
  }

  /** The TSC is part of the context. */
  tscInfo(): Promise<TscInfo> {
    return Promise.resolve({ mode: 0, khz: 0, nsec: 0n, incarnation: 0 });
  }

  cpuPolicy(): Promise<CpuPolicy> {
    return Promise.resolve({ cpuid: new Uint8Array(0), msrs: new Uint8Array(0) });
  }

  async populate(pfns: Uint32Array, count: number, gfns: Uint32Array): Promise<void> {
    this.checkFrames(pfns, count);
    for (let k = 0; k < count; k++) {
      const pfn = pfns[k] ?? INVALID_FRAME;
      this.populated.set(pfn);
      gfns[k] = pfn;
    }
    return Promise.resolve();
  }

  async writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    await this.throughSlots('write', gfns, count, data);
  }

  async comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]> {
    const found = await this.throughSlots('compare', gfns, count, data);
    return found.flatMap((places, batch) => places.map((place) => batch * SLOT_PAGES + place));
  }

  async clearPage(gfn: number): Promise<void> {
    this.checkFrame(gfn);
    this.checkPopulated(gfn);
    await this.call('clear', gfn);
  }

  setHvmContext(context: Uint8Array): Promise<void> {
    return this.call('restoreContext', context.slice());
  }

  setHvmParam(param: HvmParam): Promise<void> {
    return Promise.reject(
      new HypervisorError('UNSUPPORTED', 'An embedded machine has no HVM parameters.', {
        index: param.index,
        value: param.value,
      }),
    );
  }

  setTscInfo(info: TscInfo): Promise<void> {
    if (info.mode === 0) return Promise.resolve();
    return Promise.reject(
      new HypervisorError('UNSUPPORTED', 'An embedded machine knows TSC mode 0 only.', { mode: info.mode }),
    );
  }

  setCpuPolicy(policy: CpuPolicy): Promise<void> {
    if (policy.cpuid.length === 0 && policy.msrs.length === 0) return Promise.resolve();
    return Promise.reject(
      new HypervisorError('UNSUPPORTED', 'An embedded machine has no CPU policy.', {
        cpuid: policy.cpuid.length,
        msrs: policy.msrs.length,
      }),
    );
  }

  private async scan(into: Bitmap, clean: boolean): Promise<DirtyStats> {
    if (into.size !== this.p2mSize) {
      throw new HypervisorError('FAILED', 'The bitmap is not of the domain’s size.', {
        size: into.size,
        p2mSize: this.p2mSize,
      });
    }
    // The bitmap is shared: a scan waits until the one before has been read.
    const scan = this.lastScan.then(async () => {
      const dirtyCount = await this.call('scan', { clean });
      into.words.set(this.dirty.words);
      return { dirtyCount, faultCount: 0 };
    });
    this.lastScan = scan.catch(() => undefined);
    return scan;
  }

  /** The number that the worker knows a slab by, and whether this is the first that it hears of it. */
  private nameSlab(memory: SharedArrayBuffer): { slab: number; first: boolean } {
    const known = this.slabs.get(memory);
    if (known !== undefined) return { slab: known, first: false };
    for (const [oldest, number] of this.slabs) {
      if (this.slabs.size < SLABS_REMEMBERED) break;
      this.slabs.delete(oldest);
      // It fails only if the domain has ended, and then there is nothing to forget.
      this.call('forgetSlab', number).catch(() => undefined);
    }
    const slab = this.nextSlab++;
    this.slabs.set(memory, slab);
    return { slab, first: true };
  }

  private async copyThroughStaging(
    gfns: Uint32Array,
    count: number,
    slab: Uint8Array,
    offset: number,
  ): Promise<void> {
    // The staging memory is taken as a whole: when its slots are free, and until we have read it.
    const before = Promise.allSettled(this.slots);
    const copied = (async () => {
      await before;
      const capacity = SLOT_COUNT * SLOT_PAGES;
      for (let from = 0; from < count; from += capacity) {
        const frames = gfns.slice(from, Math.min(from + capacity, count));
        await this.call('copyToStaging', { frames });
        slab.set(this.staging.subarray(0, frames.length * PAGE_SIZE), offset + from * PAGE_SIZE);
      }
    })();
    for (let slot = 0; slot < SLOT_COUNT; slot++) this.slots[slot] = copied;
    await copied;
  }

  /** Pages on their way to the machine: a slot is filled while the worker empties the one before. */
  private async throughSlots<K extends 'write' | 'compare'>(
    name: K,
    gfns: Uint32Array,
    count: number,
    data: Uint8Array,
  ): Promise<Calls[K]['result'][]> {
    this.checkFrames(gfns, count);
    for (let k = 0; k < count; k++) this.checkPopulated(gfns[k] ?? INVALID_FRAME);
    if (data.length < count * PAGE_SIZE) {
      throw new HypervisorError('FAILED', 'There are fewer pages than frames.', {
        count,
        length: data.length,
      });
    }
    const calls: Promise<Calls[K]['result']>[] = [];
    for (let from = 0; from < count; from += SLOT_PAGES) {
      const pages = Math.min(SLOT_PAGES, count - from);
      const slot = this.nextSlot;
      this.nextSlot = (slot + 1) % SLOT_COUNT;
      const before = this.slots[slot];
      const call = (async () => {
        await before?.catch(() => undefined); // its own caller hears of it
        const first = slot * SLOT_PAGES;
        this.staging.set(data.subarray(from * PAGE_SIZE, (from + pages) * PAGE_SIZE), first * PAGE_SIZE);
        this.stagingFrames.set(gfns.subarray(from, from + pages), first);
        return this.call(name, { slot, count: pages });
      })();
      this.slots[slot] = call;
      calls.push(call);
    }
    // All are settled before the caller has its arrays again, whichever fails.
    await Promise.allSettled(calls);
    return Promise.all(calls);
  }

  private checkFrame(gfn: number): void {
    if (gfn >= this.p2mSize) {
      throw new HypervisorError('FRAME_OUT_OF_RANGE', 'The domain has no such frame.', {
        gfn,
        p2mSize: this.p2mSize,
      });
    }
  }

  private checkFrames(gfns: Uint32Array, count: number): void {
    for (let k = 0; k < count; k++) this.checkFrame(gfns[k] ?? INVALID_FRAME);
  }

  private checkPopulated(gfn: number): void {
    if (!this.populated.has(gfn)) {
      throw new HypervisorError('NOT_POPULATED', 'The frame was never populated.', { gfn });
    }
  }

  private enter(state: DomainState): void {
    // The end may have been heard before the answer to the call.
    if (this.state === 'created' || this.state === 'running' || this.state === 'suspended') {
      this.state = state;
    }
  }

  private call<K extends CallName>(name: K, argument: Calls[K]['argument']): Promise<Calls[K]['result']> {
    if (this.state === 'destroyed' || this.state === 'shutdown' || this.state === 'crashed') {
      return Promise.reject(
        new HypervisorError('DOMAIN_GONE', `The domain is ${this.state}.`, {
          name: this.spec.name,
          call: name,
        }),
      );
    }
    return new Promise((resolve, reject) => {
      const id = this.nextCall++;
      this.pending.set(id, { settle: (message) => resolve(message.result), reject });
      this.worker.postMessage({ id, name, argument } satisfies CallMessage<K>);
    });
  }

  private receive(message: WorkerMessage): void {
    switch (message.kind) {
      case 'ready':
        this.version = message.version;
        this.settleReady?.();
        break;
      case 'refused':
        this.settleReady?.(toError(message.error));
        break;
      case 'result':
        this.take(message.id)?.settle(message);
        break;
      case 'failed':
        this.take(message.id)?.reject(toError(message.error));
        break;
      case 'output':
        this.output$.next(message.bytes);
        break;
      case 'shutdown':
      case 'crashed':
        this.ended(message);
        break;
    }
  }

  private take(id: number): PendingCall | undefined {
    const call = this.pending.get(id);
    this.pending.delete(id);
    return call;
  }

  private ended(event: DomainEvent): void {
    if (this.state === 'destroyed' || this.state === 'shutdown' || this.state === 'crashed') return;
    this.state = event.kind;
    const reason = event.kind === 'crashed' ? event.reason : 'the guest has shut down';
    const error = new HypervisorError('DOMAIN_GONE', `The domain has ended: ${reason}.`, {
      name: this.spec.name,
    });
    this.settleReady?.(new HypervisorError('FAILED', `The machine cannot be made: ${reason}.`));
    this.rejectPending(error);
    this.events$.next(event);
  }

  private rejectPending(error: HypervisorError): void {
    const calls = [...this.pending.values()];
    this.pending.clear();
    for (const call of calls) call.reject(error);
  }
}

function toError(error: ErrorMessage): HypervisorError {
  const options = error.cause === undefined ? undefined : { cause: new Error(error.cause) };
  return new HypervisorError(error.code, error.message, error.facts, options);
}
