// The one QEMU that a standby may have. Two would want the same tap, port, socket or image lock; but while a new stream
// is filled, an older checkpoint is still held. So memories can be several, and the QEMU is that of the one which is
// about to be, or could be, taken over to:
//
//   memory A (held)    ◀── QEMU
//   memory B (filling)                 claim by B: A's QEMU ends, one for B is started (some 100 ms)
//
// A QEMU is worth little: what it holds can be loaded into another one. One that ends by itself, or hangs, is replaced.
//
// Disks that are replicated it has open while it starts only: others write to them then, until it runs.

import { asError } from '../../../errors.js';
import { InOrder } from '../../../flow/in-order.js';
import type { Inventory } from '../../inventory.js';
import { HypervisorError } from '../../port.js';
import { IMAGE_PATH, type QemuConfig } from '../config.js';
import { launchQemu } from './launch.js';
import type { QemuMachine } from '../machine.js';
import type { StandbyDisks } from '../disks/standby/standby-disks.js';
import type { QmpClient } from '../monitor/qmp.js';
import type { QmpVersion } from '../monitor/qmp-parser.js';
import { framesIn, type ResetFrames } from '../memory/reset-frames.js';
import { NetdevGate } from '../network/netdev-gate.js';
import { STATE_NODE, stateNode } from '../state/state-image.js';
import { StateLoader } from '../state/state-loader.js';
import type { ChosenTracking } from '../memory/tracking.js';

export interface Seated {
  readonly machine: QemuMachine;
  readonly loader: StateLoader;
  /** On its netdevs, passing: there when the domain runs, and is to be protected. */
  readonly gates: readonly NetdevGate[];
}

/** Who may have the QEMU. */
export interface Occupant {
  readonly memory: ChosenTracking;
  /** Of its memory. */
  readonly reset: ResetFrames;
  /** It runs, or is about to: its QEMU is not for others. */
  readonly stays: boolean;
  /** Its QEMU was of use. */
  loaded(): void;
  /** Its QEMU has ended by itself. */
  ended(reason: string): void;
  /** A QEMU for it could not be started, though nobody waits for one. */
  missed(error: Error): void;
}

/** What every QEMU of this configuration says of itself. */
export interface Facts {
  readonly inventory: Inventory;
  readonly version: QmpVersion;
  readonly resetFrames: Uint32Array;
}

interface Occupied extends Seated {
  readonly by: Occupant;
}

export class Seat {
  readonly #config: QemuConfig;
  /** Null: none of its disks is replicated. */
  readonly disks: StandbyDisks | null;
  readonly #order = new InOrder();
  #occupied: Occupied | null = null;
  /** Who had it before, and gets it back when the present occupant leaves. */
  #evicted: Occupant | null = null;

  constructor(config: QemuConfig, disks: StandbyDisks | null) {
    this.#config = config;
    this.disks = disks;
  }

  /** What sits there now, if it is the occupant's. */
  of(occupant: Occupant): Seated | null {
    return this.#occupied?.by === occupant ? this.#occupied : null;
  }

  /** The QEMU of this occupant: as it is, or started now in the place of another's. @throws as launchQemu() */
  claim(occupant: Occupant): Promise<Seated> {
    return this.#order.do(async () => this.of(occupant) ?? (await this.#start(occupant)));
  }

  /** Resolves when no QEMU is being started or ended. */
  settled(): Promise<void> {
    return this.#order.settled();
  }

  /** Ends this occupant's QEMU, if there is one; its memory is as it should be then. */
  clear(occupant: Occupant): Promise<void> {
    return this.#order.do(async () => {
      if (this.of(occupant) === null) return;
      await this.#end();
      await occupant.reset.putBack();
    });
  }

  /** The occupant leaves for good. Resolves when its QEMU has ended. */
  vacate(occupant: Occupant): Promise<void> {
    return this.#order.do(async () => {
      if (this.#evicted === occupant) this.#evicted = null;
      if (this.#occupied !== null && this.#occupied.by !== occupant) return;
      await this.#end();
      const next = this.#evicted;
      this.#evicted = null;
      if (next) this.claim(next).catch((error: unknown) => next.missed(asError(error)));
    });
  }

  async #start(occupant: Occupant): Promise<Seated> {
    const before = this.#occupied?.by;
    if (before && before !== occupant) {
      if (before.stays) throw new HypervisorError('WRONG_STATE', 'the domain that has the QEMU runs');
      this.#evicted = before;
    }
    await this.#end();
    const { memory, reset } = occupant;
    // It resets the machine when it starts.
    await reset.keep();
    let machine: QemuMachine | null = null;
    try {
      machine = await this.#launch(memory);
      const gates = await passingGates(machine, this.#config);
      const occupied: Occupied = { machine, gates, loader: await StateLoader.open(machine), by: occupant };
      await reset.putBack();
      this.#occupied = occupied;
      void machine.gone.then((reason) => this.#gone(occupied, reason));
      return occupied;
    } catch (error) {
      await machine?.close();
      await reset.putBack();
      throw error;
    }
  }

  async #launch(memory: ChosenTracking): Promise<QemuMachine> {
    const { disks } = this;
    if (disks === null) return launchQemu(this.#config, { role: 'standby', memory });
    let machine: QemuMachine | null = null;
    try {
      return await disks.lent(async () => {
        machine = await launchQemu(this.#config, { role: 'standby', memory });
        await letGoOfDisks(machine.qmp);
        return machine;
      });
    } catch (error) {
      await (machine as QemuMachine | null)?.close();
      throw error;
    }
  }

  async #end(): Promise<void> {
    const occupied = this.#occupied;
    this.#occupied = null;
    await occupied?.machine.close();
  }

  #gone(occupied: Occupied, reason: string): void {
    if (this.#occupied !== occupied) return; // we ended it
    this.#occupied = null;
    const { by, machine } = occupied;
    const after = this.#order.do(async () => {
      await machine.close();
      await by.reset.putBack();
    });
    after.then(
      () => by.ended(reason),
      (error: unknown) => by.ended(`${reason}; ${asError(error).message}`),
    );
  }
}

/**
 * The QEMU has its disks open no more: it neither locks nor writes nor remembers them. `cont` opens them again, if nobody
 * else has them. (It is what a QEMU does that has saved its devices for another one.) But for the image that device
 * states are loaded from.
 * @throws as QmpClient.execute()
 */
async function letGoOfDisks(qmp: QmpClient): Promise<void> {
  await qmp.execute('xen-save-devices-state', { filename: '/dev/null', live: true });
  await qmp.execute('blockdev-del', { 'node-name': STATE_NODE });
  await qmp.execute('blockdev-add', stateNode(IMAGE_PATH));
}

/** @throws as NetdevGate.open() */
async function passingGates({ qmp }: QemuMachine, { network = [] }: QemuConfig): Promise<NetdevGate[]> {
  const gates: NetdevGate[] = [];
  for (const { id } of network) {
    const gate = await NetdevGate.open(qmp, id);
    await gate.pass();
    gates.push(gate);
  }
  return gates;
}

/** @throws as QmpClient.human(), or HypervisorError BAD_CONFIGURATION */
export async function factsOf({ qmp, inventory }: QemuMachine): Promise<Facts> {
  return { inventory, version: qmp.version, resetFrames: framesIn(await qmp.human('info roms')) };
}

/** Asks a QEMU like the one to come what it is; its disks are not opened for writing. @throws as launchQemu() */
export async function probe(config: QemuConfig, memory: ChosenTracking): Promise<Facts> {
  const machine = await launchQemu(config, { role: 'probe', memory });
  try {
    return await factsOf(machine);
  } finally {
    await machine.close();
  }
}
