// Two hosts around a real QEMU guest, and what the tests want to see of them: the domains that were made, all that
// the guest said, and what came out.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuPrimary,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import { agentOn, neverOpened, WatchedHost, type Reach, type Registers } from '../../service/hosts.js';
import { until } from '../../support/until.js';
import { log } from '../../service/world.js';
import { processesWith } from '../../support/processes.js';
import { successiveTicksOf, ticksOf } from '../support.js';
import { Screen, TEST_NAME } from './support.js';

/** A machine that has much else to do takes its time. */
export const PATIENCE_MS = 60_000;

export interface PairChanges {
  readonly port?: number;
  /** Left out: the primary's own. */
  readonly registers?: Registers;
  readonly intervalMs?: number;
  readonly hypervisorTimeoutMs?: number;
  /** What the secondary's QEMU is configured with besides. */
  readonly config?: Partial<QemuConfig>;
  /** Called with each domain, before it is used. */
  readonly madeTarget?: (target: QemuTarget, index: number) => void;
}

/** The QEMUs of the domain with this name: those that wait to take over, or the others. */
export function qemus(kind: 'standby' | 'primary', name = TEST_NAME): number[] {
  return processesWith(name).filter((pid) => {
    const argv = commandLine(pid);
    const standby = argv.some((argument) => argument.includes('romulus-state'));
    return argv.includes('-name') && standby === (kind === 'standby');
  });
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
  } catch {
    return []; // it has just ended
  }
}

export function killAll(kind: 'standby' | 'primary', signal: NodeJS.Signals = 'SIGKILL'): void {
  const pids = qemus(kind);
  expect(pids, `a QEMU (${kind})`).not.to.deep.equal([]);
  for (const pid of pids) process.kill(pid, signal);
}

/** The guest that both are given stands for what their file says of the hypervisor. */
const DOMAIN = { hypervisor: { kind: 'embedded' }, onCrash: 'stay' };

export class PrimaryOf extends WatchedHost implements Reach {
  readonly registers: Registers;
  readonly #guest: { source: QemuPrimary | null; raw: string };
  readonly #screen: Screen;

  constructor(config: QemuConfig, changes: PairChanges = {}) {
    const { registers = createMemoryWitness(), port = 0 } = changes;
    const guest = { source: null as QemuPrimary | null, raw: '' };
    const screen = new Screen();
    const domain = {
      ...{ name: config.name, ...DOMAIN, start: 'with-standby' },
      checkpoint: {
        intervalMs: changes.intervalMs ?? 20,
        hypervisorTimeoutMs: changes.hypervisorTimeoutMs ?? 10_000,
      },
    };
    const service = agentOn(
      'north',
      { port, registers, domains: [domain] },
      {
        log,
        openSource: async () => {
          guest.source = await openQemuSource(config);
          guest.source.output$.subscribe((bytes) => (guest.raw += Buffer.from(bytes).toString('latin1')));
          return guest.source;
        },
        openTarget: neverOpened,
        openConsole: () => screen,
      },
    );
    super(service);
    this.registers = registers;
    this.#guest = guest;
    this.#screen = screen;
  }

  /** Resolves when the guest is there, and waits for a standby. */
  async start(): Promise<void> {
    await this.service.start();
    await until('the guest is made', () => this.#guest.source !== null, PATIENCE_MS);
  }

  get port(): number {
    return this.service.port;
  }

  /** All that the guest said, let out or not. */
  get raw(): string {
    return this.#guest.raw;
  }

  /** What came out. */
  get out(): string {
    return this.#screen.text;
  }

  get domain(): QemuPrimary {
    const { source } = this.#guest;
    if (!source) throw new Error('there is no domain');
    return source;
  }

  /** Resolves after so many more acknowledged checkpoints. */
  async progress(checkpoints: number): Promise<void> {
    const before = this.checkpoints.length;
    await until('checkpoints', () => this.checkpoints.length >= before + checkpoints, PATIENCE_MS);
  }
}

export class SecondaryOf extends WatchedHost {
  readonly targets: QemuTarget[];
  readonly #screen: Screen;

  constructor({ port, registers }: Reach, config: QemuConfig, changes: PairChanges = {}) {
    const targets: QemuTarget[] = [];
    const screen = new Screen();
    const service = agentOn(
      'south',
      { port, registers, domains: [{ name: config.name, ...DOMAIN }] },
      {
        log,
        openTarget: async () => {
          const target = await openQemuTarget({ ...config, ...changes.config });
          changes.madeTarget?.(target, targets.length);
          targets.push(target);
          return target;
        },
        openConsole: () => screen,
      },
    );
    super(service);
    this.targets = targets;
    this.#screen = screen;
  }

  /** Resolves when a QEMU waits. */
  async start(): Promise<void> {
    await this.service.start();
    await until('it stands by', () => this.targets.length > 0, PATIENCE_MS);
  }

  /** What came out. */
  get out(): string {
    return this.#screen.text;
  }

  async active(): Promise<void> {
    await until('failover', () => this.owns(), PATIENCE_MS);
    expect(this.failovers.map(({ phase }) => phase).slice(-2)).to.deep.equal(['started', 'completed']);
  }
}

/**
 * What the guest had said at the last commit and what it says on the secondary are what one guest would have said, from
 * its last start on; nothing else came out of the primary.
 */
export async function expectContinuation(primary: PrimaryOf, secondary: SecondaryOf): Promise<void> {
  const ticks = () => ticksOf(secondary.out).length;
  await until('the guest ticks on', () => ticks() >= 5, PATIENCE_MS);
  const said = secondary.commits.at(-1)?.outputBytes ?? 0;
  const text = primary.raw.slice(0, said) + secondary.out;
  const start = text.lastIndexOf('tick 1 ok');
  expect(successiveTicksOf(text.slice(start))[0]).to.equal(1);
  expect(primary.raw.startsWith(primary.out)).to.equal(true);
  expect(primary.out.length).to.be.at.most(said);
}
