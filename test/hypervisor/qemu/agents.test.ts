// An agent is killed at any moment, and nothing but the agent: its QEMU goes with it, no frame gets out that was not
// acknowledged, and the other side goes on: a secondary takes over, a primary waits for the next secondary.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { UNHEARD, World } from './outside.js';
import { PATIENCE_MS, PrimaryOf, SecondaryOf, expectContinuation, qemus } from './pair.js';
import { PairChild } from './pair-child.js';
import { processesWith } from '../../support/processes.js';
import { MIB, successiveTicksOf, ticksOf } from '../support.js';
import { TEST_NAME, needQemu, tickGuest } from './support.js';
import { times } from '../../support/length.js';

const KILLS = times(5, 20);
const KILLS_OF_SECONDARY = times(2, 8);
/** What was on its way to the test when the sender died. */
const QUIET_MS = 20;

describe('qemu: an agent that is killed', function () {
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    await until('nothing is left', () => processesWith(TEST_NAME).length === 0, PATIENCE_MS);
  });
  const ticking = tickGuest({ memoryBytes: 8 * MIB }, 'pages=256 dirty=200 tick_ms=5');
  const standby = { ...ticking, network: [UNHEARD] };

  it(`the primary’s, ${KILLS} times: its guest is gone and silent, the secondary’s goes on`, async function () {
    this.timeout(240_000);
    const world = await World.open();
    cleanup.add(() => world.close());
    const config = { ...ticking, network: [world.card] };
    const next = (registers: string) => {
      const child = PairChild.primary(config, { intervalMs: 10, registers });
      cleanup.add(() => child.kill());
      return child;
    };
    const tookMs: number[] = [];
    let released = 0;
    for (let round = 0; round < KILLS; round++) {
      world.frames = 0;
      const registers = await cleanup.directory();
      const agent = next(registers);
      await until('the primary listens', () => agent.port > 0, PATIENCE_MS);
      const secondary = new SecondaryOf({ port: agent.port, registers }, standby);
      cleanup.add(() => secondary.service.stop());
      await secondary.start();
      await until('checkpoints', () => secondary.commits.length > 5, PATIENCE_MS);
      await sleep(Math.random() * 60); // any moment will do: mid-flush, mid-pause, mid-seal
      const began = performance.now();
      await agent.kill();
      await secondary.active();
      tookMs.push(Math.round(performance.now() - began));
      await until('its QEMU is gone', () => qemus('primary').length === 0, PATIENCE_MS);
      await sleep(QUIET_MS);
      const epoch = secondary.commits.at(-1)?.epoch ?? -1;
      // One more: of the gate's own test.
      const most = 1 + (agent.spoken.get(epoch) ?? 0);
      expect(world.frames, `frames of epochs up to ${epoch}`).to.be.within(1, most);
      released += world.frames;
      const ticks = () => successiveTicksOf(secondary.out);
      await until('the guest ticks on', () => ticks().length > 3, PATIENCE_MS);
      await secondary.service.stop();
    }
    expect(released, 'what is acknowledged gets out').to.be.greaterThan(5 * KILLS);
    tookMs.sort((a, b) => a - b);
    console.log(`      running again after ${tookMs.join(', ')} ms`);
  });

  it(`the secondary’s, ${KILLS_OF_SECONDARY} times: the primary’s guest ticks on, and the next secondary is filled`, async function () {
    this.timeout(180_000);
    const registers = await cleanup.directory();
    const primary = new PrimaryOf(ticking, { intervalMs: 10, registers });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    for (let round = 0; round < KILLS_OF_SECONDARY; round++) {
      const agent = PairChild.secondary(primary.port, registers, ticking);
      cleanup.add(() => agent.kill());
      // Also before it has anything.
      if (round % 2 === 0) await primary.progress(3);
      else await until('linked', () => primary.status().link !== 'down', PATIENCE_MS);
      await sleep(Math.random() * 40);
      await agent.kill();
      await until('unprotected', () => primary.status().link === 'down', PATIENCE_MS);
      await until('its QEMU is gone', () => qemus('standby').length === 0, PATIENCE_MS);
      const ticks = ticksOf(primary.raw).length;
      await until('the guest ticks on', () => ticksOf(primary.raw).length > ticks + 3, PATIENCE_MS);
    }
    expect(successiveTicksOf(primary.raw)[0]).to.equal(1);
    const last = new SecondaryOf(primary, ticking);
    cleanup.add(() => last.service.stop());
    await last.start();
    await primary.progress(3);
    for (const pid of qemus('primary')) process.kill(pid, 'SIGKILL');
    await last.active();
    await expectContinuation(primary, last);
  });
});
