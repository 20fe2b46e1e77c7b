// A QEMU domain that is stopped now and then: for a checkpoint (source.ts), or for something to be done to its machine, for
// which it must stand still, as to its disks. One stop at a time, and nothing lets the guest run in the midst of it.

import { tmpdir } from 'node:os';
import { EMPTY, catchError, concatMap, defer, interval, switchMap, type Subscription } from 'rxjs';
import { InOrder } from '../../flow/in-order.js';
import type { DomainState } from '../port.js';
import type { InPause } from './disks/mirror.js';
import { QemuDisks } from './disks/qemu-disks.js';
import type { QemuMachine } from './machine.js';
import { RunState, runStatusOf } from './monitor/run-state.js';
import { DeviceStateAlone } from './state/device-state.js';

/** A disk that was full, or failed, may be well again. */
const TRY_AGAIN_MS = 5000;

export abstract class StoppableDomain extends DeviceStateAlone {
  readonly machine: QemuMachine;
  readonly disks?: QemuDisks;
  protected readonly run: RunState;
  /** Stops of the guest, and what ends them. */
  protected readonly stops = new InOrder();
  readonly #goingOn: Subscription;

  protected constructor(machine: QemuMachine, stoppedBy: string | null) {
    super();
    this.machine = machine;
    this.run = new RunState(stoppedBy);
    this.#goingOn = this.#goOnAfterErrors();
    const { qmp, directory, monitor, replication } = machine;
    const { disks } = machine.disks;
    if (disks.length === 0) return;
    const inPause: InPause = (work) => this.inPause(work);
    const where = { directory: directory ?? tmpdir(), monitor };
    this.disks = new QemuDisks({ ...replication, ...where, qmp, disks, inPause });
  }

  protected abstract get state(): DomainState;
  protected abstract requireGuest(): void;

  protected get stoppedBy(): string | null {
    return this.run.stoppedBy;
  }

  /** Does something for which the guest stands still: it is stopped for that, unless it is already. */
  protected inPause<T>(work: () => Promise<T>): Promise<T> {
    return this.stops.do(() => {
      this.requireGuest();
      return this.state === 'running' ? whileStopped(this.machine, this.run, work) : work();
    });
  }

  /** It is let run by nobody any more. */
  protected staysStopped(): void {
    this.#goingOn.unsubscribe();
  }

  /**
   * A guest that QEMU stops, since its disk has failed (as it does where it is full), asks its disk again when it is let
   * run. A QEMU of ours has nobody else who could do that; also on the host that takes it over, whose disk may be well.
   */
  #goOnAfterErrors(): Subscription {
    const { guard, qmp } = this.machine;
    const tried$ = defer(() =>
      this.stops.do(async () => {
        if (this.state === 'running' && this.stoppedBy === 'io-error') await qmp.execute('cont');
      }),
    ).pipe(catchError(() => EMPTY)); // it has ended, or is asked again
    return this.run.stoppedBy$
      .pipe(
        switchMap((stoppedBy) =>
          guard === null && stoppedBy === 'io-error'
            ? interval(TRY_AGAIN_MS).pipe(concatMap(() => tried$))
            : EMPTY,
        ),
      )
      .subscribe();
  }

  /** Of a guest that goes on without us. False: something of ours is left in its QEMU. */
  protected async leaveDisks(standsStill: boolean): Promise<boolean> {
    const inPause: InPause = (work) => (standsStill ? work() : whileStopped(this.machine, this.run, work));
    try {
      await this.disks?.detach(inPause);
      return true;
    } catch {
      return false; // its guard tries it, too
    }
  }
}

/**
 * Does the work, and lets the guest run again, unless somebody else has stopped it.
 * @throws HypervisorError FAILED (a stop that is late does not leave it stopped) or DOMAIN_GONE; what `work` throws
 */
export async function whileStopped<T>(
  { qmp, guard }: Pick<QemuMachine, 'qmp' | 'guard'>,
  run: RunState,
  work: () => Promise<T>,
): Promise<T> {
  if (run.stoppedBy === null) guard?.stopping();
  run.stopping();
  try {
    const [before] = await Promise.all(qmp.executeAll([['query-status'], ['stop']]));
    run.stopped(runStatusOf(before));
    if (run.stoppedBy !== null) guard?.running();
  } catch (error) {
    run.stopFailed();
    if (run.isToResume) qmp.execute('cont').catch(() => undefined);
    throw error;
  }
  try {
    return await work();
  } finally {
    run.resuming();
    try {
      if (run.isToResume) await qmp.execute('cont');
    } finally {
      run.resumed();
      guard?.running();
    }
  }
}
