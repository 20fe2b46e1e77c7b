// The standby's host dies: what it costs the guest's clients. Two hosts, a QEMU guest, a real etcd, one connection.

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { Counter } from '../hypervisor/qemu/lab-counter.js';
import { quantile } from '../support/random.js';
import { until } from '../support/until.js';
import { Cluster, needCluster, PATIENCE_MS, qemuDomain } from './cluster.js';
import { silenceSince } from './situation.js';
import { times } from '../support/length.js';

const TIMES = times(3, 10);
/** Of the standby: that is its death. */
const TIMEOUT_MS = 1000;
const MORE_MS = 50;
/** What a machine with other work to do may add to one of them. */
const BUSY_MS = 500;
/** What is held is held for so long. */
const HELD_MS = 2500;

describe('cluster: the standby’s host dies', function () {
  this.timeout((TIMES + 2) * PATIENCE_MS);
  let cluster: Cluster;
  let client: Counter;

  before(async function () {
    const { etcd, files } = await needCluster(this);
    const domains = [qemuDomain(files, { timeoutMs: TIMEOUT_MS })];
    cluster = await Cluster.open({ etcd, domains });
    await cluster.start();
    await cluster.untilProtected();
    await until('the guest ticks', () => cluster.ticks.length > 2, PATIENCE_MS);
    client = new Counter(cluster.lab);
    await client.reach(10, PATIENCE_MS);
  });
  after(() => (cluster as Cluster | undefined)?.close());

  async function standbyDies(): Promise<() => Promise<void>> {
    await cluster.untilProtected();
    const [standby, owner] = [cluster.standby(), cluster.owner()];
    if (!standby || !owner) throw new Error('nobody stands by');
    await standby.die('power');
    return async () => {
      await standby.comeBack();
      await cluster.untilProtected();
      expect(cluster.owner()).to.equal(owner);
      expect(await cluster.contradiction()).to.equal(null);
    };
  }

  it(`its clients wait for no longer than heartbeat.timeoutMs and ${MORE_MS} ms: ${TIMES} times`, async () => {
    const silencesMs: number[] = [];
    for (let k = 0; k < TIMES; k++) {
      await cluster.untilProtected();
      const from = client.replies.length;
      const comeBack = await standbyDies();
      const diedAt = Date.now();
      const goesOn = () => (client.replies.at(-1)?.atMs ?? 0) > diedAt + TIMEOUT_MS || client.wrong !== '';
      await until('the client goes on', goesOn, PATIENCE_MS);
      silencesMs.push(silenceSince(client, from));
      await comeBack();
    }
    console.log(`      the client’s silences: ${silencesMs.join(', ')} ms`);
    expect(client.wrong).to.equal('');
    expect(quantile(silencesMs, 0.5)).to.be.at.most(TIMEOUT_MS + MORE_MS);
    expect(Math.max(...silencesMs)).to.be.at.most(TIMEOUT_MS + BUSY_MS);
  });

  it('and with it the witness: what the guest says is held, and nothing is lost', async () => {
    await cluster.untilProtected();
    await cluster.witness.stop();
    const comeBack = await standbyDies();
    await sleep(TIMEOUT_MS);
    const held = client.replies.length;
    await sleep(HELD_MS);
    expect(client.replies.length, 'replies that nobody knows of').to.equal(held);
    cluster.witness.goOn();
    await client.reach(held + 50, PATIENCE_MS);
    await comeBack();
    await client.reach(client.replies.length + 10, PATIENCE_MS);
  });
});
