// A QEMU domain that is saved. One checkpoint, in time order:
//
//   guest   runs ──────────────┤ stopped                                            ├ runs
//   we      prepareSuspend     │ stop + device state (one write)     copy pages     │ cont
//                              │      └ capture (RAM), meanwhile ┘                  │
//
// Frame numbers are pages of the RAM file. They are the guest's frame numbers up to the hole that the machine type
// leaves below 4 GiB, and dense where the guest's are not.
//
// A guest that ends, ends the domain; QEMU's death is 'crashed'. A guest that somebody else stopped stays stopped
// (run-state.ts), and its device state says so.

import { ReplaySubject, Subject, type Observable } from 'rxjs';
import { monotonicMs } from '../../flow/clock.js';
import { DomainType } from '../../stream/format.js';
import type { Bitmap } from '../bitmap.js';
import {
  HypervisorError,
  failed,
  hasEnded,
  unsupported,
  type DirtyStats,
  type DomainEvent,
  type DomainInfo,
  type DomainState,
  type SourceDomain,
} from '../port.js';
import { withMemory } from './state/device-state.js';
import { FullStates } from './state/full-state.js';
import type { QemuMachine } from './machine.js';
import type { QmpEvent } from './monitor/qmp.js';
import { Pause, type PauseTimes } from './pause.js';
import { GuestRam } from './memory/guest-ram.js';
import { endOf, runStatusOf } from './monitor/run-state.js';
import { RUNNING, setRunState } from './state/state-sections.js';
import { StoppableDomain } from './stops.js';

/** Of somebody else who lets the guest run just when we stop it. */
const STOP_ATTEMPTS = 5;
/** Octets of serial input that may wait. */
const INPUT_BYTES_MAX = 64 * 1024;

export class QemuSource extends StoppableDomain implements SourceDomain {
  readonly output$ = new Subject<Uint8Array>();
  readonly events$ = new ReplaySubject<DomainEvent>(1);
  #state: DomainState = 'created';
  #pause: Pause | null = null;
  #lastPause: PauseTimes | null = null;
  #lastContext: Uint8Array | null = null;
  readonly #ram: GuestRam;
  readonly #fullStates: FullStates;
  /** The state of this pause was asked for. */
  #shipped = false;
  /** All of this pause is captured: whoever lets the guest run now changes nothing of it. */
  #confirmed = false;

  /** `state`: 'created', or what an attached QEMU is doing; `stoppedBy`: though it was found stopped, by this. */
  constructor(
    machine: QemuMachine,
    state: Extract<DomainState, 'created' | 'running'> = 'created',
    stoppedBy: string | null = null,
  ) {
    super(machine, stoppedBy);
    this.#state = state;
    this.#ram = new GuestRam(machine.tracking, machine.memoryBytes);
    this.#fullStates = new FullStates(machine);
    machine.serial?.on('data', (bytes: Buffer) => this.output$.next(bytes));
    machine.qmp.events$.subscribe((event) => this.#hear(event));
    // A guest whose memory is lost is not let go on; where it is a copy, it is none any more.
    void machine.tracking.lost.then(({ message }) => this.#ended({ kind: 'crashed', reason: message }));
    void machine.gone.then((reason) => this.#ended({ kind: 'crashed', reason }));
  }

  get lastPause(): PauseTimes | null {
    return this.#lastPause;
  }

  protected get state(): DomainState {
    return this.#state;
  }

  get stoppedBy$(): Observable<string | null> {
    return this.run.stoppedBy$;
  }

  /** The device state that was given last. */
  protected get lastContext(): Uint8Array | null {
    return this.#lastContext;
  }

  get notes(): readonly string[] {
    const { tracking, trackingReason, disks } = this.machine;
    return [`changed pages are found by ${tracking.way}: ${trackingReason}`, ...disks.notes];
  }

  info(): Promise<DomainInfo> {
    const { major, minor } = this.machine.qmp.version;
    return Promise.resolve({
      name: this.machine.name,
      type: DomainType.X86_HVM,
      p2mSize: this.#ram.frames.size,
      state: this.#state,
      hypervisor: 'qemu',
      versionMajor: major,
      versionMinor: minor,
      inventory: this.machine.inventory,
    });
  }

  /** Kept by the socket until the guest reads it, up to a limit. */
  async input(bytes: Uint8Array): Promise<void> {
    this.requireGuest();
    const { serial } = this.machine;
    if (!serial) throw unsupported('the guest’s serial port is not ours');
    const waiting = serial.writableLength;
    if (waiting + bytes.length > INPUT_BYTES_MAX) {
      const facts = { waiting, length: bytes.length, limit: INPUT_BYTES_MAX };
      throw failed('the domain does not read its serial input', facts);
    }
    serial.write(new Uint8Array(bytes));
    return Promise.resolve();
  }

  /** A QEMU that is not ours goes on, also if it was suspended. */
  destroy(): Promise<void> {
    return this.end('running');
  }

  /** `guest`: how one that is not ours is left. @throws QmpError, or HypervisorError FAILED if it cannot be stopped */
  protected async end(guest: 'running' | 'stopped'): Promise<void> {
    const { guard, qmp } = this.machine;
    const before = this.#state;
    this.staysStopped();
    this.#state = 'destroyed'; // and is not resumed any more by whoever has suspended it
    let isClean = true;
    try {
      if (guard !== null && guest === 'stopped') {
        guard.running(); // it is not to be let run should we die now
        this.run.leaveStopped();
        await qmp.execute('stop');
        isClean = await this.leaveDisks(true);
      } else if (guard !== null) {
        isClean = await this.leaveDisks(before !== 'running');
        if (before === 'suspended' && this.stoppedBy === null) {
          await this.#pause?.settled();
          await qmp.execute('cont').catch(() => undefined); // it may have ended meanwhile
        }
      }
    } finally {
      try {
        await this.disks?.close();
      } finally {
        await this.machine.close(isClean);
        this.output$.complete();
        this.events$.complete();
      }
    }
  }

  start(): Promise<void> {
    return this.stops.do(async () => {
      this.require('created');
      await this.#go();
    });
  }

  async prepareSuspend(): Promise<void> {
    this.requireGuest();
    if (this.#ram.isLogged) await this.machine.tracking.prepare();
  }

  suspend(): Promise<void> {
    return this.stops.do(() => this.#suspend());
  }

  async #suspend(): Promise<void> {
    this.require('running');
    this.#confirmed = false;
    await this.#pause?.settled(); // of a pause that somebody else has ended
    for (let attempts = 1; !(await this.#stop()); attempts++) {
      await this.#dropPause();
      if (attempts === STOP_ATTEMPTS) {
        throw new HypervisorError('WRONG_STATE', 'somebody else lets the domain run whenever it is stopped');
      }
    }
    // What the guest said before it stopped is in the serial socket, and is read in this turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
    this.requireGuest();
    this.#state = 'suspended';
  }

  /**
   * Whether the guest stood still since suspend(). A guest that is let run is told of before it runs: what QEMU had
   * written by the time that all was captured is read here.
   */
  async stoodStill(): Promise<boolean> {
    await this.#pause?.settled();
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    this.requireGuest();
    this.#confirmed = this.#state === 'suspended';
    if (!this.#confirmed) await this.#dropPause();
    return this.#confirmed;
  }

  resume(): Promise<void> {
    return this.stops.do(async () => {
      this.require('suspended');
      await this.#pause?.settled();
      this.require('suspended');
      await this.#go();
    });
  }

  async enableLogDirty(): Promise<void> {
    this.requireGuest();
    await this.#ram.log(() => this.#fullStates.restart());
  }

  beginStream(): Promise<void> {
    this.#fullStates.forget();
    return Promise.resolve();
  }

  async cleanLogDirty(into: Bitmap): Promise<DirtyStats> {
    this.requireGuest();
    return this.#ram.readLog(into, true, this.#pause?.capture);
  }

  async peekLogDirty(into: Bitmap): Promise<DirtyStats> {
    this.requireGuest();
    return this.#ram.readLog(into, false, this.#pause?.capture);
  }

  async disableLogDirty(): Promise<void> {
    this.requireGuest();
    await this.#ram.endLog(this.#pause?.settled());
  }

  async pageTypes(gfns: Uint32Array, count: number, types: Uint8Array): Promise<void> {
    this.#ram.frames.types(gfns, count, types);
    return Promise.resolve();
  }

  async copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    this.requireGuest();
    await this.#ram.copy(gfns, count, slab, offset, this.#pause?.capture);
  }

  /** vCPUs and devices, as xen-save-devices-state writes them. The domain must be suspended. */
  async emulatorContext(): Promise<Uint8Array> {
    this.require('suspended');
    const pause = this.#pause;
    if (!pause) throw new HypervisorError('WRONG_STATE', 'the domain was not suspended by us');
    const { state, memory } = await pause.context;
    this.#shipped = true;
    setRunState(state, this.stoppedBy ?? RUNNING);
    this.#lastContext = state;
    return memory === null ? state : withMemory(state, memory);
  }

  protected require(state: DomainState): void {
    this.requireGuest();
    if (this.#state === state) return;
    const facts = { state: this.#state, needed: state };
    throw new HypervisorError('WRONG_STATE', `the domain is ${this.#state}, not ${state}`, facts);
  }

  protected requireGuest(): void {
    if (!hasEnded(this.#state)) return;
    throw new HypervisorError('DOMAIN_GONE', `the domain is ${this.#state}`, { name: this.machine.name });
  }

  /** Begins a pause. False: somebody else let the guest run meanwhile. */
  async #stop(): Promise<boolean> {
    const { machine } = this;
    if (this.stoppedBy === null) machine.guard?.stopping();
    this.run.stopping();
    this.#shipped = false;
    this.disks?.letThrough();
    try {
      this.#pause = await Pause.begin(machine, this.#ram.isLogged, this.#fullStates);
    } catch (error) {
      this.run.stopFailed();
      this.requireGuest();
      // The stop may only have been late: a guest that stops after all is not left so.
      if (this.run.isToResume) machine.qmp.execute('cont').catch(() => undefined);
      throw error;
    }
    this.run.stopped(this.#pause.before);
    if (this.stoppedBy !== null) machine.guard?.running();
    return !this.run.resumedByOthers;
  }

  /** What was captured in it is nobody's: the next one has to bring all again that this one would have brought. */
  async #dropPause(): Promise<void> {
    await this.#pause?.settled();
    this.#fullStates.forget();
    if (this.stoppedBy !== null) return;
    // Whoever let it run may have been too early: a state that is handed over stops the guest at its end.
    this.run.resuming();
    try {
      await this.machine.qmp.execute('cont');
    } finally {
      this.run.resumed();
    }
  }

  /** The guest runs from here on, unless somebody else stopped it. */
  async #go(): Promise<void> {
    const pause = this.#pause;
    const resuming = monotonicMs();
    this.run.resuming();
    try {
      if (this.run.isToResume) await this.machine.qmp.execute('cont');
    } finally {
      this.run.resumed();
    }
    this.machine.guard?.running();
    // What was taken in a pause that was no checkpoint is to be taken again.
    if (pause && !this.#shipped) this.#fullStates.forget();
    this.#pause = null;
    this.requireGuest();
    this.#state = 'running';
    if (pause) this.#lastPause = pause.times(resuming, monotonicMs());
  }

  #hear(event: QmpEvent): void {
    // A standby that is loaded stops and goes on as QEMU likes.
    if (this.#state !== 'created' && this.run.hear(event) === 'ask') {
      this.machine.qmp.execute('query-status').then(
        (answer) => this.run.told(runStatusOf(answer)),
        () => undefined, // it stands still, for a reason that is not known
      );
    }
    // The guest changes under a checkpoint that is being taken: whoever takes it must not finish it.
    if (this.run.resumedByOthers && this.#state === 'suspended' && !this.#confirmed) this.#state = 'running';
    const end = endOf(event);
    // The last that the guest said is in the serial socket, and comes before the event.
    if (end !== null) setImmediate(() => this.#ended(end));
  }

  #ended(event: DomainEvent): void {
    if (hasEnded(this.#state)) return;
    this.#state = event.kind;
    this.events$.next(event);
  }
}
