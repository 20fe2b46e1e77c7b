// The domain's side of an embedded machine: the port's calls, turned into messages to the worker that the machine lives
// in. A target is a domain that was created empty; once started it is a domain like any other, and can be protected
// again.

import { Worker } from 'node:worker_threads';
import { ReplaySubject, Subject } from 'rxjs';
import { asError } from '../../errors.js';
import { InOrder } from '../../flow/in-order.js';
import { DomainType, PAGE_SIZE } from '../../stream/format.js';
import { Bitmap } from '../bitmap.js';
import { FlatFrames } from '../frames.js';
import { requireHostMemory } from '../host-memory.js';
import {
  HypervisorError,
  failed,
  hasEnded,
  unsupported,
  type CpuPolicy,
  type DirtyStats,
  type DomainEvent,
  type DomainInfo,
  type DomainState,
  type HvmParam,
  type SourceDomain,
  type TrialDomain,
  type TscInfo,
} from '../port.js';
import type { MachineSpec } from './config.js';
import { EmbeddedDisks } from './disks.js';
import { DISK_FIGURES } from './machine-disk.js';
import {
  SLOT_COUNT,
  SLOT_PAGES,
  WorkerCalls,
  errorOf,
  type CallName,
  type SharedMemory,
  type WorkerMessage,
  type WorkerStart,
} from './messages.js';
import { PageTransfer } from './page-transfer.js';

export class EmbeddedDomain implements SourceDomain, TrialDomain {
  readonly output$ = new Subject<Uint8Array>();
  readonly events$ = new ReplaySubject<DomainEvent>(1);

  readonly disks?: EmbeddedDisks;
  readonly trialDisks?: NonNullable<TrialDomain['trialDisks']>;
  /** The machine's thread. Its end is the domain's. */
  readonly worker: Worker;
  readonly #spec: MachineSpec;
  readonly #calls: WorkerCalls;
  readonly #frames: FlatFrames;
  readonly #pages: PageTransfer;
  readonly #dirty: Bitmap;
  readonly #scans = new InOrder();
  readonly #ready: Promise<void>;
  /** The first call counts. */
  #settleReady: (error?: HypervisorError) => void = () => undefined;
  #state: DomainState = 'created';
  #hasRun = false;
  #version = '0.0';
  #terminated: Promise<unknown> | null = null;

  /** `tried`: whose trial this is. Resolves when the machine is made. @throws HypervisorError BAD_CONFIGURATION or FAILED */
  static async open(spec: MachineSpec, tried: EmbeddedDomain | null = null): Promise<EmbeddedDomain> {
    const domain = new EmbeddedDomain(spec, tried);
    try {
      await domain.#ready;
    } catch (error) {
      await domain.destroy();
      throw error;
    }
    return domain;
  }

  private constructor(spec: MachineSpec, tried: EmbeddedDomain | null) {
    this.#spec = spec;
    this.#frames = new FlatFrames(spec.memoryBytes / PAGE_SIZE, { empty: spec.empty });
    this.#dirty = new Bitmap(this.#frames.size, { shared: true });
    const shared: SharedMemory = {
      staging: new SharedArrayBuffer(SLOT_COUNT * SLOT_PAGES * PAGE_SIZE),
      frames: new SharedArrayBuffer(SLOT_COUNT * SLOT_PAGES * 4),
      bitmap: this.#dirty.words.buffer as SharedArrayBuffer, // asked for with `shared`
      figures: new SharedArrayBuffer(DISK_FIGURES * Float64Array.BYTES_PER_ELEMENT),
    };
    this.#ready = new Promise((resolve, reject) => {
      this.#settleReady = (error) => (error ? reject(error) : resolve());
    });
    const worker = this.#startWorker(shared);
    this.worker = worker;
    this.#calls = new WorkerCalls(
      (message, handedOver) => worker.postMessage(message, handedOver),
      (name) => this.#refusal(name),
    );
    if (spec.diskBytes > 0) {
      const disks = (this.disks = new EmbeddedDisks(spec.diskBytes, this.#calls, shared.figures));
      const from = tried?.disks;
      if (from) this.trialDisks = { take: () => disks.take(from), confirm: () => Promise.resolve() };
    }
    this.#pages = new PageTransfer(this.#calls, shared);
  }

  info(): Promise<DomainInfo> {
    const [major, minor] = this.#version.split('.');
    return Promise.resolve({
      name: this.#spec.name,
      type: DomainType.X86_HVM,
      p2mSize: this.#frames.size,
      state: this.#state,
      hypervisor: 'embedded',
      versionMajor: Number(major),
      versionMinor: Number(minor),
    });
  }

  input(bytes: Uint8Array): Promise<void> {
    return this.#calls.call('input', bytes.slice());
  }

  async destroy(): Promise<void> {
    if (!this.#terminated) {
      this.#state = 'destroyed';
      const gone = new HypervisorError('DOMAIN_GONE', 'the domain was destroyed', { name: this.#spec.name });
      this.#settleReady(gone);
      this.#calls.rejectAll(gone);
      this.#terminated = this.worker.terminate();
    }
    await this.#terminated;
    this.output$.complete();
    this.events$.complete();
  }

  async start(): Promise<void> {
    await this.#calls.call('start', undefined);
    this.#enter('running');
    this.#hasRun = true;
  }

  source(): this {
    if (this.#hasRun) return this;
    const facts = { name: this.#spec.name, state: this.#state };
    const code = hasEnded(this.#state) ? 'DOMAIN_GONE' : 'WRONG_STATE';
    throw new HypervisorError(code, `the domain is ${this.#state}, and has not run`, facts);
  }

  async suspend(): Promise<void> {
    await this.#calls.call('suspend', undefined);
    this.#enter('suspended');
  }

  async resume(): Promise<void> {
    await this.#calls.call('resume', undefined);
    this.#enter('running');
  }

  enableLogDirty(): Promise<void> {
    return this.#calls.call('enableLogDirty', undefined);
  }

  cleanLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.#scan(into, true);
  }

  peekLogDirty(into: Bitmap): Promise<DirtyStats> {
    return this.#scan(into, false);
  }

  disableLogDirty(): Promise<void> {
    return this.#calls.call('disableLogDirty', undefined);
  }

  async pageTypes(gfns: Uint32Array, count: number, types: Uint8Array): Promise<void> {
    this.#frames.types(gfns, count, types);
    return Promise.resolve();
  }

  async copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    this.#frames.checkRead(gfns, count, slab, offset);
    await this.#pages.copy(gfns, count, slab, offset);
  }

  hvmContext(): Promise<Uint8Array> {
    return this.#calls.call('saveContext', undefined);
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
    this.#frames.populate(pfns, count, gfns);
    return Promise.resolve();
  }

  async writePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    this.#frames.checkWrite(gfns, count, data);
    await this.#pages.through('write', gfns, count, data);
  }

  async comparePages(gfns: Uint32Array, count: number, data: Uint8Array): Promise<readonly number[]> {
    this.#frames.checkWrite(gfns, count, data);
    const found = await this.#pages.through('compare', gfns, count, data);
    return found.flatMap((places, batch) => places.map((place) => batch * SLOT_PAGES + place));
  }

  async clearPage(gfn: number): Promise<void> {
    this.#frames.checkPopulated(Uint32Array.of(gfn), 1);
    await this.#calls.call('clear', gfn);
  }

  /** Its disks are copies in memory, and it has no network. @throws HypervisorError OUT_OF_MEMORY, or as open() */
  async trial(): Promise<EmbeddedDomain> {
    const { name, memoryBytes, diskBytes } = this.#spec;
    requireHostMemory(memoryBytes + diskBytes, 'a trial of the domain');
    return EmbeddedDomain.open({ ...this.#spec, name: `${name}-trial`, empty: true }, this);
  }

  setHvmContext(context: Uint8Array): Promise<void> {
    return this.#calls.call('restoreContext', context.slice());
  }

  setHvmParam({ index, value }: HvmParam): Promise<void> {
    return Promise.reject(unsupported('an embedded machine has no HVM parameters', { index, value }));
  }

  setTscInfo({ mode }: TscInfo): Promise<void> {
    if (mode === 0) return Promise.resolve();
    return Promise.reject(unsupported('an embedded machine knows TSC mode 0 only', { mode }));
  }

  setCpuPolicy({ cpuid, msrs }: CpuPolicy): Promise<void> {
    if (cpuid.length === 0 && msrs.length === 0) return Promise.resolve();
    const facts = { cpuid: cpuid.length, msrs: msrs.length };
    return Promise.reject(unsupported('an embedded machine has no CPU policy', facts));
  }

  async #scan(into: Bitmap, clean: boolean): Promise<DirtyStats> {
    this.#frames.checkBitmap(into);
    // The bitmap is shared: a scan waits until the one before has been read.
    return this.#scans.do(async () => {
      const dirtyCount = await this.#calls.call('scan', { clean });
      into.words.set(this.#dirty.words);
      return { dirtyCount, faultCount: 0 };
    });
  }

  #startWorker(shared: SharedMemory): Worker {
    // v86 writes to the console; that is not this program's output.
    const worker = new Worker(new URL('./worker.js', import.meta.url), {
      name: `domain ${this.#spec.name}`,
      workerData: { spec: this.#spec, shared } satisfies WorkerStart,
      execArgv: [], // the program's own (--input-type, --inspect, …) are not for this thread
      stdout: true,
      stderr: true,
    });
    worker.stdout.resume();
    worker.stderr.resume();
    worker.on('message', (message: WorkerMessage) => this.#receive(message));
    worker.on('error', (error) => this.#ended({ kind: 'crashed', reason: asError(error).message }));
    worker.on('messageerror', (error) => this.#ended({ kind: 'crashed', reason: error.message }));
    worker.on('exit', (code) =>
      this.#ended({ kind: 'crashed', reason: `the machine's thread ended with code ${code}` }),
    );
    return worker;
  }

  #refusal(call: CallName): HypervisorError | null {
    if (!hasEnded(this.#state)) return null;
    const facts = { name: this.#spec.name, call };
    return new HypervisorError('DOMAIN_GONE', `the domain is ${this.#state}`, facts);
  }

  #enter(state: DomainState): void {
    // The end may have been heard before the answer to the call.
    if (!hasEnded(this.#state)) this.#state = state;
  }

  #receive(message: WorkerMessage): void {
    switch (message.kind) {
      case 'ready':
        this.#version = message.version;
        this.disks?.ready(message.isDiskBlank);
        this.#settleReady();
        break;
      case 'refused':
        this.#settleReady(errorOf(message.error));
        break;
      case 'result':
      case 'failed':
        this.#calls.answered(message);
        break;
      case 'output':
        this.output$.next(message.bytes);
        break;
      case 'pressure':
        this.disks?.pressed();
        break;
      case 'shutdown':
      case 'crashed':
        this.#ended(message);
        break;
    }
  }

  #ended(event: DomainEvent): void {
    if (hasEnded(this.#state)) return;
    this.#state = event.kind;
    const reason = event.kind === 'crashed' ? event.reason : 'the guest has shut down';
    const facts = { name: this.#spec.name };
    const error = new HypervisorError('DOMAIN_GONE', `the domain has ended: ${reason}`, facts);
    this.#settleReady(failed(`the machine cannot be made: ${reason}`));
    this.#calls.rejectAll(error);
    this.events$.next(event);
  }
}
