// What could go wrong with pairs that knew no register, each as it was found: an old checkpoint that two take over from, an
// old host that comes back as something else, or again and again, or beside whoever took over. Real agents, a real etcd;
// the guest is the embedded one, and its consoles are what the world hears.

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../support/until.js';
import { Cluster, DOMAIN, embeddedDomain, needCluster, PATIENCE_MS, writeConfig } from './cluster.js';
import type { ClusterHost } from './host.js';
import { HOSTS, type HostName } from './network.js';

/** Longer than it takes to notice a death and to take over. */
const LATER_MS = 4000;

describe('cluster: what pairs without a register got wrong', function () {
  this.timeout(2 * PATIENCE_MS);
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

  async function open(hosts: readonly HostName[] = HOSTS.slice(0, 2)): Promise<Cluster> {
    cluster = await Cluster.open({ hosts, etcd, domains: [embeddedDomain({ hosts })], frames: false });
    await cluster.start();
    await cluster.untilProtected();
    await until('ticks', () => (cluster?.ticks.length ?? 0) > 10, PATIENCE_MS);
    return cluster;
  }

  function pair(of: Cluster): { readonly owner: ClusterHost; readonly standby: ClusterHost } {
    const [owner, standby] = [of.owner(), of.standby()];
    if (!owner || !standby) throw new Error('it is not protected');
    return { owner, standby };
  }

  /** The guest of that host is heard anew. */
  async function heard(host: ClusterHost): Promise<void> {
    const before = host.ticks.length;
    await until(`${host.name} is heard`, () => host.ticks.length > before + 10, PATIENCE_MS);
  }

  it('a standby that missed another one’s coming keeps nothing to take over from', async () => {
    const c = await open(HOSTS);
    const { owner, standby: old } = pair(c);
    await old.freeze();
    const isOther = () => c.isProtected() && c.standby() !== old;
    await until('another host stands by', isOther, PATIENCE_MS);
    const young = c.standby();
    if (!young) throw new Error('nobody stands by');
    old.goOn();
    await until('the old one is told', () => old.partIn(DOMAIN).link !== 'replicating', PATIENCE_MS);
    await heard(owner);
    await owner.die('power');
    await heard(young);
    await until('the old one stands by anew', () => c.isProtected() && c.standby() === old, PATIENCE_MS);
    expect(c.owner()).to.equal(young);
    expect(old.ticks).to.deep.equal([]);
    expect(await c.contradiction()).to.equal(null);
  });

  it('an owner that comes back with another memory size starts nothing, and the standby takes over', async () => {
    const c = await open();
    const { owner, standby } = pair(c);
    await standby.freeze();
    await owner.die('processes');
    const before = owner.ticks.length;
    const { config } = owner;
    const hosts = HOSTS.slice(0, 2);
    owner.config = writeConfig(c.lab, 'other.yaml', hosts, [embeddedDomain({ memory: '8MiB' })]);
    await owner.comeBack();
    await until('it knows', () => owner.saidSince(since, /the last checkpoint$/) !== undefined, PATIENCE_MS);
    standby.goOn();
    await heard(standby);
    await until('it is refused', () => standby.saidSince(since, /memory/) !== undefined, PATIENCE_MS);
    expect(owner.ticks.length).to.equal(before);
    await owner.die('agent');
    owner.config = config;
    await owner.comeBack();
    await c.untilProtected();
    expect(c.owner()).to.equal(standby);
    expect(await c.contradiction()).to.equal(null);
  });

  it('an old owner that a supervisor starts again and again never stays', async () => {
    const c = await open();
    const { owner: old, standby } = pair(c);
    await old.die('agent');
    const before = old.ticks.length;
    for (let k = 0; k < 3; k++) {
      await old.comeBack();
      await sleep(k * 300);
      await old.die(k === 1 ? 'power' : 'agent');
    }
    await old.comeBack();
    await c.untilProtected();
    expect(c.owner()).to.equal(standby);
    expect(old.ticks.length).to.equal(before);
    await heard(standby);
    expect(await c.contradiction()).to.equal(null);
  });

  for (const both of [false, true]) {
    const who = both ? 'it and the old owner are' : 'it is';
    it(`a standby that took over unseen, and ${who} started again: the old domain is not heard any more`, async () => {
      const c = await open();
      const { owner: old, standby } = pair(c);
      await Promise.all([c.cutBoth(old.name, standby.name), c.cutBoth(old.name, 'witness')]);
      await heard(standby);
      const before = old.ticks.length;
      await standby.die('agent');
      if (both) await old.die('agent');
      await standby.comeBack();
      if (both) await old.comeBack();
      await heard(standby); // by the register it is alone, and starts it anew
      await sleep(LATER_MS);
      expect(old.ticks.length).to.equal(before);
      await c.heal();
      await c.untilProtected();
      expect(c.owner()).to.equal(standby);
      expect(old.ticks.length).to.equal(before);
      expect(await c.contradiction(DOMAIN, 2)).to.equal(null);
    });
  }
});
