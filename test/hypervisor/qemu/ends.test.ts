// How a guest ends, or does not, and what becomes of it through both services:
//
//   shutdown by the guest, quit by an operator     the end on both sides; nobody takes over
//   reset                                          the guest's business: replication goes on
//   panic, a signal to QEMU, QEMU's death          failover to the last checkpoint, at once
//
// A panic is failed over, too: its cause may be the host, and if it is not, the guest panics once more and is over. No
// output tells the difference, for what the guest said since the last checkpoint was never let out.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { QemuConfig } from '../../../src/hypervisor/qemu/index.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { UNHEARD, World, announce } from './outside.js';
import {
  PATIENCE_MS,
  PrimaryOf,
  SecondaryOf,
  expectContinuation,
  killAll,
  type PairChanges,
} from './pair.js';
import { processesWith } from '../../support/processes.js';
import { MIB, ticksOf } from '../support.js';
import { TEST_NAME, needQemu, tickGuest, withObedientGuest } from './support.js';

/** Any moment will do: before a checkpoint, in one, after it. */
const moment = () => sleep(Math.random() * 60);

describe('qemu: how a guest ends', function () {
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });
  const ticking = tickGuest({ memoryBytes: 8 * MIB }, 'pages=64 dirty=8 tick_ms=10');
  const obedient = (image: string): QemuConfig => ({
    ...tickGuest({ memoryBytes: 16 * MIB, network: [UNHEARD] }),
    arguments: ['-kernel', image, '-device', 'pvpanic'],
  });

  async function pair(
    config: QemuConfig,
    changes: PairChanges = {},
  ): Promise<{ primary: PrimaryOf; secondary: SecondaryOf }> {
    const primary = new PrimaryOf(config, changes);
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const secondary = new SecondaryOf(primary, config, changes);
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await primary.progress(3);
    return { primary, secondary };
  }

  async function ended(primary: PrimaryOf, secondary: SecondaryOf): Promise<void> {
    await until('both ends', () => primary.was('ended') && secondary.was('ended'), PATIENCE_MS);
    const errors = [...primary.history, ...secondary.history].map(({ error }) => error);
    expect(errors.filter((error) => error !== null)).to.deep.equal([]);
    expect(secondary.failovers).to.deep.equal([]);
    expect(secondary.out).to.equal('');
  }

  async function stopBoth(primary: PrimaryOf, secondary: SecondaryOf): Promise<void> {
    await secondary.service.stop();
    await primary.service.stop();
  }

  it('shuts down at any moment, with a network card: the end on both sides', async () => {
    await withObedientGuest(async (image) => {
      for (let round = 0; round < 5; round++) {
        const { primary, secondary } = await pair(obedient(image));
        await until('it speaks', () => primary.out.includes('.'), PATIENCE_MS);
        await moment();
        await primary.domain.input(Buffer.from('p'));
        await ended(primary, secondary);
        await cleanup.run();
      }
    });
  });

  it('is quit by an operator at any moment: the end on both sides', async () => {
    for (let round = 0; round < 5; round++) {
      const { primary, secondary } = await pair(ticking);
      await moment();
      primary.domain.machine.qmp.execute('quit').catch(() => undefined);
      await ended(primary, secondary);
      expect(primary.raw.startsWith(primary.out)).to.equal(true);
      await cleanup.run();
    }
  });

  it('is quit in the middle of a checkpoint: the end on both sides', async () => {
    const { primary, secondary } = await pair(ticking);
    // Nobody answers a dial afterwards.
    primary.service.transitions$.subscribe(({ role }) => {
      if (role === 'ended') void primary.service.stop();
    });
    const { domain } = primary;
    const context = domain.emulatorContext.bind(domain);
    domain.emulatorContext = async () => {
      domain.machine.qmp.execute('quit').catch(() => undefined);
      await domain.machine.gone;
      return context();
    };
    await ended(primary, secondary);
  });

  it('is reset by itself, and by an operator: replication goes on, and a failover afterwards', async () => {
    await withObedientGuest(async (image) => {
      const { primary, secondary } = await pair(obedient(image));
      await until('it speaks', () => primary.out === '.', PATIENCE_MS);
      await primary.domain.input(Buffer.from('r'));
      await until('it speaks again', () => primary.out === '..', PATIENCE_MS);
      await primary.progress(3);
      killAll('primary');
      await secondary.active();
      await secondary.targets[0]?.input(Buffer.from('?'));
      await until('it answers', () => secondary.out === '.', PATIENCE_MS);
      await cleanup.run();
    });
    const { primary, secondary } = await pair(ticking);
    await until('it ticks', () => ticksOf(primary.raw).length > 5, PATIENCE_MS);
    await primary.domain.machine.qmp.execute('system_reset');
    await until('it ticks anew', () => ticksOf(primary.raw).lastIndexOf(3) > 3, PATIENCE_MS);
    await primary.progress(3);
    expect(new Set(primary.checkpoints.map(({ streamUuid }) => streamUuid)).size).to.equal(1);
    killAll('primary');
    await secondary.active();
    await expectContinuation(primary, secondary);
  });

  it('panics: taken over from the checkpoint before; if it panics there, too, it has failed', async () => {
    await withObedientGuest(async (image) => {
      for (const again of [false, true]) {
        const { primary, secondary } = await pair(obedient(image), { intervalMs: 300 });
        await until('it speaks', () => primary.out === '.', PATIENCE_MS);
        await primary.progress(1);
        await primary.domain.input(Buffer.from('x'));
        await secondary.active();
        const failed = primary.transitions.find(({ role }) => role === 'failed');
        expect(failed?.reason).to.equal('crashed: the guest panicked');
        await secondary.targets[0]?.input(Buffer.from(again ? 'x' : '?'));
        if (again) await until('failed', () => secondary.was('failed'), PATIENCE_MS);
        else await until('it answers', () => secondary.out === '.', PATIENCE_MS);
        expect(secondary.failovers).to.have.length(2);
        await cleanup.run();
      }
    });
  });

  it('ends in whatever way with frames that are not acknowledged: none of them gets out', async () => {
    const world = await World.open();
    cleanup.add(() => world.close());
    for (const end of ['none', 'SIGTERM', 'SIGINT', 'quit'] as const) {
      const primary = new PrimaryOf({ ...ticking, network: [world.card] }, { intervalMs: 1000 });
      cleanup.add(() => primary.service.stop());
      await primary.start();
      // The standby's card is plugged into nothing that we watch.
      const secondary = new SecondaryOf(primary, { ...ticking, network: [UNHEARD] });
      cleanup.add(() => secondary.service.stop());
      await secondary.start();
      await primary.progress(2);
      world.frames = 0;
      const { qmp } = primary.domain.machine;
      for (let k = 0; k < 5; k++) await announce(qmp);
      if (end === 'none') {
        await primary.progress(2);
        await until('they get out when they are acknowledged', () => world.frames === 5, PATIENCE_MS);
        await stopBoth(primary, secondary);
        continue;
      }
      if (end === 'quit') qmp.execute('quit').catch(() => undefined);
      else killAll('primary', end);
      await primary.domain.machine.gone;
      await until('the end', () => primary.was('ended') || primary.was('failed'), PATIENCE_MS);
      await sleep(20);
      expect(world.frames, end).to.equal(0);
      await stopBoth(primary, secondary);
    }
  });

  for (const signal of ['SIGKILL', 'SIGTERM', 'SIGSEGV'] as const) {
    it(`QEMU ends by ${signal} at any moment, the agent lives: taken over at once, at the next tick`, async () => {
      const tookMs: number[] = [];
      for (let round = 0; round < 3; round++) {
        const { primary, secondary } = await pair(ticking);
        await moment();
        const began = performance.now();
        killAll('primary', signal);
        await secondary.active();
        tookMs.push(Math.round(performance.now() - began));
        await expectContinuation(primary, secondary);
        expect(primary.was('failed')).to.equal(true);
        await cleanup.run();
      }
      console.log(`      running again after ${tookMs.join(', ')} ms`);
    });
  }
});
