// A QEMU domain on the primary: a source whose network interfaces are held from before the guest's first instruction
// (or from the attaching on), each tested once the guest runs and before the first checkpoint.
//
//   gates hold ─▶ start ─▶ test ─▶ checkpoints

import type { Observable } from 'rxjs';
import { codeOf } from '../../errors.js';
import { InOrder } from '../../flow/in-order.js';
import {
  HypervisorError,
  type DomainInfo,
  type Leave,
  type MachineChange,
  type SourceDomain,
} from '../port.js';
import { checkFenced, clearMark, exposedAdvice, fencedAdvice, heldAdvice, setMark } from './process/fence.js';
import type { QemuMachine } from './machine.js';
import { MachineWatch } from './monitor/machine-watch.js';
import { NetdevGate, undoingOf, type GateTest } from './network/netdev-gate.js';
import type { RunStatus } from './monitor/run-state.js';
import { reasonsKnown } from './monitor/saveable.js';
import { QemuSource } from './source.js';

/** Started with -S, and nobody has let its guest run yet: we may. */
const NOT_STARTED = 'prelaunch';

export interface QemuPrimaryOptions {
  /** 'created', or what a QEMU that was found is doing. */
  readonly state: 'created' | 'running';
  /** Though it stands still, by this. */
  readonly stoppedBy: string | null;
  readonly gates: readonly NetdevGate[];
  /** The ids of its netdevs. */
  readonly netdevs: readonly string[];
}

export class QemuPrimary extends QemuSource {
  readonly gates: readonly NetdevGate[];
  /** Of a QEMU that is not ours. */
  readonly leave?: NonNullable<SourceDomain['leave']>;
  /** Of one whose disks are shared. */
  readonly expose?: NonNullable<SourceDomain['expose']>;
  readonly #watch: MachineWatch;
  readonly #tests = new InOrder();
  #started: Promise<void> | null = null;
  /** Stops of the guest that are about to be, or are. */
  #pausing = 0;

  /**
   * `netdevs`: their ids; `status`: of a QEMU that was found.
   * @throws HypervisorError BAD_CONFIGURATION, also if the guest was stopped because a secondary runs it; the machine
   * is closed then
   */
  static async open(
    machine: QemuMachine,
    netdevs: readonly string[],
    { running, status }: RunStatus = { running: false, status: NOT_STARTED },
  ): Promise<QemuPrimary> {
    const gates: NetdevGate[] = [];
    // Also one that the agent before us, its guard, or we ourselves have stopped, because a secondary may run it.
    const isOurs = status === NOT_STARTED || machine.shared?.exposed === true;
    const primary = new QemuPrimary(machine, {
      state: isOurs ? 'created' : 'running',
      stoppedBy: running || isOurs ? null : status,
      gates,
      netdevs,
    });
    try {
      if (machine.guard) await checkFenced(machine.qmp, machine.name, netdevs.map(undoingOf));
      for (const netdev of netdevs) gates.push(await NetdevGate.open(machine.qmp, netdev));
      await primary.#watch.begin();
      return primary;
    } catch (error) {
      if (primary.leave) await primary.leave(primary.orphaned ? 'held' : 'free');
      else await primary.destroy();
      throw error;
    }
  }

  protected constructor(machine: QemuMachine, { state, stoppedBy, gates, netdevs }: QemuPrimaryOptions) {
    super(machine, state, stoppedBy);
    this.gates = gates;
    const { qmp, ramBlock, inventory, disks } = machine;
    const idle = () => this.state === 'running' && this.#pausing === 0;
    this.#watch = new MachineWatch({ qmp, ram: ramBlock, inventory, netdevs, disks, idle });
    if (machine.guard) this.leave = (how) => this.#leave(how);
    if (machine.shared) this.expose = (on) => this.#expose(on);
  }

  /** A guest that runs already is left to run. @throws HypervisorError FAILED if a gate is not safe */
  override start(): Promise<void> {
    if (this.#started !== null) {
      return Promise.reject(new HypervisorError('WRONG_STATE', 'the domain was started already'));
    }
    this.#started = this.#start();
    return this.#started;
  }

  get orphaned(): boolean {
    // The mark says it exactly; a gate may have been left by an agent that never had a secondary.
    const { shared } = this.machine;
    if (shared) return shared.exposed;
    return this.gates.some(({ takenOver }) => takenOver);
  }

  get machineChanges$(): Observable<MachineChange> {
    return this.#watch.changes$;
  }

  get warnings$(): Observable<string> {
    return this.#watch.warnings$;
  }

  override async info(): Promise<DomainInfo> {
    return { ...(await super.info()), inventory: this.#watch.inventory };
  }

  override async prepareSuspend(): Promise<void> {
    await this.#started;
    // A QEMU that is not ours takes any device. Asked now, too, it costs no pause.
    if (this.machine.guard && (await reasonsKnown(this.machine.qmp)) !== null) await this.#watch.reconsider();
    await super.prepareSuspend();
  }

  override suspend(): Promise<void> {
    return this.#untested(() => super.suspend());
  }

  protected override inPause<T>(work: () => Promise<T>): Promise<T> {
    return this.#untested(() => super.inPause(work));
  }

  /** No gate is tested meanwhile, for which the guest must run. */
  async #untested<T>(work: () => Promise<T>): Promise<T> {
    await this.#started;
    for (const gate of this.gates) await gate.tested();
    this.#pausing++; // no test of a gate begins from here on
    try {
      await this.#tests.settled();
      return await work();
    } finally {
      this.#pausing--; // and the state says so from here on
    }
  }

  override async emulatorContext(): Promise<Uint8Array> {
    try {
      return await super.emulatorContext();
    } catch (error) {
      if (codeOf(error) === 'MACHINE_CHANGED') await this.#watch.reconsider();
      throw error;
    }
  }

  async confirmMachine(): Promise<void> {
    const { lastContext } = this;
    if (lastContext) await this.#watch.confirm(lastContext);
  }

  /** The guest runs: else QEMU delivers nothing, and there is nothing to see. @throws HypervisorError FAILED */
  protected async testGates(): Promise<void> {
    // One after another: they share the file that the frames are watched in.
    for (const gate of this.gates) await gate.selfTest(this.machine.deviceState);
  }

  /** From now on a change of the machine is noticed, also one that was made since its inventory was taken. */
  protected keepWatch(): void {
    this.#watch.keepLooking();
  }

  /** Of a gate that holds. False: not now, for the guest stands still. @throws HypervisorError FAILED */
  protected testIfRunning(test: GateTest): Promise<boolean> {
    return this.#tests.do(async () => {
      if (this.state !== 'running' || this.#pausing > 0 || this.stoppedBy !== null) return false;
      await test(this.machine.deviceState);
      return true;
    });
  }

  async #leave(how: Leave): Promise<readonly string[]> {
    const { name } = this.machine;
    if (this.state !== 'running' && this.state !== 'suspended' && this.state !== 'created') {
      await this.end('running');
      return [];
    }
    const undoing = this.gates.map(({ netdev }) => undoingOf(netdev));
    switch (how) {
      case 'free':
        try {
          // QEMU delivers nothing while its guest is stopped.
          if (this.state === 'suspended') await this.resume();
          this.#watch.end();
          await this.#watch.plug();
          for (const gate of this.gates) await gate.remove();
          if (this.expose) await this.expose(false);
        } finally {
          await this.end('running');
        }
        return [];
      case 'held': {
        const { shared } = this.machine;
        await this.#discard().finally(() => this.end(shared ? 'stopped' : 'running'));
        if (shared) return [exposedAdvice(name, undoing)];
        return undoing.length === 0 ? [] : [heldAdvice(name, undoing)];
      }
      case 'stopped':
        await Promise.all([this.#discard(), this.#fence()]).finally(() => this.end('stopped'));
        return [fencedAdvice(name, undoing)];
    }
  }

  /** The mark comes before the guard is told, and goes after: the guard stops no guest that has none. */
  async #expose(on: boolean): Promise<void> {
    const { guard, qmp } = this.machine;
    if (on) await setMark(qmp, 'exposed');
    guard?.exposed(on);
    if (!on) await clearMark(qmp, 'exposed');
  }

  async #fence(): Promise<void> {
    const { qmp, shared } = this.machine;
    await setMark(qmp, 'fenced');
    if (shared) await clearMark(qmp, 'exposed');
  }

  protected override async end(guest: 'running' | 'stopped'): Promise<void> {
    this.#watch.end();
    await super.end(guest);
  }

  async #discard(): Promise<void> {
    await Promise.all(this.gates.map((gate) => gate.discard()));
  }

  async #start(): Promise<void> {
    if (this.state !== 'running') await super.start();
    if (this.stoppedBy === null) await this.testGates();
  }
}
