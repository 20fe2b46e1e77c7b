// One host in a process of its own, to be stopped and killed. Says what happens over IPC.
//
//   child.js primary CHANGES            CHANGES, REACH as JSON, see world.ts and hosts.ts
//   child.js secondary REACH CHANGES

import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type {
  CheckpointReport,
  CommitReport,
  DomainRole,
  DomainStatus,
  FailoverEvent,
} from '../../src/report/reports.js';
import type { Reach } from './hosts.js';
import { MemoryGuest } from './memory-guest.js';
import { TestPrimary, TestSecondary, type PrimaryChanges, type SecondaryChanges } from './world.js';

export type ChildReport =
  | { readonly kind: 'started'; readonly port: number }
  | { readonly kind: 'checkpoint'; readonly report: CheckpointReport }
  | { readonly kind: 'commit'; readonly report: CommitReport }
  | { readonly kind: 'failover'; readonly event: FailoverEvent }
  | { readonly kind: 'status'; readonly status: DomainStatus };

/** A directory: registers that a child and its parent see. */
interface Seen {
  readonly registers: string;
}

export class Child implements Reach {
  readonly process: ChildProcess;
  readonly registers: string;
  readonly reports: ChildReport[] = [];

  private constructor(args: readonly string[], { registers }: Seen, stdout: number | 'inherit') {
    this.registers = registers;
    this.process = fork(fileURLToPath(import.meta.url), args, {
      stdio: ['ignore', stdout, 'inherit', 'ipc'],
    });
    this.process.on('message', (report) => this.reports.push(report as ChildReport));
  }

  static primary(changes: PrimaryChanges & Seen, stdout: number | 'inherit' = 'inherit'): Child {
    return new Child(['primary', JSON.stringify(changes)], changes, stdout);
  }

  static secondary(
    reach: Seen & { readonly port: number },
    changes: SecondaryChanges = {},
    stdout: number | 'inherit' = 'inherit',
  ): Child {
    return new Child(['secondary', JSON.stringify(reach), JSON.stringify(changes)], reach, stdout);
  }

  /** It came to that, for good or for a moment. */
  was(role: DomainRole): boolean {
    return this.reports.some((report) => report.kind === 'status' && report.status.role === role);
  }

  /** Asks for the status, which comes as a report. */
  ask(): void {
    this.process.send('status');
  }

  count(kind: ChildReport['kind']): number {
    return this.reports.filter((report) => report.kind === kind).length;
  }

  get port(): number {
    const started = this.reports.find((report) => report.kind === 'started');
    return started?.port ?? 0;
  }

  get status(): DomainStatus | null {
    const last = this.reports.findLast((report) => report.kind === 'status');
    return last?.status ?? null;
  }

  /** Ends the process, stopped or not. */
  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const exited = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.kill('SIGKILL');
    await exited;
  }
}

function say(report: ChildReport): void {
  process.send?.(report);
}

function answer(status: () => DomainStatus): void {
  process.on('message', () => say({ kind: 'status', status: status() }));
}

async function main(side: string | undefined, args: readonly string[]): Promise<void> {
  if (side === 'primary') {
    const primary = new TestPrimary(JSON.parse(args[0] ?? '{}') as PrimaryChanges);
    const { service } = primary;
    service.checkpoints$.subscribe((report) => say({ kind: 'checkpoint', report }));
    service.transitions$.subscribe(() => say({ kind: 'status', status: primary.status() }));
    await primary.start();
    answer(() => primary.status());
    say({ kind: 'started', port: primary.port });
  } else {
    const reach = JSON.parse(args[0] ?? '') as Reach;
    const secondary = new TestSecondary(reach, JSON.parse(args[1] ?? '{}') as SecondaryChanges);
    const { service } = secondary;
    service.commits$.subscribe((report) => say({ kind: 'commit', report }));
    service.failover$.subscribe((event) => {
      say({ kind: 'failover', event });
      if (event.phase === 'completed') new MemoryGuest(secondary.running());
    });
    service.transitions$.subscribe(() => say({ kind: 'status', status: secondary.status() }));
    await secondary.start();
    answer(() => secondary.status());
    say({ kind: 'started', port: 0 });
  }
  // Whoever started us is gone: so are we.
  process.on('disconnect', () => process.exit(0));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(process.argv[2], process.argv.slice(3));
}
