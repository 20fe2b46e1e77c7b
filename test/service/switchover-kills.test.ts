// Either host is killed at any moment of a switchover and comes back: the domain never runs twice, and always again.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Cleanup } from '../support/cleanup.js';
import { freePorts } from '../support/ports.js';
import { until } from '../support/until.js';
import { AgentPair, HOSTS, PATIENCE_MS, type HostName } from './agent-pair.js';
import { LONG, times } from '../support/length.js';

const ROUNDS = times(6, 50);
/** From a quiet moment before a switchover to one behind it. */
const MOMENTS_MS = 120;
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

describe('service: a host is killed during a switchover', function () {
  this.timeout(ROUNDS * PATIENCE_MS);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it(`${ROUNDS} times: never two, never none`, async () => {
    const [alpha, beta] = await freePorts(2);
    const directory = await cleanup.directory();
    const cluster = {
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
    const listener = new Listener();
    const pair = new AgentPair({ cluster, directory, said: (host, text) => listener.hear(host, text) });
    cleanup.add(() => pair.close());
    for (const host of HOSTS) pair.begin(host);
    const speaks = async () => {
      const { ticks } = listener;
      await until('it speaks', () => listener.ticks > ticks + 5, PATIENCE_MS);
      expect(listener.faults).to.deep.equal([]);
    };
    for (let round = 0; round < ROUNDS; round++) {
      const owner = await pair.paired();
      await speaks();
      const victim = HOSTS.find((host) => (host === owner) === (round % 2 === 0)) ?? owner;
      pair.switchOver(owner);
      await sleep(Math.random() * MOMENTS_MS);
      await pair.kill(victim);
      listener.killed(victim);
      pair.begin(victim);
    }
    await pair.paired();
    await speaks();
    console.log(
      `      ${pair.reports.length} switched over, ${pair.refusals.length} not; booted anew ${listener.boots - 1} times`,
    );
    // A moment that is any moment hits some of both, if there are enough of them.
    if (LONG) expect(pair.reports).to.not.deep.equal([]);
  });
});
