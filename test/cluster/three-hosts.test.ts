// Three hosts, of which one dies: what it ran and what it stood by for is run, and protected, by the other two, without a
// hand. Embedded guests, real agents, a real etcd.

import { expect } from 'chai';
import { existsSync } from 'node:fs';
import { SHARED } from '../hypervisor/qemu/lab.js';
import { until } from '../support/until.js';
import { Cluster, embeddedDomain, needCluster, PATIENCE_MS } from './cluster.js';
import { HOSTS, type HostName } from './network.js';
import { ownersOf } from './outside.js';

const DOMAINS = 8;

describe('cluster: three hosts, of which one dies', function () {
  this.timeout(3 * PATIENCE_MS);
  let etcd = '';
  let cluster: Cluster | null = null;
  let since = 0;

  before(async function () {
    ({ etcd } = await needCluster(this));
  });
  beforeEach(() => (since = Date.now()));
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(cluster?.transcript(since));
    await cluster?.close();
    cluster = null;
  });

  async function open(domains: readonly object[]): Promise<Cluster> {
    cluster = await Cluster.open({ hosts: HOSTS, etcd, domains, frames: false });
    await cluster.start();
    return cluster;
  }

  it('the standby’s: the third is synchronised', async () => {
    const c = await open([embeddedDomain({ hosts: HOSTS })]);
    await c.untilProtected();
    const [owner, standby] = [c.owner(), c.standby()];
    if (!owner || !standby) throw new Error('nobody is protected');
    await standby.die('power');
    const diedAt = performance.now();
    await until('somebody else', () => c.isProtected() && c.standby() !== standby, PATIENCE_MS);
    console.log(`      protected again after ${(performance.now() - diedAt).toFixed(0)} ms`);
    expect(c.owner()).to.equal(owner);
    const third = c.standby();
    await standby.comeBack();
    await owner.die('power');
    await until('the third runs it', () => c.owner() === third && c.isProtected(), PATIENCE_MS);
    expect(c.standby()).to.equal(standby);
    expect(await c.contradiction()).to.equal(null);
  });

  const names = Array.from({ length: DOMAINS }, (_, k) => `web${k + 1}`);
  const consoleOf = (name: string, host: string) => `${name}.${host}.console`;

  /** Each host is the first for some. */
  function domains(): object[] {
    return names.map((name, k) => {
      const hosts = [...HOSTS.slice(k % 3), ...HOSTS.slice(0, k % 3)];
      return embeddedDomain({
        ...{ name, hosts, intervalMs: 50, timeoutMs: 3000 },
        console: { file: `${SHARED}/${consoleOf(name, '{host}')}` },
      });
    });
  }

  function ticksOn(c: Cluster, name: string, host: string): number[] {
    const file = consoleOf(name, host);
    if (!existsSync(c.lab.outside(file))) return [];
    const text = c.lab.read(file).toString('latin1');
    expect(text).to.not.include('BAD');
    return [...text.matchAll(/^tick (\d+) ok\r?\n/gm)].map((match) => Number(match[1]));
  }

  async function allTick(c: Cluster): Promise<void> {
    const ticks = (name: string) => ticksOn(c, name, c.owner(name)?.name ?? '').length;
    const before = new Map(names.map((name) => [name, ticks(name)]));
    const ticked = (name: string) => ticks(name) > (before.get(name) ?? 0) + 5;
    for (const name of names) await until(`${name} ticks`, () => ticked(name), PATIENCE_MS);
  }

  it(`${DOMAINS} domains: all run, and all are protected again`, async () => {
    const c = await open(domains());
    for (const name of names) await c.untilProtected(name);
    await allTick(c);
    const victim: HostName = c.owner(names[0])?.name ?? 'alpha';
    const ran = names.filter((name) => c.owner(name)?.name === victim);
    const stoodBy = names.filter((name) => c.standby(name)?.name === victim);
    await c.host(victim).die('power');
    const diedAt = performance.now();
    for (const name of names) {
      const without = () => c.isProtected(name) && c.register(name)?.owner !== victim;
      await until(`${name} is protected`, without, PATIENCE_MS);
    }
    console.log(
      `      ${victim} ran ${ran.length} and stood by for ${stoodBy.length}; ` +
        `all are protected again after ${(performance.now() - diedAt).toFixed(0)} ms`,
    );
    await allTick(c);
    for (const name of names) {
      // Each of its hosts ran it once, one after another.
      const owners = ownersOf(await c.history(name));
      const ticks = owners.flatMap((host) => ticksOn(c, name, host));
      const wrong = ticks.findIndex((tick, k) => k > 0 && tick <= (ticks[k - 1] ?? 0));
      expect(wrong, `${name}, of ${owners.join(', ')}: tick ${String(ticks[wrong])} comes again`).to.equal(
        -1,
      );
    }
  });
});
