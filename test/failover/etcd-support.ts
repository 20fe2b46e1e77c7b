// Real etcd for the tests: members as child processes, on free ports of the loopback, with data that is gone afterwards.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cleanup } from '../support/cleanup.js';
import { stopProcesses } from '../support/processes.js';
import { ensureTool } from '../support/tools.js';

const START_TIMEOUT_MS = 30_000;
/** A port that was free may be somebody else's by the time that it is listened on. */
const STARTS_MAX = 3;

let program: string | null = null;

/** For `before`: skips the suite, loudly, where there is no etcd. */
export async function needEtcd(context: Mocha.Context): Promise<void> {
  context.timeout(300_000);
  program = await ensureTool('etcd', 'etcd-server');
  if (program === null) context.skip();
}

export interface EtcdOptions {
  readonly members?: number;
  /** More arguments, of clients' TLS. */
  readonly args?: readonly string[];
  readonly scheme?: 'http' | 'https';
}

export class EtcdMember {
  readonly endpoint: string;
  readonly #args: readonly string[];
  #process: ChildProcess | null = null;

  constructor(endpoint: string, args: readonly string[]) {
    this.endpoint = endpoint;
    this.#args = args;
  }

  /** Resolves to whether it listens now. */
  async start(): Promise<boolean> {
    const child = spawn(program ?? 'etcd', this.#args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process = child;
    const ended = once(child, 'close').then(() => false);
    const listening = new Promise<boolean>((resolve) => {
      child.stderr.on('data', (chunk: Buffer) => {
        if (/serving client traffic/.test(chunk.toString())) resolve(true);
      });
    });
    return Promise.race([listening, ended, sleep(START_TIMEOUT_MS, false, { ref: false })]);
  }

  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const closed = once(child, 'close');
    child.kill('SIGKILL');
    await closed;
  }

  async stop(): Promise<void> {
    await stopProcesses([this.#process?.pid ?? NaN]);
  }

  goOn(): void {
    this.#process?.kill('SIGCONT');
  }
}

/** Resolves when all of them serve. */
export async function startEtcd(cleanup: Cleanup, options: EtcdOptions = {}): Promise<EtcdMember[]> {
  for (let starts = 1; ; starts++) {
    const members = await layOut(cleanup, options);
    cleanup.add(() => Promise.all(members.map((member) => member.kill())));
    const started = await Promise.all(members.map((member) => member.start()));
    if (started.every(Boolean)) return members;
    await Promise.all(members.map((member) => member.kill()));
    if (starts === STARTS_MAX) throw new Error('etcd does not start');
  }
}

async function layOut(cleanup: Cleanup, options: EtcdOptions): Promise<EtcdMember[]> {
  const { members = 1, args = [], scheme = 'http' } = options;
  const directory = await cleanup.directory();
  const ports = await freePorts(2 * members);
  const at = (index: number) => `127.0.0.1:${ports[index] ?? NaN}`;
  const names = Array.from({ length: members }, (_, index) => `m${index}`);
  const cluster = names.map((name, index) => `${name}=http://${at(members + index)}`).join(',');
  return names.map((name, index) => {
    const client = `${scheme}://${at(index)}`;
    const peer = `http://${at(members + index)}`;
    return new EtcdMember(client, [
      ...['--name', name, '--data-dir', `${directory}/${name}`, '--logger', 'zap'],
      ...['--listen-client-urls', client, '--advertise-client-urls', client],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
      ...['--initial-cluster', cluster, '--heartbeat-interval', '50', '--election-timeout', '500'],
      ...args,
    ]);
  });
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}

/** A call of the gateway as anybody makes it. */
export async function gateway<T>(endpoint: string, path: string, body: object, token?: string): Promise<T> {
  const response = await fetch(`${endpoint}/v3/${path}`, {
    method: 'POST',
    body: JSON.stringify(body),
    ...(token !== undefined && { headers: { authorization: token } }),
  });
  const answer: unknown = await response.json();
  if (!response.ok) throw new Error(JSON.stringify(answer));
  return answer as T;
}

export const base64 = (text: string): string => Buffer.from(text).toString('base64');

interface Range {
  readonly kvs?: readonly { readonly value: string; readonly mod_revision: string }[];
}

/** The tokens of all registers that a domain has ever had, the first first: etcd keeps its history. */
export async function historyOf(endpoint: string, domain: string): Promise<string[]> {
  const key = base64(`/romulus/${domain}`);
  const tokens: string[] = [];
  for (let at = {}; ;) {
    const { kvs: [held] = [] } = await gateway<Range>(endpoint, 'kv/range', { key, ...at });
    if (held === undefined) return tokens;
    const value = JSON.parse(Buffer.from(held.value, 'base64').toString()) as { token: string };
    tokens.unshift(value.token);
    at = { revision: String(Number(held.mod_revision) - 1) };
  }
}
