// One host of a cluster, over all its lives: its agent, which is the command that a user starts, and what that says.

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { SupervisorMessage } from '../../src/cli/supervisor.js';
import type { CommitReport, Synchronisation } from '../../src/report/reports.js';
import { SHARED, stoppableOf, type Lab } from '../hypervisor/qemu/lab.js';
import { childrenOf, isAlive, processesWith, stopProcesses } from '../support/processes.js';
import { until } from '../support/until.js';
import { plug, type HostName } from './network.js';

const ROMULUS = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const START_TIMEOUT_MS = 90_000;
const DEATH_TIMEOUT_MS = 30_000;
const CONSOLE_LINES_MAX = 1000;

/** A line of an agent's log. */
export interface Said {
  readonly host: HostName;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  readonly level: string;
  readonly domain: string;
  readonly msg: string;
  /** All that the line has. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** What a guest ticked on the console that its host lets out, when it came here. */
export interface Tick {
  readonly host: HostName;
  readonly atMs: number;
  readonly number: number;
}

/** A register that it has written, or found instead of what it wanted to write. */
export interface Seen {
  readonly generation: number;
  readonly mode: string;
  readonly owner: string;
  readonly standby: string | null;
}

/** What it was like last, of one domain. */
export interface Part {
  readonly role: string;
  readonly link: string;
}

/** How it dies. agent: only that, by SIGKILL. processes: that and its QEMUs. power: the cable first. */
export type Death = 'agent' | 'processes' | 'power';

interface RawLine extends Record<string, unknown> {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly domain?: string;
}

/** A process and all below it. */
function familyOf(pid: number): number[] {
  try {
    return [pid, ...childrenOf(pid).flatMap(familyOf)];
  } catch {
    return []; // it has just ended
  }
}

function isGuard(pid: number): boolean {
  return processesWith('guard.js').includes(pid);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}

export class ClusterHost {
  readonly name: HostName;
  /** Of all its lives. */
  readonly said: Said[] = [];
  readonly ticks: Tick[] = [];
  /** Said on a console, and no tick: of a guest that is not well. */
  readonly bad: string[] = [];
  /** What else was said there, the last lines. */
  readonly console: string[] = [];
  /** Of the standbys that it has brought to their first checkpoint. */
  readonly synchronisations: Synchronisation[] = [];
  lives = 0;
  readonly #lab: Lab;
  /** The cluster's file, by its name in the lab; for its next life. */
  config: string;
  readonly #parts = new Map<string, Part>();
  readonly #won = new Map<string, Seen>();
  readonly #commits = new Map<string, CommitReport>();
  #process: ChildProcess | null = null;

  constructor(lab: Lab, name: HostName, config: string) {
    this.name = name;
    this.#lab = lab;
    this.config = config;
  }

  get runs(): boolean {
    return this.#process !== null;
  }

  /** Of the agent. */
  get pid(): number {
    if (!this.#process) throw new Error(`${this.name} is dead`);
    return stoppableOf(this.#process);
  }

  /** The agent, and what it has started. */
  get pids(): readonly number[] {
    return familyOf(this.pid);
  }

  partIn(domain: string): Part {
    return (this.runs ? this.#parts.get(domain) : undefined) ?? { role: 'none', link: 'down' };
  }

  /** The register of the domain that it has written last. */
  wonIn(domain: string): Seen | undefined {
    return this.#won.get(domain);
  }

  /** The last checkpoint of the domain that it has committed in this life. */
  commitIn(domain: string): CommitReport | undefined {
    return this.#commits.get(domain);
  }

  async start(): Promise<void> {
    if (this.#process) throw new Error(`${this.name} lives already`);
    this.lives++;
    this.#parts.clear();
    this.#commits.clear();
    // A host comes back with empty file systems in memory.
    const temporary = `tmp-${this.name}`;
    rmSync(this.#lab.outside(temporary), { recursive: true, force: true });
    mkdirSync(this.#lab.outside(temporary));
    const environment = [`TMPDIR=${SHARED}/${temporary}`, `XDG_STATE_HOME=${SHARED}/state-${this.name}`];
    const agent = [process.execPath, ROMULUS, 'agent', '--config', this.config, '--host', this.name];
    const child = this.#lab.spawnStoppable(
      this.name,
      'env',
      [...environment, ...agent],
      ['ignore', 'pipe', 'pipe', 'ipc'],
    );
    this.#process = child;
    let listens = false;
    child.on('message', (message) => {
      listens ||= (message as SupervisorMessage).kind === 'listening';
      this.#hear(message as SupervisorMessage);
    });
    eachLine(child.stdout, (line) => this.#tick(line));
    eachLine(child.stderr, (line) => this.#log(line));
    child.once('close', () => {
      if (this.#process === child) this.#process = null;
    });
    await until(`${this.name} listens`, () => listens || this.#process !== child, START_TIMEOUT_MS);
    if (this.#process !== child) throw new Error(`${this.name} does not start:\n${this.transcript(5)}`);
  }

  /** Resolves when nothing of it runs any more. */
  async die(how: Death): Promise<void> {
    const child = this.#process;
    if (!child) throw new Error(`${this.name} is dead already`);
    const closed = once(child, 'close');
    const family = this.pids;
    if (how === 'power') await plug(this.#lab, this.name, false);
    for (const pid of how === 'agent' ? [this.pid] : family) kill(pid, 'SIGKILL');
    this.#process = null;
    await closed;
    // What guards a QEMU that is not its own outlives it.
    const ended = () => !family.some((pid) => isAlive(pid) && !isGuard(pid));
    await until(`the end of ${this.name}`, ended, DEATH_TIMEOUT_MS);
  }

  /** The QEMU that runs its guest dies, and nothing else. Resolves when it has. */
  async loseQemu(): Promise<void> {
    const qemus = this.pids.filter((pid) => processesWith('qemu-system').includes(pid));
    for (const pid of qemus) kill(pid, 'SIGKILL');
    await until(`the end of ${this.name}’s QEMU`, () => !qemus.some(isAlive), DEATH_TIMEOUT_MS);
  }

  /** After any death. */
  async comeBack(): Promise<void> {
    await plug(this.#lab, this.name, true);
    await this.start();
  }

  /** In order: SIGTERM. */
  async leave(): Promise<void> {
    const child = this.#process;
    if (!child) return;
    const closed = once(child, 'close');
    kill(this.pid, 'SIGTERM');
    await closed;
  }

  /** The agent and its guests, until goOn(). */
  async freeze(): Promise<void> {
    await stopProcesses(this.pids);
  }

  /** Safe to call where nothing is frozen. */
  goOn(): void {
    if (!this.#process) return;
    for (const pid of this.pids) kill(pid, 'SIGCONT');
  }

  /** What it said with these words, since then (milliseconds since 1970). */
  saidSince(sinceMs: number, words: string | RegExp): Said | undefined {
    const fits = (msg: string) => (typeof words === 'string' ? msg.includes(words) : words.test(msg));
    return this.said.find(({ atMs, msg }) => atMs >= sinceMs && fits(msg));
  }

  /** Its last lines. */
  transcript(lines: number): string {
    return this.said
      .slice(-lines)
      .map(({ atMs, msg, domain }) => `${String(atMs)} ${this.name} ${domain} ${msg}`)
      .join('\n');
  }

  #hear(message: SupervisorMessage): void {
    if (message.kind === 'commit') this.#commits.set(message.report.domain, message.report);
    if (message.kind === 'checkpoint' && message.report.synchronisation) {
      this.synchronisations.push(message.report.synchronisation);
    }
    if (message.kind !== 'transition') return;
    const { domain, role, link } = message.report;
    this.#parts.set(domain, { role, link });
  }

  #tick(line: string): void {
    const [, number] = /^tick (\d+) ok\r?$/.exec(line) ?? [];
    if (number !== undefined) this.ticks.push({ host: this.name, atMs: Date.now(), number: Number(number) });
    else if (line.includes('BAD')) this.bad.push(`${this.name}: ${line}`);
    else this.console.push(line);
    if (this.console.length > CONSOLE_LINES_MAX) this.console.shift();
  }

  #log(line: string): void {
    const atMs = Date.now();
    if (!line.startsWith('{')) {
      this.said.push({ host: this.name, atMs, level: 'fatal', domain: '', msg: line, facts: {} });
      return;
    }
    const facts = JSON.parse(line) as RawLine;
    const { level, time, msg, domain = '' } = facts;
    this.said.push({ host: this.name, atMs: Date.parse(time), level, domain, msg, facts });
    if (msg === 'register' && facts['won'] === true) this.#won.set(domain, facts as unknown as Seen);
  }
}

function eachLine(from: ChildProcess['stdout'], heard: (line: string) => void): void {
  let rest = '';
  from?.setEncoding('latin1').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) heard(line);
  });
}
