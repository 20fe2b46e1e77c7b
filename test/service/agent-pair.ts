// Two agents, each in a process of its own (agent-child.ts), and the register that both see.

import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createFileWitness } from '../../src/failover/witnesses/file/file.js';
import type { RegisterWitness } from '../../src/failover/register.js';
import type { SwitchoverReport } from '../../src/report/reports.js';
import { until } from '../support/until.js';
import type { AgentChildMessage, AgentChildRequest } from './agent-child.js';

export const HOSTS = ['alpha', 'beta'] as const;
export type HostName = (typeof HOSTS)[number];

const CHILD = fileURLToPath(new URL('./agent-child.js', import.meta.url));
/** A busy machine is slow. */
export const PATIENCE_MS = 60_000;
const STDIO: StdioOptions = ['ignore', 'ignore', 'inherit', 'ipc'];

export interface AgentPairOptions {
  /** Left out: `more` has that of each. */
  readonly cluster?: object;
  /** Of the register, as this process sees it. */
  readonly directory: string;
  readonly said: (host: HostName, text: string) => void;
  /** Runs it on that host. Default: a child of this process. */
  readonly spawn?: (
    host: HostName,
    command: string,
    args: readonly string[],
    stdio: StdioOptions,
  ) => ChildProcess;
  /** As this process can end it. Default: the child. */
  readonly kill?: (child: ChildProcess) => void;
  /** A program that is an agent (beAgent), and more. Default: agent-child.js. */
  readonly program?: string;
  /** What it is told at its start beside its cluster. */
  readonly more?: (host: HostName) => object;
  /** What it says beside what an agent-child does. */
  readonly heard?: (host: HostName, message: unknown) => void;
}

type Spawn = NonNullable<AgentPairOptions['spawn']>;

const ofOurs: Spawn = (_, command, args, stdio) => spawn(command, args, { stdio });

function ended(child: ChildProcess): void {
  child.kill('SIGKILL');
}

interface Side {
  readonly process: ChildProcess;
  readonly closed: Promise<unknown>;
  fares: string;
}

export class AgentPair {
  readonly reports: SwitchoverReport[] = [];
  /** The codes of those that came to nothing. */
  readonly refusals: string[] = [];
  /** What came of trials. */
  readonly trials: string[] = [];
  readonly #options: AgentPairOptions;
  readonly #witness: RegisterWitness;
  readonly #sides = new Map<HostName, Side>();

  constructor(options: AgentPairOptions) {
    this.#options = options;
    this.#witness = createFileWitness({ directory: options.directory });
  }

  begin(host: HostName): void {
    const { cluster, said, heard, program = CHILD } = this.#options;
    const run = this.#options.spawn ?? ofOurs;
    const child = run(host, process.execPath, ['--enable-source-maps', program], STDIO);
    const side: Side = { process: child, closed: once(child, 'close'), fares: '' };
    this.#sides.set(host, side);
    child.on('message', (given) => {
      const message = given as AgentChildMessage;
      if (message.kind === 'said') said(host, message.text);
      else if (message.kind === 'fares') side.fares = message.fares;
      else if (message.kind === 'switched') this.reports.push(message.report);
      else if (message.kind === 'tried') this.trials.push(message.outcome);
      else if (message.kind === 'more') heard?.(host, message.message);
      else this.refusals.push(message.code);
    });
    child.send({ cluster, host, ...this.#options.more?.(host) });
  }

  /** From whichever has it to the other; asked again where the pair was not on time just then, as on a busy machine. */
  async switchedOver(limitMs: number): Promise<SwitchoverReport> {
    const deadline = performance.now() + limitMs;
    const asked = this.reports.length;
    for (;;) {
      const owner = await this.paired();
      const refused = this.refusals.length;
      this.switchOver(owner);
      const isAnswered = () => this.reports.length > asked || this.refusals.length > refused;
      await until('an answer to the switchover', isAnswered, deadline - performance.now());
      const report = this.reports[asked];
      if (report) return report;
      const code = this.refusals[refused];
      if (code !== 'NOT_PAIRED') throw new Error(`the switchover ended with ${code}`);
    }
  }

  /** What becomes of it is in the reports, or the refusals. */
  switchOver(owner: HostName): void {
    this.ask(owner, 'switch over');
  }

  /** What its standby holds, until something ends that. */
  tryStandby(standby: HostName): void {
    this.ask(standby, 'try');
  }

  ask(host: HostName, request: AgentChildRequest | object): void {
    this.#sides.get(host)?.process.send(request);
  }

  /** Null: it has ended. */
  pidOf(host: HostName): number | null {
    const child = this.#sides.get(host)?.process;
    return child?.exitCode === null && child.signalCode === null ? (child.pid ?? null) : null;
  }

  /** By the register nobody may take it over. */
  async isAlone(): Promise<boolean> {
    return (await this.#witness.read('web'))?.mode === 'alone';
  }

  faresOf(host: HostName): string {
    return this.#sides.get(host)?.fares ?? '';
  }

  async kill(host: HostName): Promise<void> {
    const side = this.#sides.get(host);
    if (!side) return;
    this.#sides.delete(host);
    const kill = this.#options.kill ?? ended;
    kill(side.process);
    await side.closed;
  }

  /** The owner, when the other one stands by, and the register says so. */
  async paired(): Promise<HostName> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const register = await this.#witness.read('web');
      const owner = HOSTS.find((host) => host === register?.owner);
      const fares = HOSTS.map((host) => `${host === owner} ${this.#sides.get(host)?.fares}`);
      const isPaired = ['true owner, replicating', 'false standby, replicating'].every((is) =>
        fares.includes(is),
      );
      if (owner && isPaired && register?.mode === 'paired') return owner;
      if (performance.now() > deadline) throw new Error(`not protected in time: ${fares.join(', ')}`);
      await sleep(2);
    }
  }

  async close(): Promise<void> {
    await Promise.all(HOSTS.map((host) => this.kill(host)));
    await this.#witness.close();
  }
}
