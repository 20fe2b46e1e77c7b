// Two agents, and a guest that numbers what it writes (../guest/sequence.c), on disks that may be full, broken or read-only
// on either host: what each agent says of it, and whether the guest comes to harm.

import { expect } from 'chai';
import { pino } from 'pino';
import type { QemuConfig } from '../../../../../src/hypervisor/qemu/index.js';
import type { QmpClient } from '../../../../../src/hypervisor/qemu/monitor/qmp.js';
import { openQemuSource, openQemuTarget } from '../../../../../src/hypervisor/qemu/index.js';
import { HOSTS, PATIENCE_MS, type HostName } from '../../../../service/agent-pair.js';
import { Proxy } from '../../../../service/proxy.js';
import { TwoAgents } from '../../../../service/two-agents.js';
import type { Cleanup } from '../../../../support/cleanup.js';
import { processesWith } from '../../../../support/processes.js';
import { until } from '../../../../support/until.js';
import { DISK_BYTES, sequenceArguments } from '../kills/sequence.js';

export interface BrokenOptions {
  /** What follows `if=none,id=disk,` of each host's -drive. */
  readonly drives: Readonly<Record<HostName, string>>;
  readonly preallocate?: boolean;
}

interface BrokenParts {
  readonly drives: BrokenOptions['drives'];
  readonly proxies: Readonly<Record<HostName, Proxy>>;
  /** Of both, as they are logged. */
  readonly warnings: readonly string[];
  readonly monitors: Readonly<Partial<Record<HostName, () => QmpClient>>>;
}

export class BrokenHosts {
  readonly two: TwoAgents;
  readonly #of: BrokenParts;

  /** alpha owns it; `isPaired`: and beta is to protect it before this resolves. */
  static async start(cleanup: Cleanup, options: BrokenOptions, isPaired = true): Promise<BrokenHosts> {
    const configOf = (name: string, host: HostName): QemuConfig => ({
      ...{ name, memoryBytes: 16 * 2 ** 20, accelerator: 'tcg', dirty: 'compare' },
      arguments: sequenceArguments(options.drives[host]),
      // alpha's is there.
      ...(host === 'beta' && {
        disks: {
          disk: { durability: 'strict', bytes: DISK_BYTES, preallocate: options.preallocate === true },
        },
      }),
    });
    const warnings: string[] = [];
    const monitors: Partial<Record<HostName, () => QmpClient>> = {};
    let two: TwoAgents | null = null;
    const proxies = { alpha: new Proxy(0), beta: new Proxy(0) };
    two = await TwoAgents.start(
      cleanup,
      {
        ...{ proxies, log: pino({ level: 'warn' }, { write: (line) => void warnings.push(line) }) },
        hypervisor: { kind: 'qemu', memory: '16MiB' },
        hypervisors: {
          openSource: async ({ name }) => {
            const source = await openQemuSource(configOf(name, 'alpha'));
            monitors.alpha = () => source.machine.qmp;
            return source;
          },
          // beta's, until it is the owner.
          openTarget: async ({ name }) => {
            const host = two?.owner === 'beta' ? 'alpha' : 'beta';
            const target = await openQemuTarget(configOf(name, host));
            monitors[host] = () => target.machine.qmp;
            return target;
          },
        },
      },
      isPaired,
    );
    return new BrokenHosts(two, { drives: options.drives, proxies, warnings, monitors });
  }

  private constructor(two: TwoAgents, of: BrokenParts) {
    this.two = two;
    this.#of = of;
  }

  /** What an operator would say to its QEMU. */
  async say(host: HostName, command: 'stop' | 'cont'): Promise<void> {
    await this.#of.monitors[host]?.().execute(command);
  }

  get isProtected(): boolean {
    return this.two.status('alpha').link === 'replicating';
  }

  /** All that it said, so far; none of it is a complaint. */
  get numbers(): number[] {
    const lines = this.two.said.split('\n').slice(0, -1);
    expect(lines.filter((line) => line.includes('BAD'))).to.deep.equal([]);
    expect(lines.filter((line) => line.startsWith('boot'))).to.have.lengthOf.at.most(1);
    const numbers = lines.flatMap((line) => /^ok (\d+)$/.exec(line)?.[1] ?? []).map(Number);
    expect(numbers).to.deep.equal([...new Set(numbers)].sort((one, other) => one - other));
    return numbers;
  }

  /** What it was refused by its disk, so far. */
  get errors(): number {
    return this.two.said.split('\n').filter((line) => line.startsWith('error')).length;
  }

  /** It has looked at all of its disk, and more than once since. */
  async goesOn(): Promise<void> {
    const { length } = this.numbers;
    await until('the guest goes on', () => this.numbers.length >= length + 2, PATIENCE_MS);
  }

  async protectedAgain(): Promise<void> {
    await until('protected', () => this.isProtected, PATIENCE_MS);
    await this.goesOn();
  }

  /** It is not protected, and that host says why: the standby's in its status, the owner's in its log. */
  async isTold(host: HostName, reason: RegExp): Promise<void> {
    const logged = () => this.#of.warnings.filter((line) => line.includes(`"host":"${host}"`)).join('');
    const told = () => (host === 'beta' ? (this.two.status(host).error?.message ?? '') : logged());
    try {
      await until('not protected', () => !this.isProtected && reason.test(told()), PATIENCE_MS);
    } catch (error) {
      throw new Error(`it says “${told()}”, not ${reason.source}`, { cause: error });
    }
  }

  cut(): void {
    for (const host of HOSTS) this.#of.proxies[host].cut();
  }

  /** Its standby is the domain from now on; with all that was heard. */
  async takenOver(): Promise<void> {
    const before = this.numbers.at(-1) ?? 0;
    await this.killed();
    await until('it goes on', () => (this.numbers.at(-1) ?? 0) > before, PATIENCE_MS);
  }

  /** The owner's QEMU is. */
  async killed(): Promise<void> {
    for (const pid of processesWith(this.#of.drives.alpha)) process.kill(pid, 'SIGKILL');
    await until('it is taken over', () => this.two.owner === 'beta', PATIENCE_MS);
  }
}
