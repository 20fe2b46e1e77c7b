// Two processes, one of which is killed or stopped.

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { Child } from './child.js';
import { createFileWitness } from '../../src/failover/witnesses/file/file.js';
import { WitnessLine, type Reach } from './hosts.js';
import { LINE_BYTES, MemoryGuest, lineOf, memoryAfter, progressOf } from './memory-guest.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { PAGES, TestPrimary, TestSecondary, fileText, type PrimaryChanges } from './world.js';

describe('service: two processes', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryChild(changes: PrimaryChanges = {}): Promise<{ child: Child; file: string }> {
    const registers = await cleanup.directory();
    const file = `${await cleanup.directory()}/console`;
    const child = Child.primary({ ...changes, registers, output: { ...changes.output, console: { file } } });
    cleanup.add(() => child.kill());
    await until('the primary listens', () => child.port > 0);
    return { child, file };
  }

  async function secondaryOf(primary: Reach): Promise<TestSecondary> {
    const secondary = new TestSecondary(primary);
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    return secondary;
  }

  function text(from: number, to: number): string {
    let expected = '';
    for (let n = from; n <= to; n++) expected += lineOf(n);
    return expected;
  }

  for (let round = 0; round < 10; round++) {
    it(`the primary is killed, round ${round + 1}: the standby is the last checkpoint, no output went before it`, async () => {
      const { child, file } = await primaryChild({ checkpoint: { intervalMs: 2 + round } });
      const secondary = await secondaryOf(child);
      await until('checkpoints', () => secondary.commits.length > 3 * round + 1);
      await sleep(Math.random() * 50);
      const killed = performance.now();
      child.process.kill('SIGKILL');
      const copies: Uint8Array[] = [];
      secondary.service.failover$.subscribe(({ phase }) => {
        if (phase === 'started') {
          for (const domain of secondary.domains)
            if (domain.state === 'created') copies.push(domain.memoryCopy());
        }
      });
      await until('failover', () => secondary.failovers.length === 2);
      expect(performance.now() - killed).to.be.lessThan(2000);
      const commit = secondary.commits.at(-1);
      const started = secondary.failovers[0];
      expect([started?.streamUuid, started?.epoch]).to.deep.equal([commit?.streamUuid, commit?.epoch]);
      expect(copies).to.have.length(1);
      const memory = copies[0] ?? new Uint8Array(4);
      const n = progressOf(memory);
      expect(n * LINE_BYTES).to.equal(commit?.outputBytes);
      expect(Buffer.compare(memory, memoryAfter(n, PAGES))).to.equal(0);
      // The outside: a prefix of what was said, up to the last acknowledged checkpoint at most.
      // What the killed one had asked for is written yet.
      let output = '';
      await until('whole lines', () => (output = fileText(file)).length % LINE_BYTES === 0);
      expect(output === text(1, output.length / LINE_BYTES)).to.equal(true);
      expect(output.length).to.be.at.most(n * LINE_BYTES);
      // And the domain goes on where it was.
      const guest = new MemoryGuest(secondary.running());
      await until('the domain goes on', () => guest.progress > n + 100);
      expect(secondary.output().startsWith(text(n + 1, n + 100))).to.equal(true);
    });
  }

  it('the secondary is killed: the primary runs on, holds until nobody else may, and is protected by the next one', async () => {
    const registers = await cleanup.directory();
    const witness = createFileWitness({ directory: registers });
    cleanup.add(() => witness.close());
    const line = new WitnessLine(witness);
    const primary = new TestPrimary({ registers: line });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    for (let round = 0; round < 2; round++) {
      const before = primary.checkpoints.length;
      const child = Child.secondary({ port: primary.port, registers });
      cleanup.add(() => child.kill());
      await until('checkpoints', () => primary.checkpoints.length > before + 5);
      line.isCut = true;
      await child.kill();
      await until('unprotected', () => primary.status().link === 'down');
      const progress = primary.guest().progress;
      await until('the domain runs on', () => primary.guest().progress > progress + 100);
      // The last report may have come after the release.
      expect(primary.output().length).to.be.at.most(primary.checkpoints.at(-1)?.outputBytes ?? 0);
      line.isCut = false;
      await until('all is out', () => primary.output().length > (progress + 100) * LINE_BYTES);
    }
    const last = await secondaryOf(primary);
    await until('protected', () => last.commits.length > 3);
    const output = primary.output();
    expect(output === text(1, output.length / LINE_BYTES)).to.equal(true);
  });

  it('the secondary is stopped: the primary waits within its limits, and goes on with it', async () => {
    const registers = await cleanup.directory();
    const primary = new TestPrimary({
      registers,
      heartbeat: { intervalMs: 100, timeoutMs: 10_000 },
      output: { limit: '64KiB' },
    });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const child = Child.secondary({ port: primary.port, registers });
    cleanup.add(() => child.kill());
    await until('checkpoints', () => primary.checkpoints.length > 5);
    child.process.kill('SIGSTOP');
    await until('the domain stands still', () => primary.guest().domain.state === 'suspended');
    const before = process.memoryUsage().rss;
    await sleep(1000);
    const status = primary.status();
    expect(status.epochSeen - status.epochAcknowledged).to.be.at.most(1);
    expect(status.heldOutputBytes).to.be.at.most(64 * 1024 + 20 * LINE_BYTES);
    expect(status.bufferedBytes).to.be.at.most(16 * 2 ** 20);
    expect(process.memoryUsage().rss - before).to.be.lessThan(32 * 2 ** 20);
    const checkpoints = primary.checkpoints.length;
    child.process.kill('SIGCONT');
    await until('it goes on', () => primary.checkpoints.length > checkpoints + 5);
    expect(primary.status().streamUuid).to.equal(primary.checkpoints[0]?.streamUuid);
    const output = primary.output();
    expect(output === text(1, output.length / LINE_BYTES)).to.equal(true);
  });

  for (let round = 0; round < 3; round++) {
    it(`the primary is stopped, replaced, and goes on, round ${round + 1}: it lets nothing out and is fenced`, async () => {
      const { child, file } = await primaryChild({ checkpoint: { intervalMs: 3 } });
      const secondary = await secondaryOf(child);
      await until('checkpoints', () => secondary.commits.length > 10);
      await sleep(Math.random() * 20);
      child.process.kill('SIGSTOP');
      await until('failover', () => secondary.failovers.length === 2);
      const n = progressOf(secondary.running().memory);
      const guest = new MemoryGuest(secondary.running());
      await until('the domain goes on', () => guest.progress > n + 50);
      const output = fileText(file);
      expect(output.length).to.be.at.most(n * LINE_BYTES);
      child.process.kill('SIGCONT');
      await until('fenced', () => child.was('fenced'));
      await sleep(50);
      expect(fileText(file).length - output.length, 'octets let out afterwards').to.equal(0);
    });
  }
});
