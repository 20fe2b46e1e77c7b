// A protected QEMU guest as a user has it: the agents of two hosts as two processes on loopback, Debian's kernel in QEMU
// (TCG, one vCPU), and in it the program that rewrites pages and checks all of them at each tick.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { filter, firstValueFrom, timeout } from 'rxjs';
import { stringify } from 'yaml';
import { DemoChild } from '../../src/cli/demo/child.js';
import { freePort, type DemoHost } from '../../src/cli/demo/cluster.js';
import type { SupervisorMessage } from '../../src/cli/supervisor.js';
import type { GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { guestCommandLine } from '../../src/hypervisor/qemu/guest/command-line.js';
import { monotonicMs } from '../../src/flow/clock.js';
import type { CheckpointReport } from '../../src/report/reports.js';

const ENTRY = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const LIMIT_MS = 60_000;

export interface Load {
  readonly workingSetPages: number;
  readonly dirtyPages: number;
  readonly tickMs: number;
}

/** QEMU's arguments for the guest alone. */
export function guestArguments(files: GuestFiles, load: Load): string[] {
  return ['-kernel', files.kernel, '-initrd', files.initramfs, '-append', guestCommandLine(load)];
}

/** When each tick was seen. */
export class Ticks {
  readonly seen: { readonly number: number; readonly atMs: number }[] = [];
  #rest = '';
  #waiting: (() => void)[] = [];

  push(bytes: Uint8Array): void {
    const atMs = monotonicMs();
    const lines = (this.#rest + Buffer.from(bytes).toString('latin1')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      const number = /^tick (\d+) ok\r?$/.exec(line)?.[1];
      if (number !== undefined) this.seen.push({ number: Number(number), atMs });
      else if (line.includes('BAD')) throw new Error(`the guest's memory is wrong: ${line}`);
    }
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async until(count: number): Promise<void> {
    while (this.seen.length < count) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Ticks a second, over the ticks seen since `from` of them. */
  rate(from: number): number {
    const first = this.seen[from];
    const last = this.seen.at(-1);
    if (!first || !last || last.atMs <= first.atMs) return NaN;
    return ((last.number - first.number) / (last.atMs - first.atMs)) * 1000;
  }
}

export interface PairOptions {
  readonly files: GuestFiles;
  readonly load: Load;
  readonly intervalMs: number;
  /** The guest has booted and works before there is a secondary. Default: it boots under protection. */
  readonly joinAtWork?: boolean;
  /** As in the configuration. Default: auto. */
  readonly trialLoads?: 'each' | 'first';
}

export class Pair {
  readonly reports: CheckpointReport[] = [];
  readonly primaryTicks = new Ticks();
  readonly secondaryTicks = new Ticks();
  readonly #messages: { readonly message: SupervisorMessage; readonly atMs: number }[] = [];

  static async start({
    files,
    load,
    intervalMs,
    joinAtWork = false,
    trialLoads,
  }: PairOptions): Promise<Pair> {
    const pair = new Pair(await mkdtemp(path.join(tmpdir(), 'romulus-bench-')));
    try {
      const hypervisor = {
        kind: 'qemu',
        accelerator: 'tcg',
        cpu: 'max',
        memory: '128MiB',
        arguments: guestArguments(files, load),
        network: [{ id: 'net', user: 'restrict=on' }],
      };
      const cluster = {
        witness: { kind: 'file', directory: 'witness' },
        hosts: {
          alpha: { address: '127.0.0.1', port: await freePort() },
          beta: { address: '127.0.0.1', port: await freePort() },
        },
        token: 'token',
        control: '{host}.sock',
        http: false,
        log: { level: 'warn', format: 'json' },
        domains: [
          {
            name: 'bench',
            hosts: ['alpha', 'beta'],
            hypervisor: { ...hypervisor, ...(trialLoads && { trialLoads }) },
            start: joinAtWork ? 'immediately' : 'with-standby',
            checkpoint: { intervalMs },
          },
        ],
      };
      await mkdir(path.join(pair.directory, 'witness'));
      await writeFile(pair.#file, stringify(cluster));
      await pair.#startChild('alpha', pair.primaryTicks);
      if (joinAtWork) await pair.#ticking();
      await pair.#startChild('beta', pair.secondaryTicks);
      if (joinAtWork) await pair.#message(pair.#child(0), ({ kind }) => kind === 'checkpoint');
      else await pair.#ticking();
      return pair;
    } catch (error) {
      for (const child of pair.#children) for (const line of child.log) console.error(line);
      await pair.end();
      throw error;
    }
  }

  readonly #children: DemoChild[] = [];

  private constructor(private readonly directory: string) {}

  /** SIGKILL to the primary's agent and its QEMU: milliseconds until the guest ran on the secondary, and the takeover's part. */
  async kill(): Promise<{ readonly totalMs: number; readonly takeoverMs: number }> {
    const running = this.#message(
      this.#child(1),
      (message) => message.kind === 'failover' && message.event.phase !== 'started',
    );
    const primary = this.#child(0);
    const qemu = childrenOf(primary.pid, '(qemu-system');
    const killedAtMs = primary.kill();
    for (const pid of qemu) process.kill(pid, 'SIGKILL');
    const message = await running;
    if (message.kind !== 'failover' || message.event.phase !== 'completed') throw new Error('no failover');
    const { atMs, takeoverSeconds } = message.event;
    await this.secondaryTicks.until(3);
    return { totalMs: atMs - killedAtMs, takeoverMs: takeoverSeconds * 1000 };
  }

  /** Milliseconds of the first checkpoint, all of RAM: from linked to acknowledged, and the pause in it. */
  firstSynchronisation(): { readonly totalMs: number; readonly pauseMs: number } {
    const linked = this.#messages.find(
      ({ message }) => message.kind === 'transition' && message.report.reason === 'linked',
    );
    const first = this.#messages.find(({ message }) => message.kind === 'checkpoint');
    if (linked?.message.kind !== 'transition' || first?.message.kind !== 'checkpoint') {
      throw new Error('the reports of the beginning are missing');
    }
    return {
      totalMs: first.atMs - linked.message.report.atMs,
      pauseMs: first.message.report.pause * 1000,
    };
  }

  async end(): Promise<void> {
    await Promise.all(this.#children.map((child) => child.stop()));
    await rm(this.directory, { recursive: true, force: true });
  }

  async #startChild(host: DemoHost, ticks: Ticks): Promise<void> {
    const child = new DemoChild(host, ENTRY, this.#file);
    this.#children.push(child);
    child.console$.subscribe((bytes) => ticks.push(bytes));
    child.messages$.subscribe((message) => {
      this.#messages.push({ message, atMs: monotonicMs() });
      if (message.kind === 'checkpoint') this.reports.push(message.report);
    });
    await this.#message(child, ({ kind }) => kind === 'listening');
  }

  get #file(): string {
    return path.join(this.directory, 'cluster.yaml');
  }

  async #message(
    child: DemoChild,
    wanted: (message: SupervisorMessage) => boolean,
  ): Promise<SupervisorMessage> {
    return firstValueFrom(child.messages$.pipe(filter(wanted), timeout({ first: LIMIT_MS })));
  }

  #child(index: number): DemoChild {
    const child = this.#children[index];
    if (!child) throw new Error('it was not started yet');
    return child;
  }

  async #ticking(): Promise<void> {
    const late = sleep(LIMIT_MS, undefined, { ref: false }).then(() => {
      throw new Error('the guest does not tick');
    });
    await Promise.race([this.primaryTicks.until(5), late]);
  }
}

function childrenOf(parent: number, name: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
        const [, parentField] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return Number(parentField) === parent && stat.includes(name);
      } catch {
        return false; // it has just ended
      }
    })
    .map(Number);
}
