// Output commit for one network interface, with two of QEMU's filter-buffers on its netdev, and a valve. Frames that the
// guest sends pass the one created last first:
//
//   guest ─▶ │ open: this epoch │ ─▶ │ sealed: until acknowledged │ ─▶ │ valve: to nowhere │ ─▶ world
//
// A filter-buffer lets out what it holds when it is switched off: the open one at the seal (into the other one), the
// sealed one at the release. There are two, so a seal that comes before the release of the one before moves nothing: its
// epoch joins the next one. (Joined with the one before, that would have to wait for the later acknowledgement, and where
// seals always come first nothing would ever leave.)
//
// A filter-buffer also opens by itself, when its timer has run for INTERVAL_US of guest time (4000 seconds) without its
// being switched: then nobody has released anything for so long, and maybe nobody ever will, because the guest runs
// elsewhere. The valve is a redirector to a null device, switched off for a release only: what comes to it then is lost,
// as frames may be.
//
// Calls take effect one after another, and a test of the gate on the running guest has its place among them. Discarding
// waits for nothing. Nothing is counted: QEMU does not say how much a filter holds.
//
//   hold ─▶ [test] ─▶ seal ─▶ release ─▶ …
//
// The gate of a domain that was taken over to passes at first. It is tested when it is told to hold, before that is done.

import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from '../../../flow/clock.js';
import { InOrder } from '../../../flow/in-order.js';
import type { OutputGate } from '../../../output/gate.js';
import { badConfiguration, failed, type HypervisorError } from '../../port.js';
import { QmpError, type QmpClient, type QmpCommand } from '../monitor/qmp.js';
import type { DeviceStateFile } from '../state/device-state.js';

/** The largest that the property takes, roughly. */
const INTERVAL_US = 4_000_000_000;
/** How long the self-test gives a frame that must not come, and one that must. */
const SELF_TEST_QUIET_MS = 30;
const SELF_TEST_TIMEOUT_MS = 5000;
/** A capture file with no frame in it. */
const CAPTURE_HEADER_BYTES = 24;

/** See selfTest(). */
export type GateTest = (capture: DeviceStateFile) => Promise<void>;

/** Runs the test of a gate that holds. False: it could not be tested now. @throws as the test */
export type FirstHold = (test: GateTest) => Promise<boolean>;

export class NetdevGate implements OutputGate {
  readonly heldBytes = 0;
  readonly emittedBytes = 0;
  readonly releasedBytes = 0;
  readonly netdev: string;
  /** The filters were there, left by an agent before us. */
  readonly takenOver: boolean;
  readonly #qmp: QmpClient;
  readonly #ids: ReturnType<typeof idsOf>;
  readonly #order = new InOrder();
  #mode: 'holding' | 'passing' | 'discarded' = 'holding';
  #discarded: Promise<void> | null = null;
  #firstHold: FirstHold | null = null;
  #tested: Promise<unknown> = Promise.resolve();
  /** Holding, but not all filters are known to be closed. */
  #leaky = false;
  /** The epoch in the sealed filter, with those before it; null: what is in it, if anything, belongs to the open epoch. */
  #sealed: number | null = null;

  /**
   * Puts the filters on a netdev, holding. Filters that an agent before us left are taken over with what they hold.
   * `intervalUs`, guest time: when what nobody releases is lost.
   * @throws HypervisorError BAD_CONFIGURATION if there is no such netdev, or one that bypasses QEMU (vhost)
   */
  static async open(qmp: QmpClient, netdev: string, intervalUs = INTERVAL_US): Promise<NetdevGate> {
    const ids = idsOf(netdev);
    const buffer = { 'qom-type': 'filter-buffer', netdev, queue: 'rx', interval: intervalUs };
    const valve = { 'qom-type': 'filter-redirector', netdev, queue: 'rx', outdev: ids.valve };
    const nowhere = { id: ids.valve, backend: { type: 'null', data: {} } };
    const steps: { readonly make: QmpCommand; readonly undo: QmpCommand }[] = [
      { make: ['chardev-add', nowhere], undo: ['chardev-remove', { id: ids.valve }] },
      // The valve and the sealed one first: other creation orders let frames out early.
      { make: ['object-add', { ...valve, id: ids.valve }], undo: removal(ids.valve) },
      { make: ['object-add', { ...buffer, id: ids.sealed }], undo: removal(ids.sealed) },
      { make: ['object-add', { ...buffer, id: ids.open }], undo: removal(ids.open) },
    ];
    const made: QmpCommand[] = [];
    let takenOver = false;
    for (const { make, undo } of steps) {
      try {
        await qmp.execute(...make);
        made.unshift(undo);
      } catch (error) {
        if (!(error instanceof QmpError)) throw error;
        if (/duplicate|attempt to add|already exists/i.test(error.description)) {
          takenOver = true;
          continue;
        }
        // In its turn each: a device that a filter uses cannot be removed.
        for (const [command, argument] of made) await qmp.execute(command, argument);
        const message = `the output of netdev ${netdev} cannot be held: ${error.description}`;
        throw badConfiguration(message, { netdev }, error);
      }
    }
    const gate = new NetdevGate(qmp, netdev, takenOver);
    if (takenOver) {
      // The agent before us may have been killed in its test; if not, QEMU refuses.
      await gate.#endSelfTest().catch((error: unknown) => {
        if (!(error instanceof QmpError)) throw error;
      });
      // They may have been left passing, or the cable unplugged.
      await gate.#run([
        status(ids.valve, 'on'),
        status(ids.sealed, 'on'),
        status(ids.open, 'on'),
        ['set_link', { name: netdev, up: true }],
      ]);
    }
    return gate;
  }

  private constructor(qmp: QmpClient, netdev: string, takenOver: boolean) {
    this.#qmp = qmp;
    this.netdev = netdev;
    this.takenOver = takenOver;
    this.#ids = idsOf(netdev);
  }

  /** @throws HypervisorError FAILED if the gate could not be closed */
  seal(epoch: number): Promise<void> {
    return this.#order.do(async () => {
      if (this.#mode !== 'holding') return;
      const { netdev } = this;
      if (this.#leaky) {
        const message = `the output of netdev ${netdev} is not held: its filters could not be closed`;
        throw failed(message, { netdev });
      }
      if (this.#sealed !== null) return;
      this.#sealed = epoch;
      await this.#run(toggle(this.#ids.open));
    });
  }

  release(epoch: number): Promise<void> {
    return this.#order.do(async () => {
      if (this.#mode !== 'holding' || this.#sealed === null || this.#sealed > epoch) return;
      this.#sealed = null;
      await this.#run(this.#letOut());
    });
  }

  discard(): Promise<void> {
    this.#mode = 'discarded';
    this.#firstHold = null; // nothing leaves any more: there is nothing to see
    // What leaves a filter from now on finds the cable unplugged.
    this.#discarded ??= this.#run([['set_link', { name: this.netdev, up: false }]]);
    return this.#discarded;
  }

  pass(): Promise<void> {
    return this.#order.do(() => this.#pass());
  }

  /** @throws HypervisorError FAILED if it is not safe (see testAtHold) */
  hold(): Promise<void> {
    const held = this.#order.do(async () => {
      await this.#hold();
      if (await this.#firstHold?.((capture) => this.#test(capture))) this.#firstHold = null;
    });
    if (this.#firstHold !== null) this.#tested = held.catch(() => undefined); // told to the caller
    return held;
  }

  /** It passes, and is to be tested in its next hold(), or else in the first one in which that works and goes well. */
  testAtHold(firstHold: FirstHold): void {
    this.#firstHold = firstHold;
  }

  /** Resolves when a hold() that was called is done with its test: the guest is not to be stopped before. */
  async tested(): Promise<void> {
    await this.#tested;
  }

  restart(): Promise<void> {
    return this.#order.do(async () => {
      this.#sealed = null;
      return Promise.resolve();
    });
  }

  /** Takes the filters away: what they hold leaves, and all that comes. For good. */
  remove(): Promise<void> {
    // The open one first: what it holds passes the sealed one.
    const { valve, open, sealed } = this.#ids;
    const commands: QmpCommand[] = [...[valve, open, sealed].map(removal), ['chardev-remove', { id: valve }]];
    return this.#order.do(() => this.#run(commands));
  }

  /**
   * Sends a frame (an announcement of the guest's address, harmless) through the gate, and watches behind it that it
   * leaves at the release and not before. The guest runs, and no epoch is sealed; a gate that passes holds for it.
   * `capture` is a file that QEMU may write. A gate that was taken over releases nothing: a secondary may run on from
   * before what it holds.
   * @throws HypervisorError FAILED if a frame came early or not at all
   */
  selfTest(capture: DeviceStateFile): Promise<void> {
    return this.#order.do(async () => {
      const passing = this.#mode === 'passing' || this.#leaky; // leaky: it did not get as far as holding
      if (passing) await this.#hold();
      try {
        await this.#test(capture);
      } finally {
        if (passing) await this.#pass();
      }
    });
  }

  async #pass(): Promise<void> {
    if (this.#mode !== 'holding') return;
    this.#mode = 'passing';
    this.#sealed = null;
    const { valve, sealed, open } = this.#ids;
    await this.#run([valve, sealed, open].map((id) => status(id, 'off')));
  }

  async #hold(): Promise<void> {
    if (this.#mode === 'passing') {
      this.#mode = 'holding';
      this.#leaky = true;
    }
    if (this.#mode !== 'holding' || !this.#leaky) return;
    const { valve, sealed, open } = this.#ids;
    await this.#run([sealed, open, valve].map((id) => status(id, 'on')));
    this.#leaky = false;
  }

  async #test(capture: DeviceStateFile): Promise<void> {
    const { netdev } = this;
    const fail = (message: string): HypervisorError =>
      failed(`the output of netdev ${netdev} is not safe: ${message}`, { netdev });
    capture.clear();
    await this.#qmp.execute('object-add', {
      'qom-type': 'filter-dump',
      id: this.#watcherId,
      netdev,
      queue: 'rx',
      file: capture.path,
      position: 'head', // frames of the guest meet it last
    });
    try {
      await this.#qmp.execute('announce-self', { initial: 1, max: 1, rounds: 1, step: 1 });
      await sleep(SELF_TEST_QUIET_MS);
      if (capture.size > CAPTURE_HEADER_BYTES) throw fail('a frame left before its epoch was sealed');
      await this.#run(toggle(this.#ids.open));
      await sleep(SELF_TEST_QUIET_MS);
      if (capture.size > CAPTURE_HEADER_BYTES) throw fail('a frame left before its epoch was released');
      if (this.takenOver) return;
      await this.#run(this.#letOut());
      const limit = monotonicMs() + SELF_TEST_TIMEOUT_MS;
      while (capture.size <= CAPTURE_HEADER_BYTES) {
        if (monotonicMs() > limit) throw fail('a frame did not leave when it was released');
        await sleep(1);
      }
    } finally {
      await this.#endSelfTest();
    }
  }

  get #watcherId(): string {
    return `romulus-${this.netdev}-watch`;
  }

  async #endSelfTest(): Promise<void> {
    await this.#run([removal(this.#watcherId)]);
  }

  #letOut(): QmpCommand[] {
    const { valve, sealed } = this.#ids;
    return [status(valve, 'off'), ...toggle(sealed), status(valve, 'on')];
  }

  async #run(commands: readonly QmpCommand[]): Promise<void> {
    await Promise.all(this.#qmp.executeAll(commands));
  }
}

/** What somebody types into QEMU's monitor to undo a netdev's discard(), and then its filters. */
export function undoingOf(netdev: string): string {
  const { valve, open, sealed } = idsOf(netdev);
  return [
    `set_link ${netdev} on`,
    ...[valve, open, sealed].map((id) => `object_del ${id}`),
    `chardev-remove ${valve}`,
  ].join(', ');
}

/** The names of the filters that a netdev has while its output is held. */
export function gateFiltersOf(netdev: string): string[] {
  return Object.values(idsOf(netdev));
}

/** The names of a netdev's filters. */
function idsOf(netdev: string): Record<'open' | 'sealed' | 'valve', string> {
  const of = (filter: string): string => `romulus-${netdev}-${filter}`;
  return { open: of('open'), sealed: of('sealed'), valve: of('valve') };
}

function removal(id: string): QmpCommand {
  return ['object-del', { id }];
}

function status(id: string, value: 'on' | 'off'): QmpCommand {
  return ['qom-set', { path: `/objects/${id}`, property: 'status', value }];
}

function toggle(id: string): QmpCommand[] {
  return [status(id, 'off'), status(id, 'on')];
}
