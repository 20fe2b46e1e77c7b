// Two services around a real QEMU guest, and what the tests want to see of them: the domains that were made, all that
// the guest said, and what came out.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parsePrimaryConfig, parseSecondaryConfig } from '../../../src/config/load.js';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuPrimary,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import { createPrimaryService } from '../../../src/service/primary-service.js';
import type {
  CheckpointReport,
  CommitReport,
  DomainStatus,
  FailoverEvent,
  PrimaryService,
  SecondaryService,
  StandbyLossReport,
  TransitionReport,
} from '../../../src/report/reports.js';
import { createSecondaryService } from '../../../src/service/secondary-service.js';
import { until } from '../../support/until.js';
import { log } from '../../service/world.js';
import { processesWith } from '../../support/processes.js';
import { successiveTicksOf, ticksOf } from '../support.js';
import { Screen, TEST_NAME } from './support.js';

/** A machine that has much else to do takes its time. */
export const PATIENCE_MS = 60_000;

export interface PairChanges {
  readonly port?: number;
  readonly intervalMs?: number;
  readonly hypervisorTimeoutMs?: number;
  /** Called with each domain, before it is used. */
  /** What the secondary's QEMU is configured with besides. */
  readonly config?: Partial<QemuConfig>;
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

export class PrimaryOf {
  readonly service: PrimaryService;
  readonly checkpoints: CheckpointReport[] = [];
  readonly transitions: TransitionReport[] = [];
  source: QemuPrimary | null = null;
  /** All that the guest said, let out or not. */
  raw = '';
  readonly #screen = new Screen();

  constructor(config: QemuConfig, changes: PairChanges = {}) {
    this.service = createPrimaryService(
      parsePrimaryConfig({
        listen: { port: changes.port ?? 0 },
        http: false,
        domains: [
          {
            name: config.name,
            start: 'with-secondary',
            hypervisor: { kind: 'embedded' },
            checkpoint: {
              intervalMs: changes.intervalMs ?? 20,
              hypervisorTimeoutMs: changes.hypervisorTimeoutMs ?? 10_000,
            },
          },
        ],
      }),
      {
        log,
        openSource: async () => {
          this.source = await openQemuSource(config);
          this.source.output$.subscribe((bytes) => (this.raw += Buffer.from(bytes).toString('latin1')));
          return this.source;
        },
        openConsole: () => this.#screen,
      },
    );
    this.service.checkpoints$.subscribe((report) => this.checkpoints.push(report));
    this.service.transitions$.subscribe((report) => this.transitions.push(report));
  }

  /** What came out. */
  get out(): string {
    return this.#screen.text;
  }

  get status(): DomainStatus {
    return statusOf(this.service);
  }

  get domain(): QemuPrimary {
    if (!this.source) throw new Error('there is no domain');
    return this.source;
  }

  /** Resolves after so many more acknowledged checkpoints. */
  async progress(checkpoints: number): Promise<void> {
    const before = this.checkpoints.length;
    await until('checkpoints', () => this.checkpoints.length >= before + checkpoints, PATIENCE_MS);
  }
}

export class SecondaryOf {
  readonly service: SecondaryService;
  readonly commits: CommitReport[] = [];
  readonly failovers: FailoverEvent[] = [];
  readonly losses: StandbyLossReport[] = [];
  readonly targets: QemuTarget[] = [];
  readonly #screen = new Screen();

  constructor(port: number, config: QemuConfig, changes: PairChanges = {}) {
    this.service = createSecondaryService(
      parseSecondaryConfig({
        http: false,
        domains: [
          {
            name: config.name,
            primary: `ws://127.0.0.1:${port}`,
            hypervisor: { kind: 'embedded' },
          },
        ],
      }),
      {
        log,
        openTarget: async () => {
          const target = await openQemuTarget({ ...config, ...changes.config });
          changes.madeTarget?.(target, this.targets.length);
          this.targets.push(target);
          return target;
        },
        openConsole: () => this.#screen,
      },
    );
    this.service.commits$.subscribe((report) => this.commits.push(report));
    this.service.failover$.subscribe((event) => this.failovers.push(event));
    this.service.standbyLosses$.subscribe((report) => this.losses.push(report));
  }

  /** What came out. */
  get out(): string {
    return this.#screen.text;
  }

  get status(): DomainStatus {
    return statusOf(this.service);
  }

  async active(): Promise<void> {
    await until('failover', () => this.status.role === 'active', PATIENCE_MS);
    expect(this.failovers.map(({ phase }) => phase).slice(-2)).to.deep.equal(['started', 'completed']);
  }
}

function statusOf(service: { statuses(): readonly DomainStatus[] }): DomainStatus {
  const [status] = service.statuses();
  if (!status) throw new Error('there is no status');
  return status;
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
