// Either host is killed at any moment of a switchover and comes back: the domain never runs twice, and always again.

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import type { RegisterWitness } from '../../src/failover/register.js';
import { createFileWitness } from '../../src/failover/witnesses/file/file.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import type { AgentChildMessage } from './agent-child.js';
import { HOSTS, type HostName } from './two-agents.js';

const CHILD = fileURLToPath(new URL('./agent-child.js', import.meta.url));
const ROUNDS = 24;
/** From a quiet moment before a switchover to one behind it. */
const MOMENTS_MS = 120;
const PATIENCE_MS = 60_000;
/** What was acknowledged and not yet let out when its host was killed. */
const UNSAID_TICKS_MAX = 60;

/** One who hears both hosts. */
class Listener {
  boots = 0;
  ticks = 0;
  readonly faults: string[] = [];
  /** Of the present life of the guest: who said it. */
  readonly #heard = new Map<number, HostName>();
  #last = 0;
  readonly #rest: Record<HostName, string> = { alpha: '', beta: '' };

  hear(host: HostName, text: string): void {
    const lines = (this.#rest[host] + text).split('\n');
    this.#rest[host] = lines.pop() ?? '';
    for (const line of lines) {
      const [, number] = /tick (\d+)/.exec(line) ?? [];
      if (number !== undefined) this.#tick(host, Number(number));
    }
  }

  /** What it has not finished saying it never will. */
  killed(host: HostName): void {
    this.#rest[host] = '';
  }

  #tick(host: HostName, tick: number): void {
    this.ticks++;
    if (tick === 1) {
      this.boots++;
      this.#heard.clear();
      this.#last = 0;
    }
    const before = this.#heard.get(tick);
    if (before !== undefined) this.faults.push(`${host} says ${tick}, which ${before} has said`);
    else if (tick > this.#last + UNSAID_TICKS_MAX)
      this.faults.push(`${host} says ${tick} after ${this.#last}`);
    this.#heard.set(tick, host);
    this.#last = Math.max(this.#last, tick);
  }
}

interface Side {
  readonly process: ChildProcess;
  readonly closed: Promise<unknown>;
  fares: string;
}

describe('service: a host is killed during a switchover', function () {
  this.timeout(ROUNDS * PATIENCE_MS);
  const cleanup = new Cleanup();
  const sides = new Map<HostName, Side>();
  const listener = new Listener();
  const outcomes: string[] = [];
  let cluster: unknown = null;
  let witness: RegisterWitness | null = null;
  afterEach(() => cleanup.run());

  function begin(host: HostName): void {
    const child = fork(CHILD, { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    const side: Side = { process: child, closed: once(child, 'close'), fares: '' };
    sides.set(host, side);
    cleanup.add(() => kill(host));
    child.on('message', (given) => {
      const message = given as AgentChildMessage;
      if (message.kind === 'said') listener.hear(host, message.text);
      else if (message.kind === 'fares') side.fares = message.fares;
      else outcomes.push(message.code ?? 'done');
    });
    child.send({ cluster, host });
  }

  async function kill(host: HostName): Promise<void> {
    const side = sides.get(host);
    side?.process.kill('SIGKILL');
    await side?.closed;
    listener.killed(host);
  }

  /** The owner, when the other one stands by, and the register knows it. */
  async function paired(): Promise<HostName> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const register = await witness?.read('web');
      const owner = HOSTS.find((host) => host === register?.owner);
      const fares = HOSTS.map((host) => `${host === owner} ${sides.get(host)?.fares}`);
      const isPaired = ['true owner, replicating', 'false standby, replicating'].every((is) =>
        fares.includes(is),
      );
      if (owner && isPaired && register?.mode === 'paired') return owner;
      if (performance.now() > deadline) throw new Error(`not protected again: ${fares.join(', ')}`);
      await sleep(2);
    }
  }

  it(`${ROUNDS} times: never two, never none`, async () => {
    const [alpha, beta] = await freePorts();
    const directory = await cleanup.directory();
    witness = createFileWitness({ directory });
    cleanup.add(() => witness?.close());
    cluster = {
      witness: { kind: 'file', directory },
      hosts: { alpha: { address: '127.0.0.1', port: alpha }, beta: { address: '127.0.0.1', port: beta } },
      http: false,
      log: { level: 'silent' },
      domains: [
        {
          name: 'web',
          hosts: HOSTS,
          hypervisor: {
            kind: 'embedded',
            memory: '4MiB',
            guest: { dirtyPages: 10, workingSetPages: 64, tickMs: 5 },
          },
          checkpoint: { intervalMs: 20 },
          heartbeat: { intervalMs: 50, timeoutMs: 400 },
        },
      ],
    };
    for (const host of HOSTS) begin(host);
    for (let round = 0; round < ROUNDS; round++) {
      const owner = await paired();
      const victim = HOSTS.find((host) => (host === owner) === (round % 2 === 0)) ?? owner;
      const { ticks } = listener;
      await until('it speaks', () => listener.ticks > ticks + 5, PATIENCE_MS);
      sides.get(owner)?.process.send('switch over');
      await sleep(Math.random() * MOMENTS_MS);
      await kill(victim);
      begin(victim);
      expect(listener.faults).to.deep.equal([]);
    }
    await paired();
    const { ticks } = listener;
    await until('it speaks', () => listener.ticks > ticks + 50, PATIENCE_MS);
    expect(listener.faults).to.deep.equal([]);
    console.log(`${listener.ticks} ticks, ${listener.boots} boots, ${outcomes.join(' ')}`);
  });
});

async function freePorts(): Promise<number[]> {
  const servers = [0, 0].map((port) => createServer().listen(port, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}
