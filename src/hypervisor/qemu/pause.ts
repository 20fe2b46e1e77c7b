// One pause of the guest, from the command to stop it until it runs again: what is captured in it, and what took the
// time.
//
//   state before, stop, save the device state (one write)
//              └─ stopped ─┬─ capture RAM ──────┐
//                          └─ device state ─────┴─ copied ─ cont

import { monotonicMs } from '../../flow/clock.js';
import { HypervisorError } from '../port.js';
import type { FullStates } from './state/full-state.js';
import type { QemuMachine } from './machine.js';
import type { QmpClient, QmpCommand } from './monitor/qmp.js';
import { isHandedOver, runStatusOf, type RunStatus } from './monitor/run-state.js';
import { reasonsIn } from './monitor/saveable.js';

/** Milliseconds. */
export interface PauseTimes {
  /** From the command to stop until the guest ran again. */
  readonly total: number;
  readonly stop: number;
  /** From stopped until the image was RAM. */
  readonly capture: number;
  /** From stopped until the device state was here; overlaps the capture. */
  readonly state: number;
  readonly cont: number;
}

export class Pause {
  /** For whoever needs the image. @throws as DirtyTracking.capture() */
  readonly capture: Promise<void>;
  /**
   * The device state, and what there is in memory beside guest RAM, if the stream needs that now.
   * @throws QmpError, HypervisorError FAILED, BAD_CONTEXT, or MACHINE_CHANGED if there can be none any more
   */
  readonly context: Promise<{ readonly state: Uint8Array; readonly memory: Uint8Array | null }>;
  /** What the stop found. */
  readonly before: RunStatus;
  readonly #stoppingAt: number;
  readonly #stoppedAt: number;
  #capturedAt: number;
  #savedAt: number;

  /**
   * Stops the guest, and begins the rest. QEMU may die when it is to save a device that it cannot save. Ours takes none
   * (-only-migratable); any other is asked first, with the stop: somebody may plug one in at any moment.
   * @throws QmpError, HypervisorError FAILED (a stop that is late may happen yet) or DOMAIN_GONE
   */
  static async begin(machine: QemuMachine, logging: boolean, states: FullStates): Promise<Pause> {
    const { qmp, deviceState, guard } = machine;
    deviceState.clear();
    const stoppingAt = monotonicMs();
    const saving: QmpCommand = ['xen-save-devices-state', { filename: deviceState.path, live: false }];
    const third: QmpCommand = guard ? ['query-migrate'] : saving;
    const [before, stop, answer] = qmp.executeAll([['query-status'], ['stop'], third]);
    const save = guard ? saveIfPossible(qmp, answer, saving) : answer;
    save?.catch(() => undefined); // looked at in `context`
    const [status] = await Promise.all([before, stop]);
    return new Pause(machine, { stoppingAt, save, before: runStatusOf(status) }, logging, states);
  }

  private constructor(
    { deviceState, tracking }: QemuMachine,
    begun: { stoppingAt: number; before: RunStatus; save: Promise<unknown> | undefined },
    logging: boolean,
    states: FullStates,
  ) {
    this.before = begun.before;
    this.#stoppingAt = begun.stoppingAt;
    this.#stoppedAt = this.#capturedAt = this.#savedAt = monotonicMs();
    this.context = Promise.resolve(begun.save).then(async () => {
      const state = deviceState.read();
      return { state, memory: await states.memoryBeside(state, isHandedOver(begun.before)) };
    });
    this.capture = logging ? tracking.capture() : Promise.resolve();
    // Their failures are looked at by whoever needs them.
    this.capture.then(() => (this.#capturedAt = monotonicMs())).catch(() => undefined);
    this.context.then(() => (this.#savedAt = monotonicMs())).catch(() => undefined);
  }

  /** What was begun is over, however it went. */
  async settled(): Promise<void> {
    await Promise.allSettled([this.capture, this.context]);
  }

  times(resumingAt: number, runningAt: number): PauseTimes {
    return {
      total: runningAt - this.#stoppingAt,
      stop: this.#stoppedAt - this.#stoppingAt,
      capture: this.#capturedAt - this.#stoppedAt,
      state: this.#savedAt - this.#stoppedAt,
      cont: runningAt - resumingAt,
    };
  }
}

/** `migration`: the answer to query-migrate. */
async function saveIfPossible(qmp: QmpClient, migration: unknown, saving: QmpCommand): Promise<unknown> {
  const reason = reasonsIn(await migration);
  if (reason === null) return qmp.execute(...saving);
  const message = `the state of the guest cannot be saved any more: ${reason}`;
  throw new HypervisorError('MACHINE_CHANGED', message, { reason });
}
