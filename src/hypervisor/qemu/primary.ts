// A QEMU domain on the primary: a source whose network interfaces are held from before the guest's first instruction
// (or from the attaching on), each tested once the guest runs and before the first checkpoint.
//
//   gates hold ─▶ start ─▶ test ─▶ checkpoints

import { HypervisorError } from '../port.js';
import type { QemuMachine } from './machine.js';
import { NetworkOutput } from './network-output.js';
import { QemuSource } from './source.js';

export class QemuPrimary extends QemuSource {
  readonly gates: readonly NetworkOutput[];
  #started: Promise<void> | null = null;

  /** `netdevs`: their ids. Fails with BAD_CONFIGURATION; the machine is closed then. */
  static async open(
    machine: QemuMachine,
    netdevs: readonly string[],
    state: 'created' | 'running' = 'created',
  ): Promise<QemuPrimary> {
    const gates: NetworkOutput[] = [];
    const primary = new QemuPrimary(machine, state, gates);
    try {
      for (const netdev of netdevs) gates.push(new NetworkOutput(await primary.openNetdevGate(netdev)));
      return primary;
    } catch (error) {
      await primary.destroy();
      throw error;
    }
  }

  private constructor(machine: QemuMachine, state: 'created' | 'running', gates: readonly NetworkOutput[]) {
    super(machine, state);
    this.gates = gates;
  }

  /** A guest that runs already is left to run. Fails with FAILED if a gate is not safe. */
  override start(): Promise<void> {
    if (this.#started !== null) {
      return Promise.reject(new HypervisorError('WRONG_STATE', 'The domain was started already.'));
    }
    this.#started = this.#start();
    return this.#started;
  }

  override async prepareSuspend(): Promise<void> {
    await this.#started;
    await super.prepareSuspend();
  }

  override async suspend(): Promise<void> {
    await this.#started;
    await super.suspend();
  }

  async #start(): Promise<void> {
    if (this.state !== 'running') await super.start();
    // One after another: they share the file that the frames are watched in.
    for (const gate of this.gates) await gate.test((netdev) => this.testNetdevGate(netdev));
  }
}
