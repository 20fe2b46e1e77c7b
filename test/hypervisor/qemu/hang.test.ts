// A hypervisor that hangs while its agent lives: the secondary takes over in time, what hung says nothing any more, and
// nobody's end waits for it.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import { agentOn, WatchedHost } from '../../service/hosts.js';
import { log } from '../../service/world.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { until } from '../../support/until.js';
import { World } from './outside.js';
import { expectContinuation, PATIENCE_MS, PrimaryOf, SecondaryOf, qemus } from './pair.js';
import { StrangeQemu } from './stranger.js';
import { TEST_NAME, TICK_ARGUMENTS, canTrack, needQemu, tickGuest } from './support.js';

const LIMIT_MS = 1000;
/** Beside the limit: what a loaded machine takes to notice, and to take over. */
const GRACE_MS = 10_000;

describe('qemu: a hypervisor that hangs', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  let hasFuse = false;
  before(async function () {
    await needQemu(this);
    hasFuse = await canTrack('fuse');
  });
  afterEach(async () => {
    await cleanup.run();
    await until('nothing is left', () => processesWith(TEST_NAME).length === 0, 10_000);
  });

  const servers = (): number[] =>
    processesWith(TEST_NAME).filter((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('fuse/process.js'),
    );

  async function pairOf(way: 'fuse' | 'compare'): Promise<{ primary: PrimaryOf; secondary: SecondaryOf }> {
    const primary = new PrimaryOf(tickGuest({ dirty: way }), { hypervisorTimeoutMs: LIMIT_MS });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const secondary = new SecondaryOf(primary, tickGuest({ dirty: 'compare' }));
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await primary.progress(10);
    return { primary, secondary };
  }

  for (const what of ['QEMU', 'who serves its RAM'] as const) {
    it(`${what} is stopped: the secondary takes over, and what hung is gone`, async function () {
      if (what !== 'QEMU' && !hasFuse) return this.skip();
      const { primary, secondary } = await pairOf(what === 'QEMU' ? 'compare' : 'fuse');
      const before = qemus('primary');
      const hung = what === 'QEMU' ? before : servers();
      expect(hung.length).to.equal(1);
      const at = performance.now();
      for (const pid of hung) process.kill(pid, 'SIGSTOP');
      await secondary.active();
      expect(performance.now() - at).to.be.below(LIMIT_MS + GRACE_MS);
      await until('the primary has failed', () => primary.was('failed'), PATIENCE_MS);
      expect(primary.history.find(({ role }) => role === 'failed')?.error).to.include({ code: 'HUNG' });
      await until(
        'it is ended',
        () => before.every((pid) => !processesWith(TEST_NAME).includes(pid)),
        GRACE_MS,
      );
      await expectContinuation(primary, secondary);
    });
  }

  for (const what of ['QEMU', 'who serves its RAM'] as const) {
    it(`${what} is stopped: the agent’s end does not wait for it`, async function () {
      if (what !== 'QEMU' && !hasFuse) return this.skip();
      const { primary } = await pairOf(what === 'QEMU' ? 'compare' : 'fuse');
      for (const pid of what === 'QEMU' ? qemus('primary') : servers()) process.kill(pid, 'SIGSTOP');
      const at = performance.now();
      await primary.service.stop();
      expect(performance.now() - at).to.be.below(GRACE_MS);
      await cleanup.run();
    });
  }

  it('nobody stands by: it is left as it is, and goes on when it answers again', async () => {
    const primary = new PrimaryOf(tickGuest({ dirty: 'compare' }), { hypervisorTimeoutMs: 200 });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const [pid = 0] = qemus('primary');
    process.kill(pid, 'SIGSTOP');
    const secondary = new SecondaryOf(primary, tickGuest({ dirty: 'compare' }));
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('it was noticed', () => primary.transitions.some(({ link }) => link === 'down'), PATIENCE_MS);
    expect(primary.was('failed')).to.equal(false);
    process.kill(pid, 'SIGCONT');
    await primary.progress(3);
    expect(secondary.failovers).to.deep.equal([]);
  });

  it('an attached QEMU is stopped: the secondary takes over, and the old guest is unheard when it goes on', async () => {
    const world = await World.open();
    cleanup.add(() => world.close());
    const elsewhere = await World.open();
    cleanup.add(() => elsewhere.close());
    const qemu = await StrangeQemu.start(StrangeQemu.network(world));
    cleanup.add(() => qemu.kill());
    const attached = {
      hypervisor: { kind: 'qemu', qmp: qemu.monitor, serial: qemu.serial, network: [{ id: 'lan' }] },
    };
    const managed = {
      hypervisor: {
        ...{ kind: 'qemu', accelerator: 'tcg', memory: '16MiB', arguments: TICK_ARGUMENTS },
        network: [{ id: 'lan', socket: elsewhere.netdev }],
      },
    };
    const domain = {
      ...{ name: 'web', hosts: { north: attached, south: managed }, output: { console: 'none' } },
      checkpoint: { intervalMs: 10, slab: '4MiB', hypervisorTimeoutMs: LIMIT_MS },
      failover: { redialMinMs: 10, redialMaxMs: 100 },
    };
    const registers = createMemoryWitness();
    const primary = agentOn('north', { port: 0, registers, domains: [domain] }, { log });
    cleanup.add(() => primary.stop());
    await primary.start();
    const standby = agentOn('south', { port: primary.port, registers, domains: [domain] }, { log });
    cleanup.add(() => standby.stop());
    const { commits, failovers } = new WatchedHost(standby);
    await standby.start();
    await until('commits', () => commits.length > 10, PATIENCE_MS);
    process.kill(qemu.pid, 'SIGSTOP');
    await until('takeover', () => failovers.some(({ phase }) => phase === 'completed'), LIMIT_MS + GRACE_MS);
    const at = performance.now();
    await primary.stop();
    expect(performance.now() - at).to.be.below(GRACE_MS);
    await world.hears(0, async () => {
      process.kill(qemu.pid, 'SIGCONT');
      await until('it answers', () => !qemu.isGuarded(), PATIENCE_MS);
      await qemu.speak();
    });
  });
});
