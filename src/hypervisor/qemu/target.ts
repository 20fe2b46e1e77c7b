// A QEMU domain that is restored: memory that checkpoints are written into, the device state of the last one, and a QEMU
// that waits. Device states are loaded on trial while the primary lives, so that what was acknowledged is known to work.
//
//   populate, writePages ─▶ checkpoint(state) ─▶ … ─▶ start:  cont        (see held-checkpoints.ts)
//          ▲                       │
//          └───────────────────────┘
//
// A QEMU that ends is started again on the same memory: only memory that is lost loses the domain ('crashed').

import { BehaviorSubject, EMPTY, Subject, distinctUntilChanged, type Observable } from 'rxjs';
import { asError } from '../../errors.js';
import { DomainType } from '../../stream/format.js';
import { HypervisorError, type DomainEvent, type DomainInfo, type TrialDomain } from '../port.js';
import type { QemuConfig } from './config.js';
import { StandbyDisks } from './disks/standby/standby-disks.js';
import type { TrialDisks } from './disks/standby/trial-disks.js';
import { HeldCheckpoints } from './state/held-checkpoints.js';
import type { QemuMachine } from './machine.js';
import { MemoryCheck } from './memory/memory-check.js';
import { QmpError } from './monitor/qmp.js';
import { resetOf } from './monitor/run-state.js';
import { Seat, factsOf, probe, type Facts, type Occupant, type Seated } from './process/seat.js';
import { StandbyMemory } from './standby-memory.js';
import { TakenOver } from './taken-over.js';
import { trialConfig } from './trial-config.js';
import { openTracking, type ChosenTracking } from './memory/tracking.js';

/** Of QEMUs in a row that were of no use. */
const DEATHS_MAX = 3;
const COLD_NOTE =
  'its disks are in use elsewhere: QEMU is started when the domain is taken over, and nothing is loaded before';
/** A few announcements, a little apart, for switches that were looking away. */
const ANNOUNCEMENT = { initial: 50, max: 550, rounds: 5, step: 100 };

export class QemuTarget extends StandbyMemory implements TrialDomain, Occupant {
  readonly output$ = new Subject<Uint8Array>();
  readonly warnings$ = new Subject<string>();
  readonly stoppedBy$: Observable<string | null>;
  readonly #stoppedBy = new BehaviorSubject<string | null>(null);
  readonly resets$ = new Subject<string>();
  /** Of all memories that the QEMU is for. */
  readonly disks?: StandbyDisks;
  readonly trialDisks?: TrialDisks;
  readonly #config: QemuConfig;
  readonly #seat: Seat;
  readonly #checkpoints: HeldCheckpoints;
  #facts: Facts | null = null;
  #source: TakenOver | null = null;
  #starting = false;
  /** Deaths of its QEMU since one was of use. */
  #deaths = 0;
  readonly #check: MemoryCheck;
  #destroyed: Promise<void> | null = null;

  /** @throws as launchQemu() and openTracking(); nothing is left then */
  static async open(config: QemuConfig, signal?: AbortSignal): Promise<QemuTarget> {
    const disks = await StandbyDisks.of(config);
    const memory = await openTracking(config, { standby: true, signal });
    const target = new QemuTarget(config, new Seat(config, disks), memory);
    try {
      const facts = target.#isCold
        ? await probe(config, target.memory)
        : await factsOf((await target.#seat.claim(target)).machine);
      if (target.#isCold) await disks?.openNow();
      target.#learn(facts);
      return target;
    } catch (error) {
      await target.destroy();
      throw error;
    }
  }

  private constructor(config: QemuConfig, seat: Seat, memory: ChosenTracking, trialDisks?: TrialDisks) {
    super(config, memory);
    this.#config = config;
    this.#seat = seat;
    if (seat.disks) this.disks = seat.disks;
    if (trialDisks) this.trialDisks = trialDisks;
    void seat.disks?.lost.then(({ message }) => this.end({ kind: 'crashed', reason: message }));
    this.stoppedBy$ = this.#stoppedBy.pipe(distinctUntilChanged());
    this.#checkpoints = new HeldCheckpoints(seat, this, {
      pages: this.frames.size,
      loads: config.trialLoads ?? 'auto',
      goesBack: seat.disks === null,
      warn: (warning) => this.warnings$.next(warning),
    });
    this.#checkpoints.current$.subscribe((held) => this.#stoppedBy.next(held.stoppedBy));
    void memory.tracking.lost.then(({ message }) => this.end({ kind: 'crashed', reason: message }));
    this.#check = new MemoryCheck(memory.tracking, ({ message }) =>
      this.end({ kind: 'crashed', reason: message }),
    );
  }

  /** The QEMU that waits, or runs. @throws HypervisorError WRONG_STATE if there is none at the moment */
  get machine(): QemuMachine {
    const seated = this.#seat.of(this);
    if (!seated)
      throw new HypervisorError('WRONG_STATE', 'the standby has no QEMU now', { name: this.#config.name });
    return seated.machine;
  }

  get checkpointsBack(): number {
    return this.#checkpoints.back;
  }

  get notes(): readonly string[] {
    return this.#isCold ? [COLD_NOTE] : [];
  }

  async info(): Promise<DomainInfo> {
    const facts = this.#facts;
    if (!facts) throw new HypervisorError('WRONG_STATE', 'the domain is not made yet');
    if (this.state === 'running' && this.#source) return this.#source.info();
    return Promise.resolve({
      name: this.#config.name,
      type: DomainType.X86_HVM,
      p2mSize: this.frames.size,
      state: this.state,
      hypervisor: 'qemu',
      versionMajor: facts.version.major,
      versionMinor: facts.version.minor,
      inventory: facts.inventory,
    });
  }

  /** Another memory that the same QEMU is for. @throws as openTracking() */
  async another(): Promise<QemuTarget> {
    const target = await this.#beside(this.#config, this.#seat);
    this.disks?.share();
    return target;
  }

  /** Another memory, and another QEMU. @throws as trialConfig(), StandbyDisks.forTrial() and open() */
  async trial(signal: AbortSignal): Promise<QemuTarget> {
    if (!this.disks) return QemuTarget.open(trialConfig(this.#config), signal);
    const trialDisks = await this.disks.forTrial();
    try {
      const config = trialConfig(this.#config, trialDisks.places);
      return await this.#beside(config, new Seat(config, null), { signal, trialDisks });
    } catch (error) {
      await trialDisks.end();
      throw error;
    }
  }

  input(bytes: Uint8Array): Promise<void> {
    return this.#running((source) => source.input(bytes));
  }

  beginLast(): void {
    this.#checkpoints.giveUpWayBack();
  }

  /**
   * A checkpoint is complete in memory, and this is its device state: it may be loaded on trial, and the first one is.
   * @throws HypervisorError BAD_CONTEXT if QEMU does not take it; the domain is then as of `checkpointsBack`
   * checkpoints before, if there is a way back
   */
  checkpoint(context: Uint8Array, isTrial = false): Promise<void> {
    return this.work.do(async () => {
      this.requireCreated();
      const held = await this.#checkpoints.accept(context);
      if (!this.#isCold && (isTrial || this.#checkpoints.isTrialDue)) await this.#checkpoints.try(held);
    });
  }

  lastCheckpoint(): Uint8Array {
    return this.#checkpoints.whole();
  }

  /**
   * The device state to start from.
   * @throws HypervisorError BAD_CONTEXT if it is none; whether QEMU takes it shows at the start
   */
  setEmulatorContext(context: Uint8Array): Promise<void> {
    return this.work.do(async () => {
      this.requireCreated();
      const held = await this.#checkpoints.accept(context);
      if (this.#isCold || this.#checkpoints.isLoaded(held)) return;
      // Done now it need not be done then.
      await this.#checkpoints.load(held).catch((error: unknown) => {
        this.warnings$.next(`the last checkpoint could not be loaded ahead: ${asError(error).message}`);
      });
    });
  }

  /**
   * Takes over. If it fails, the domain is as it was and can be started again; unless it may have run for a moment: then
   * it has crashed (DOMAIN_GONE).
   */
  start(): Promise<void> {
    return this.work.do(async () => {
      this.requireCreated();
      this.#starting = true; // its QEMU is not for others from here on
      try {
        const seated = await this.#checkpoints.readyToRun();
        await this.disks?.taken();
        await this.#run(seated);
      } finally {
        this.#starting = false;
      }
    });
  }

  source(): TakenOver {
    const source = this.#source;
    if (!source) {
      this.requireAlive();
      throw notRunning();
    }
    source.beWatched();
    return source;
  }

  suspend(): Promise<void> {
    return this.#running((source) => source.suspend());
  }

  resume(): Promise<void> {
    return this.#running((source) => source.resume());
  }

  async announce(): Promise<void> {
    await this.machine.qmp.execute('announce-self', ANNOUNCEMENT);
  }

  destroy(): Promise<void> {
    this.#destroyed ??= this.#destroy();
    return this.#destroyed;
  }

  loaded(): void {
    this.#deaths = 0;
  }

  ended(reason: string): void {
    if (this.state !== 'created') return; // the source tells of the end of its QEMU
    this.warnings$.next(`the QEMU that stood by has ended: ${reason}`);
    this.#deaths++;
    if (this.#deaths <= DEATHS_MAX)
      this.#seat.claim(this).catch((error: unknown) => this.missed(asError(error)));
    // It is started again when it is needed, if there is something to start it for.
    else if (this.#checkpoints.current === null) this.end({ kind: 'crashed', reason });
  }

  get stays(): boolean {
    return this.#starting || this.state === 'running';
  }

  missed(error: Error): void {
    if (this.state !== 'created') return;
    if (this.#checkpoints.current === null) this.end({ kind: 'crashed', reason: error.message });
    else this.warnings$.next(`no QEMU stands by, it is tried again at the takeover: ${error.message}`);
  }

  /** Its disks are not there before it starts. */
  get #isCold(): boolean {
    return this.trialDisks !== undefined || (this.#config.sharedDisks ?? []).length > 0;
  }

  async #beside(
    config: QemuConfig,
    seat: Seat,
    { signal, trialDisks }: { signal?: AbortSignal; trialDisks?: TrialDisks } = {},
  ): Promise<QemuTarget> {
    const memory = await openTracking(config, { standby: true, signal });
    const target = new QemuTarget(config, seat, memory, trialDisks);
    if (this.#facts) target.#learn(this.#facts);
    return target;
  }

  #learn(facts: Facts): void {
    this.#facts = facts;
    this.reset.learn(facts.resetFrames);
  }

  protected seatSettled(): Promise<void> {
    return this.#seat.settled();
  }

  protected async beforeWrite(gfns: Uint32Array, count: number): Promise<void> {
    this.#seat.of(this)?.loader.forget();
    await this.#checkpoints.writing(gfns, count);
  }

  #running(work: (source: TakenOver) => Promise<void>): Promise<void> {
    if (this.#source) return work(this.#source);
    return Promise.reject(notRunning());
  }

  async #run(seated: Seated): Promise<void> {
    const { machine, loader } = seated;
    const told = { stoppedBy: this.#stoppedBy.value, warnings$: this.disks?.warnings$ ?? EMPTY };
    const source = new TakenOver({ ...seated, ...told, owner: this });
    const heard = source.output$.subscribe((bytes) => this.output$.next(bytes));
    try {
      await source.start();
    } catch (error) {
      heard.unsubscribe();
      await this.#seat.clear(this);
      // It said no: it has not run. Else nobody knows.
      if (error instanceof QmpError) throw error;
      const reason = `the standby ended while it took over: ${await machine.gone}`;
      this.end({ kind: 'crashed', reason });
      throw new HypervisorError('DOMAIN_GONE', reason, {}, { cause: error });
    }
    this.#source = source;
    if (this.state === 'created') this.state = 'running'; // else destroy() waits for us, and ends it
    this.#check.end();
    this.#checkpoints.end();
    loader.tidy().catch((error: unknown) => this.warnings$.next(`a job is left: ${asError(error).message}`));
    source.events$.subscribe((event) => this.end(event));
    machine.qmp.events$.subscribe((event) => {
      const reset = resetOf(event);
      if (reset !== null) this.resets$.next(reset);
    });
    source.stoppedBy$.subscribe((stoppedBy) => this.#stoppedBy.next(stoppedBy));
  }

  async #destroy(): Promise<void> {
    this.#check.end();
    this.state = 'destroyed';
    // It is not told that its memory is gone: it ends before.
    const closed = this.#source?.close();
    // Who waits for memory that does not answer would wait for ever.
    this.memory.tracking.abandon();
    await closed;
    await this.work.settled();
    await this.#source?.close();
    await this.#seat.vacate(this).finally(() => this.trialDisks?.end());
    await this.memory.tracking.close();
    await this.disks?.leave();
    this.output$.complete();
    this.warnings$.complete();
    this.resets$.complete();
    this.#stoppedBy.complete();
    this.events$.complete();
  }

  protected override end(event: DomainEvent): void {
    super.end(event);
    this.#check.end();
  }
}

function notRunning(): HypervisorError {
  return new HypervisorError('WRONG_STATE', 'the domain does not run yet');
}
