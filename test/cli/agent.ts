// An agent as a user starts it: `romulus agent`, a process of its own with the file of the cluster. Of its two hosts alpha
// starts the domain, and beta stands by.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SupervisorMessage } from '../../src/cli/supervisor.js';
import type { Cleanup } from '../support/cleanup.js';
import { freePorts } from '../support/ports.js';
import { until } from '../support/until.js';

export const ENTRY = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** A loaded machine is slow. */
const PATIENCE_MS = 30_000;

/** What Node is to run, with a file of its own. */
export async function commandOf(cleanup: Cleanup, host: string, config: unknown): Promise<string[]> {
  const file = path.join(await cleanup.directory(), 'cluster.yaml');
  await writeFile(file, JSON.stringify(config));
  return [ENTRY, 'agent', '--config', file, '--host', host];
}

export class Agent {
  readonly process: ChildProcess;
  readonly messages: SupervisorMessage[] = [];
  stdout = '';
  stderr = '';
  readonly #closed: Promise<unknown>;

  /** `config` is JSON, which is YAML. `wrapped`: a command that is given the agent's as its arguments. */
  static async start(
    cleanup: Cleanup,
    host: string,
    config: unknown,
    wrapped: readonly string[] = [],
  ): Promise<Agent> {
    const agent = new Agent([...wrapped, process.execPath, ...(await commandOf(cleanup, host, config))]);
    cleanup.add(() => agent.kill());
    return agent;
  }

  private constructor([command = '', ...rest]: readonly string[]) {
    const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    this.process = child;
    this.#closed = once(child, 'close');
    child.on('message', (message) => this.messages.push(message as SupervisorMessage));
    child.stdout?.on('data', (piece: Buffer) => (this.stdout += piece.toString()));
    child.stderr?.on('data', (piece: Buffer) => (this.stderr += piece.toString()));
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  get lives(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null;
  }

  /** Of the replication. */
  get port(): number {
    return this.messages.find((message) => message.kind === 'listening')?.port ?? 0;
  }

  count(kind: SupervisorMessage['kind']): number {
    return this.messages.filter((message) => message.kind === kind).length;
  }

  /** The text of each log line that matches. */
  says(what: RegExp): string[] {
    return this.stderr.split('\n').filter((line) => what.test(line));
  }

  async listening(): Promise<void> {
    await until('the agent has started', () => !this.lives || this.count('listening') > 0, PATIENCE_MS);
    if (!this.lives) throw new Error(`the agent has ended: ${this.stderr}`);
  }

  /** Two more than there are now. */
  async more(kind: 'checkpoint' | 'commit'): Promise<void> {
    const before = this.count(kind);
    await until(`more of ${kind}`, () => this.count(kind) > before + 1, PATIENCE_MS);
  }

  /** How it ended; fails if it does not. */
  async ended(timeoutMs = PATIENCE_MS): Promise<number | NodeJS.Signals | null> {
    const { process: child } = this;
    await until('the agent ends', () => !this.lives, timeoutMs);
    await this.#closed;
    return child.exitCode ?? child.signalCode;
  }

  async kill(): Promise<void> {
    if (this.lives) this.process.kill('SIGKILL');
    await this.#closed;
  }
}

/** The machine that Romulus brings along, small. */
const HYPERVISOR = {
  kind: 'embedded',
  memory: '4MiB',
  guest: { dirtyPages: 5, workingSetPages: 64, tickMs: 10 },
};

export interface ClusterChanges {
  /** Of the sections of alpha and of both hosts. */
  readonly alpha?: Record<string, unknown>;
  readonly both?: Record<string, unknown>;
  /** What the domain's output is on alpha. */
  readonly output?: Record<string, unknown>;
  /** Of the domain. */
  readonly domain?: Record<string, unknown>;
  /** Keys of the file beside those. */
  readonly file?: Record<string, unknown>;
}

/** A cluster's file, with ports that are free and registers of its own. */
export async function clusterOf(cleanup: Cleanup, changes: ClusterChanges = {}) {
  const [alpha = 0, beta = 0] = await freePorts(2);
  const { both, output, domain, file } = changes;
  const directory = await cleanup.directory();
  return {
    witness: { kind: 'file', directory },
    hosts: {
      alpha: { address: '127.0.0.1', port: alpha, ...both, ...changes.alpha },
      beta: { address: '127.0.0.1', port: beta, ...both },
    },
    control: path.join(directory, '{host}.sock'),
    http: false,
    domains: [
      {
        name: 'web',
        hosts: { alpha: output ? { output } : {}, beta: {} },
        hypervisor: HYPERVISOR,
        checkpoint: { intervalMs: 10, slab: '1MiB' },
        heartbeat: { intervalMs: 100, timeoutMs: 5000 },
        failover: { redialMinMs: 10, redialMaxMs: 100 },
        output: { console: 'none' },
        ...domain,
      },
    ],
    ...file,
  };
}
