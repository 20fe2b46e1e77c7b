// A protected QEMU guest as a user has it: `romulus primary` and `romulus secondary` as two processes on loopback, Debian's
// kernel in QEMU (TCG, one vCPU), and in it the program that rewrites pages and checks all of them at each tick.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { filter, firstValueFrom } from 'rxjs';
import { stringify } from 'yaml';
import { DemoChild } from '../../src/cli/demo/child.js';
import type { SupervisorMessage } from '../../src/cli/supervisor.js';
import type { GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { guestCommandLine } from '../../src/hypervisor/qemu/guest/command-line.js';
import { monotonicMs } from '../../src/service/clock.js';
import type { CheckpointReport } from '../../src/service/reports.js';

const ENTRY = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const BOOT_TIMEOUT_MS = 60_000;

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
}

export class Pair {
  readonly reports: CheckpointReport[] = [];
  readonly primaryTicks = new Ticks();
  readonly secondaryTicks = new Ticks();
  readonly messages: { readonly message: SupervisorMessage; readonly atMs: number }[] = [];

  static async start(options: PairOptions): Promise<Pair> {
    const directory = await mkdtemp(path.join(tmpdir(), 'romulus-bench-'));
    const children: DemoChild[] = [];
    try {
      const hypervisor = {
        kind: 'qemu',
        accelerator: 'tcg',
        cpu: 'max',
        memory: '128MiB',
        arguments: guestArguments(options.files, options.load),
        network: [{ id: 'net', user: 'restrict=on' }],
      };
      const common = { name: 'bench', hypervisor, output: { console: 'stdout' } };
      const quiet = { http: false, log: { level: 'warn', format: 'json' } };
      const checkpoint = { intervalMs: options.intervalMs };
      const start = async (name: 'primary' | 'secondary', config: object): Promise<number | null> => {
        const file = path.join(directory, `${name}.yaml`);
        await writeFile(file, stringify(config));
        const child = new DemoChild(name, ENTRY, file);
        children.push(child);
        const listening = await firstValueFrom(
          child.messages$.pipe(filter((message) => message.kind === 'listening')),
        );
        return listening.port;
      };
      const port = await start('primary', {
        ...quiet,
        listen: { port: 0 },
        domains: [{ ...common, start: 'with-secondary', checkpoint }],
      });
      await start('secondary', {
        ...quiet,
        domains: [{ ...common, primary: `ws://127.0.0.1:${String(port)}` }],
      });
      const [primary, secondary] = children;
      if (!primary || !secondary) throw new Error('two children were started');
      const pair = new Pair(directory, primary, secondary);
      await pair.#ticking();
      return pair;
    } catch (error) {
      for (const child of children) for (const line of child.log) console.error(line);
      await Promise.all(children.map((child) => child.stop()));
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  private constructor(
    private readonly directory: string,
    private readonly primary: DemoChild,
    private readonly secondary: DemoChild,
  ) {
    primary.console$.subscribe(({ bytes }) => this.primaryTicks.push(bytes));
    secondary.console$.subscribe(({ bytes }) => this.secondaryTicks.push(bytes));
    for (const child of [primary, secondary]) {
      child.messages$.subscribe((message) => {
        this.messages.push({ message, atMs: monotonicMs() });
        if (message.kind === 'checkpoint') this.reports.push(message.report);
      });
    }
  }

  /** SIGKILL to the primary's agent and its QEMU; milliseconds until the guest ran on the secondary, and of them the takeover. */
  async kill(): Promise<{ readonly totalMs: number; readonly takeoverMs: number }> {
    const running = firstValueFrom(
      this.secondary.messages$.pipe(
        filter((message) => message.kind === 'failover' && message.event.phase !== 'started'),
      ),
    );
    const qemu = this.#qemuOf(this.primary);
    const killedAtMs = this.primary.kill();
    for (const pid of qemu) process.kill(pid, 'SIGKILL');
    const message = await running;
    if (message.kind !== 'failover' || message.event.phase !== 'completed') throw new Error('no failover');
    const { atMs, takeoverSeconds } = message.event;
    await this.secondaryTicks.until(3);
    return { totalMs: atMs - killedAtMs, takeoverMs: takeoverSeconds * 1000 };
  }

  async end(): Promise<void> {
    await Promise.all([this.primary.stop(), this.secondary.stop()]);
    await rm(this.directory, { recursive: true, force: true });
  }

  async #ticking(): Promise<void> {
    const ended = Promise.race([this.primary.closed, this.secondary.closed]).then(() => {
      throw new Error('a service has ended');
    });
    const late = new Promise<never>((_resolve, reject) => {
      setTimeout(() => reject(new Error('the guest does not tick')), BOOT_TIMEOUT_MS).unref();
    });
    await Promise.race([this.primaryTicks.until(5), ended, late]);
  }

  #qemuOf(child: DemoChild): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
          const [, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
          return Number(parent) === child.pid && stat.includes('(qemu-system');
        } catch {
          return false; // it has just ended
        }
      })
      .map(Number);
  }
}
