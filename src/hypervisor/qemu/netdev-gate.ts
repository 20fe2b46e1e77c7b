// Output commit for one network interface, with two of QEMU's filter-buffers on its netdev. Frames that the guest sends
// pass the one created last first:
//
//   guest ─▶ │ open: this epoch │ ─▶ │ sealed: until acknowledged │ ─▶ world
//
// A filter lets out what it holds when it is switched off: the open one at the seal (into the other one), the sealed
// one at the release. There are two filters, so a seal that comes before the release of the one before joins both
// epochs, and they leave together, with the later one's acknowledgement.
//
// It has the shape of an output gate, but counts nothing: QEMU does not say how much a filter holds.
//
// A filter opens by itself when its timer has run for INTERVAL_US of guest time without being switched: 4000 seconds.

import { setTimeout as sleep } from 'node:timers/promises';
import { HypervisorError } from '../port.js';
import type { QmpCommand } from './qmp.js';
import { QmpError, type QmpClient } from './qmp.js';
import type { DeviceStateFile } from './device-state.js';

/** Microseconds; the largest that the property takes, roughly. */
const INTERVAL_US = 4_000_000_000;
/** How long the self-test gives a frame that must not come, and one that must. */
const SELF_TEST_QUIET_MS = 30;
const SELF_TEST_LIMIT_MS = 5000;
/** A capture file with no frame in it. */
const CAPTURE_HEADER_BYTES = 24;

export class NetdevGate {
  readonly heldBytes = 0;
  readonly emittedBytes = 0;
  readonly releasedBytes = 0;
  readonly netdev: string;
  /** The filters were there, left by an agent before us. */
  readonly takenOver: boolean;
  readonly #qmp: QmpClient;
  readonly #openId: string;
  readonly #sealedId: string;
  #mode: 'holding' | 'passing' | 'discarded' = 'holding';
  #discarded: Promise<void> | null = null;
  /** The latest epoch in the sealed filter; null: what is in it, if anything, belongs to the open epoch. */
  #sealed: number | null = null;

  /**
   * Puts the filters on a netdev, holding. Filters that an agent before us left are taken over with what they hold.
   * Fails with BAD_CONFIGURATION if there is no such netdev, or one that bypasses QEMU (vhost).
   */
  static async open(qmp: QmpClient, netdev: string): Promise<NetdevGate> {
    const ids = idsOf(netdev);
    let takenOver = false;
    // The sealed one first: the other creation order lets frames out early.
    for (const id of [ids.sealed, ids.open]) {
      try {
        await qmp.execute('object-add', {
          'qom-type': 'filter-buffer',
          id,
          netdev,
          queue: 'rx',
          interval: INTERVAL_US,
        });
      } catch (error) {
        if (!(error instanceof QmpError)) throw error;
        if (/duplicate|attempt to add/i.test(error.description)) {
          takenOver = true;
          continue;
        }
        throw new HypervisorError(
          'BAD_CONFIGURATION',
          `The output of netdev ${netdev} cannot be held: ${error.description}`,
          { netdev },
          { cause: error },
        );
      }
    }
    const gate = new NetdevGate(qmp, netdev, takenOver);
    // They may have been left passing, or the cable unplugged.
    if (takenOver) {
      await gate.#run([
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
    const { open, sealed } = idsOf(netdev);
    this.#openId = open;
    this.#sealedId = sealed;
  }

  async seal(epoch: number): Promise<void> {
    if (this.#mode !== 'holding') return;
    this.#sealed = epoch;
    await this.#run([...toggle(this.#openId)]);
  }

  async release(epoch: number): Promise<void> {
    if (this.#mode !== 'holding' || this.#sealed === null || this.#sealed > epoch) return;
    this.#sealed = null;
    await this.#run([...toggle(this.#sealedId)]);
  }

  discard(): Promise<void> {
    this.#mode = 'discarded';
    // What leaves a filter from now on finds the cable unplugged.
    this.#discarded ??= this.#run([['set_link', { name: this.netdev, up: false }]]);
    return this.#discarded;
  }

  async pass(): Promise<void> {
    if (this.#mode !== 'holding') return;
    this.#mode = 'passing';
    this.#sealed = null;
    await this.#run([status(this.#sealedId, 'off'), status(this.#openId, 'off')]);
  }

  async hold(): Promise<void> {
    if (this.#mode !== 'passing') return;
    this.#mode = 'holding';
    await this.#run([status(this.#sealedId, 'on'), status(this.#openId, 'on')]);
  }

  /** Takes the filters away: what they hold leaves, and all that comes. For good. */
  async remove(): Promise<void> {
    // The open one first: what it holds passes the sealed one.
    await this.#run([this.#openId, this.#sealedId].map((id) => ['object-del', { id }]));
  }

  /** What somebody types into QEMU's monitor to undo discard(), and then the filters. */
  get undoing(): string {
    return [
      `set_link ${this.netdev} on`,
      ...[this.#openId, this.#sealedId].map((id) => `object_del ${id}`),
    ].join(', ');
  }

  restart(): Promise<void> {
    this.#sealed = null;
    return Promise.resolve();
  }

  /**
   * Sends a frame (an announcement of the guest's address, harmless) through the gate, and watches behind it that it
   * leaves at the release and not before. The guest runs and the gate holds; no epoch is sealed. `capture` is a file
   * that QEMU may write. Fails with FAILED if a frame came early or not at all.
   */
  async selfTest(capture: DeviceStateFile): Promise<void> {
    const watcher = `romulus-${this.netdev}-watch`;
    const fail = (message: string): HypervisorError =>
      new HypervisorError('FAILED', `The output of netdev ${this.netdev} is not safe: ${message}`, {
        netdev: this.netdev,
      });
    capture.clear();
    await this.#qmp.execute('object-add', {
      'qom-type': 'filter-dump',
      id: watcher,
      netdev: this.netdev,
      queue: 'rx',
      file: capture.path,
      position: 'head', // frames of the guest meet it last
    });
    try {
      await this.#qmp.execute('announce-self', { initial: 1, max: 1, rounds: 1, step: 1 });
      await sleep(SELF_TEST_QUIET_MS);
      if (capture.size > CAPTURE_HEADER_BYTES) throw fail('a frame left before its epoch was sealed.');
      await this.#run(toggle(this.#openId));
      await sleep(SELF_TEST_QUIET_MS);
      if (capture.size > CAPTURE_HEADER_BYTES) throw fail('a frame left before its epoch was released.');
      await this.#run(toggle(this.#sealedId));
      const limit = performance.now() + SELF_TEST_LIMIT_MS;
      while (capture.size <= CAPTURE_HEADER_BYTES) {
        if (performance.now() > limit) throw fail('a frame did not leave when it was released.');
        await sleep(1);
      }
    } finally {
      await this.#qmp.execute('object-del', { id: watcher });
    }
  }

  async #run(commands: readonly QmpCommand[]): Promise<void> {
    await Promise.all(this.#qmp.executeAll(commands));
  }
}

/** The names of a netdev's filters. */
function idsOf(netdev: string): { readonly open: string; readonly sealed: string } {
  return { open: `romulus-${netdev}-open`, sealed: `romulus-${netdev}-sealed` };
}

function status(id: string, value: 'on' | 'off'): QmpCommand {
  return ['qom-set', { path: `/objects/${id}`, property: 'status', value }];
}

function toggle(id: string): QmpCommand[] {
  return [status(id, 'off'), status(id, 'on')];
}
