// Two hosts with a network between them that fails.

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { WitnessLine } from './hosts.js';
import { LINE_BYTES, MemoryGuest, lineOf, memoryAfter, progressOf } from './memory-guest.js';
import { Proxy } from './proxy.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { PAGES, TestPrimary, TestSecondary, type PrimaryChanges } from './world.js';

describe('service: a failing network', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(changes: PrimaryChanges = {}): Promise<TestPrimary> {
    const primary = new TestPrimary(changes);
    cleanup.add(() => primary.service.stop());
    await primary.start();
    return primary;
  }

  /** Both hosts, the network between them, and the primary's way to the witness; after the first checkpoints. */
  async function worldOf(changes: PrimaryChanges = {}, reconnectWindowMs = 300) {
    const registers = createMemoryWitness();
    const line = new WitnessLine(registers);
    const primary = await primaryOf({ registers: line, ...changes });
    const proxy = new Proxy(primary.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    const { domain } = changes;
    const secondary = new TestSecondary(
      { port, registers },
      { failover: { reconnectWindowMs }, ...(domain && { domain }) },
    );
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('checkpoints', () => primary.checkpoints.length > 3);
    return { primary, proxy, secondary, registers, line };
  }

  function expectFailover(primary: TestPrimary, secondary: TestSecondary): void {
    const [started, completed] = secondary.failovers;
    expect([started?.phase, completed?.phase]).to.deep.equal(['started', 'completed']);
    const last = secondary.commits.findLast(
      ({ streamUuid, epoch }) => streamUuid === started?.streamUuid && epoch === started.epoch,
    );
    const { memory } = secondary.running();
    const n = progressOf(memory);
    expect(n * LINE_BYTES).to.equal(last?.outputBytes);
    expect(Buffer.compare(memory, memoryAfter(n, PAGES))).to.equal(0);
    expect(primary.output().length).to.be.at.most(n * LINE_BYTES);
  }

  it('cut again and again: a resync each time, no failover, no output lost or twice', async () => {
    const { primary, proxy, secondary } = await worldOf();
    for (let round = 0; round < 15; round++) {
      await sleep((round * 7) % 31);
      const before = primary.checkpoints.length;
      proxy.cut();
      await until('checkpoints', () => primary.checkpoints.length > before + 2);
    }
    expect(secondary.failovers).to.deep.equal([]);
    expect(new Set(primary.checkpoints.map(({ streamUuid }) => streamUuid)).size).to.be.at.least(15);
    const output = primary.output();
    let expected = '';
    for (let n = 1; n <= output.length / LINE_BYTES; n++) expected += lineOf(n);
    expect(output === expected).to.equal(true);
    await until(
      'one domain is left',
      () => secondary.domains.filter(({ state }) => state !== 'destroyed').length === 1,
    );
  });

  it('octets changed on the way: the checkpoint is dropped, a resync each time, and nothing wrong is ever held', async () => {
    const { primary, proxy, secondary } = await worldOf({ checkpoint: { intervalMs: 5 } });
    secondary.service.commits$.subscribe(({ outputBytes }) => {
      const { memory } =
        secondary.domains.findLast(({ state }) => state === 'created') ?? primary.guest().domain;
      const n = progressOf(memory);
      expect(n * LINE_BYTES).to.equal(outputBytes);
      expect(Buffer.compare(memory, memoryAfter(n, PAGES))).to.equal(0);
    });
    for (let round = 0; round < 12; round++) {
      const { streamUuid } = primary.status();
      proxy.corruptAt = (round * 7919) % 60_000;
      await until('another stream', () => primary.status().streamUuid !== streamUuid);
      const before = primary.checkpoints.length;
      await until('checkpoints', () => primary.checkpoints.length > before + 2);
    }
    expect(secondary.failovers).to.deep.equal([]);
    expect(secondary.transitions.map(({ reason }) => reason)).to.include('DIGEST_MISMATCH');
  });

  it('checkpoints larger than the secondary may buffer: refused with a code, the primary unharmed', async () => {
    const primary = await primaryOf({ checkpoint: { intervalMs: 400 } });
    const secondary = new TestSecondary(primary, { buffer: '1MiB' });
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('refused', () => secondary.transitions.some(({ reason }) => reason === 'BUFFER_LIMIT'));
    await until('the primary is told', () =>
      primary.transitions.some(({ reason }) => reason === 'BUFFER_LIMIT'),
    );
    await until(
      'linked again',
      () => new Set(primary.checkpoints.map(({ streamUuid }) => streamUuid)).size > 1,
    );
    expect(primary.status().role).to.equal('primary');
    expect(secondary.failovers).to.deep.equal([]);
  });

  it('a standby that does not start: said so, silent, and tried again until it does', async () => {
    const primary = await primaryOf();
    let broken = true;
    let attempts = 0;
    const secondary = new TestSecondary(primary, {
      made: (domain) => {
        domain.script = (call) => {
          if (call !== 'start') return;
          attempts++;
          if (broken) throw new HypervisorError('BAD_CONTEXT', 'no such processor');
        };
      },
    });
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('checkpoints', () => secondary.commits.length > 3);
    primary.guest().domain.crash();
    await until('some attempts', () => attempts >= 4);
    expect(secondary.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'failed']);
    expect(secondary.failovers[1]).to.deep.include({
      error: { code: 'BAD_CONTEXT', message: 'no such processor' },
    });
    expect(secondary.status()).to.deep.include({ role: 'standby' });
    expect(secondary.status().error).to.deep.equal({ code: 'BAD_CONTEXT', message: 'no such processor' });
    expect(secondary.output()).to.equal('');
    broken = false;
    await until('it runs', () => secondary.owns());
    expect(secondary.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'failed', 'completed']);
    const { memory } = secondary.running();
    expect(Buffer.compare(memory, memoryAfter(progressOf(memory), PAGES))).to.equal(0);
  });

  it('the primary is gone in the middle of a resync: failover to the checkpoint from before', async () => {
    for (const bytes of [0, 500, 100_000, 1_500_000]) {
      const { primary, proxy, secondary, line } = await worldOf();
      const { streamUuid } = secondary.status();
      line.isCut = true;
      proxy.cutAfterBytes = bytes;
      const connections = proxy.connections;
      proxy.cut();
      await until('a second stream begins', () => proxy.connections > connections);
      await until('it is suspect again', () => secondary.status().link === 'suspect');
      await proxy.close();
      await until('failover', () => secondary.failovers.length === 2);
      expect(secondary.failovers[0]?.streamUuid).to.equal(streamUuid);
      expectFailover(primary, secondary);
    }
  });

  it('partition: the secondary takes over, the primary holds, and is fenced when the network is back', async () => {
    const { primary, proxy, secondary, line } = await worldOf();
    line.isCut = true;
    proxy.mode = 'silent';
    await until('failover', () => secondary.failovers.length === 2);
    expect(secondary.failovers[0]?.reason).to.equal('HEARTBEAT_TIMEOUT');
    expectFailover(primary, secondary);
    const from = progressOf(secondary.running().memory) + 1;
    const guest = new MemoryGuest(secondary.running());
    await until('the domain goes on', () => guest.progress > from + 100);
    const output = primary.output();
    line.isCut = false;
    await until('fenced', () => primary.was('fenced'));
    await until('its domain is gone', () => primary.guest().domain.state === 'destroyed');
    expect(primary.output()).to.equal(output);
    expect(secondary.output().startsWith(lineOf(from))).to.equal(true);
  });

  it('the primary comes back without the domain: the secondary, which holds it, takes over, and nothing is started twice', async () => {
    const { primary, proxy, secondary, registers, line } = await worldOf();
    line.isCut = true;
    const next = new TestPrimary({ registers });
    cleanup.add(() => next.service.stop());
    await next.service.start();
    proxy.target = next.port;
    proxy.cut();
    await until('failover', () => secondary.failovers.length === 2);
    expectFailover(primary, secondary);
    const guest = new MemoryGuest(secondary.running());
    const from = guest.progress;
    await until('the domain goes on', () => guest.progress > from + 100);
    expect(next.status()).to.include({ role: 'standby', phase: 'standby' });
    expect([next.guests.size, next.output()]).to.deep.equal([0, '']);
  });

  it('a primary that lives and is linked to another secondary is not taken over', async () => {
    const domain = { hosts: ['north', 'south', 'west'] };
    const { primary, proxy, secondary } = await worldOf({ domain }, 800);
    const other = new TestSecondary(primary, { host: 'west', domain });
    cleanup.add(() => other.service.stop());
    await other.start();
    proxy.mode = 'refuse';
    proxy.cut();
    await until('the other is linked', () => other.commits.length > 2);
    proxy.mode = 'forward';
    await sleep(1200);
    expect(secondary.failovers).to.deep.equal([]);
    expect(secondary.status().link).to.equal('suspect');
    expect(other.status().link).to.equal('replicating');
  });

  it('the domain shuts down while the link is lost: nobody takes it over, nor holds it any longer', async () => {
    const { primary, proxy, secondary } = await worldOf();
    // In the very moment: the secondary dials again at once.
    const watch = primary.service.transitions$.subscribe(({ link }) => {
      if (link === 'down' && primary.guest().domain.state === 'running') primary.guest().domain.shutdown();
    });
    cleanup.add(() => watch.unsubscribe());
    proxy.cut();
    await until('ended here', () => primary.was('ended'));
    const notOurs = 'by the register the domain is not ours to take over';
    await until('let go of there', () => secondary.transitions.some(({ reason }) => reason === notOurs));
    expect(secondary.failovers).to.deep.equal([]);
    expect(secondary.status()).to.include({ role: 'standby', phase: 'standby' });
  });
});
