// A standby QEMU that dies before it is taken over, through both services: another one is started and filled while the
// primary's guest ticks on, and then the primary's death is survived as ever.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import type { FailoverEvent } from '../../../src/service/reports.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import {
  PATIENCE_MS,
  PrimaryOf,
  SecondaryOf,
  expectContinuation,
  killAll,
  type PairChanges,
} from './pair.js';
import { processesWith } from '../../support/processes.js';
import { MIB, successiveTicksOf, ticksOf } from '../support.js';
import { TEST_NAME, needQemu, tickGuest } from './support.js';

describe('qemu: a standby that dies', function () {
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });
  const config = tickGuest({ memoryBytes: 8 * MIB }, 'pages=64 dirty=8 tick_ms=10');

  async function primaryOf(changes: PairChanges = {}): Promise<PrimaryOf> {
    const primary = new PrimaryOf(config, changes);
    cleanup.add(() => primary.service.stop());
    await primary.service.start();
    return primary;
  }

  async function secondaryOf(port: number, changes: PairChanges = {}): Promise<SecondaryOf> {
    const secondary = new SecondaryOf(port, config, changes);
    cleanup.add(() => secondary.service.stop());
    await secondary.service.start();
    return secondary;
  }

  async function survive(primary: PrimaryOf, secondary: SecondaryOf): Promise<void> {
    await primary.progress(3);
    expect(secondary.status).to.deep.include({ role: 'standby', link: 'replicating', error: null });
    killAll('primary');
    await secondary.active();
    await expectContinuation(primary, secondary);
  }

  it('while it waits: the first stream fills another one', async () => {
    const before = await primaryOf();
    const { port } = before.service;
    await before.service.stop();
    const secondary = await secondaryOf(port);
    killAll('standby');
    await until('noticed', () => secondary.losses.length === 1, PATIENCE_MS);
    expect(secondary.losses[0]).to.deep.include({ was: 'spare', reason: 'QEMU was killed by SIGKILL' });
    const primary = await primaryOf({ port });
    await survive(primary, secondary);
    expect(secondary.targets).to.have.length(2);
  });

  it('while it is filled: filled again', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary.service.port, {
      madeTarget: (target, index) => {
        if (index > 1) return;
        const write = target.writePages.bind(target);
        target.writePages = async (...args) => {
          killAll('standby');
          await target.machine.gone; // it is filled faster than a death is noticed
          target.writePages = write;
          return write(...args);
        };
      },
    });
    await survive(primary, secondary);
    expect(secondary.losses.map(({ was }) => was)).to.deep.equal(['filling', 'filling']);
  });

  it('while it replicates, again and again: the guest ticks on, and is protected again by itself', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary.service.port);
    for (let round = 0; round < 3; round++) {
      await primary.progress(5);
      await sleep(Math.random() * 40); // any moment will do: mid-checkpoint, between two
      const ticks = ticksOf(primary.raw).length;
      const killed = performance.now();
      killAll('standby', round === 1 ? 'SIGTERM' : 'SIGKILL');
      await until('the next standby', () => secondary.targets.length === round + 2, PATIENCE_MS);
      await until('protected', () => secondary.status.link === 'replicating', PATIENCE_MS);
      console.log(`      protected again after ${Math.round(performance.now() - killed)} ms`);
      await until('the guest ticks on', () => ticksOf(primary.raw).length > ticks + 3, PATIENCE_MS);
      await primary.progress(1);
    }
    expect(secondary.losses.map(({ was }) => was)).to.deep.equal(['held', 'held', 'held']);
    expect(secondary.losses[1]?.reason).to.include('host-signal');
    expect(secondary.failovers).to.deep.equal([]);
    expect(successiveTicksOf(primary.raw)[0]).to.equal(1);
    await survive(primary, secondary);
  });

  it('and the primary with it: the failover has failed, and says why', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary.service.port);
    secondary.service.standbyLosses$.subscribe(() => killAll('primary'));
    await primary.progress(3);
    killAll('standby');
    await until('said so', () => secondary.failovers.length > 0, PATIENCE_MS);
    expect(secondary.failovers).to.have.length(1);
    expectFailure(secondary.failovers[0], 'NO_STANDBY', 'SIGKILL');
    expect(secondary.status).to.deep.include({ role: 'standby' });
    expect(secondary.status.error?.code).to.equal('NO_STANDBY');
    expect(secondary.out).to.equal('');
  });

  it('at the same moment as the primary: the failover has failed', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary.service.port);
    await primary.progress(3);
    killAll('standby');
    killAll('primary');
    await until('said so', () => secondary.failovers.at(-1)?.phase === 'failed', PATIENCE_MS);
    // Whichever is noticed first.
    expect(secondary.failovers.at(-1)).to.have.nested.property('error.message').that.includes('SIGKILL');
    expect(secondary.out).to.equal('');
  });

  it('not, if it runs and the network cannot be told: the failover is complete', async () => {
    const primary = await primaryOf();
    let told = 0;
    const secondary = await secondaryOf(primary.service.port, {
      madeTarget: ({ machine: { qmp } }) => {
        const execute = qmp.execute.bind(qmp);
        qmp.execute = (command, ...rest) => {
          if (command !== 'announce-self') return execute(command, ...rest);
          told++;
          return Promise.reject(new HypervisorError('FAILED', 'no voice'));
        };
      },
    });
    await survive(primary, secondary);
    expect(told).to.equal(1);
    expect(secondary.status).to.deep.include({ role: 'active', error: null });
  });

  it('while it takes over, or over a state that it cannot load: the failover has failed, with QEMU’s reason', async () => {
    const nonsense = Buffer.from('QEVM\0\0\0\x03\x04\0\0\0\x01\x03foo\0\0\0\0\0\0\0\x01', 'latin1');
    const worst: [code: string, reason: string, madeTarget: PairChanges['madeTarget']][] = [
      [
        'DOMAIN_GONE',
        'SIGKILL',
        (target) => {
          const start = target.start.bind(target);
          target.start = () => {
            killAll('standby');
            return start();
          };
        },
      ],
      [
        'BAD_CONTEXT',
        'foo',
        (target) => {
          const set = target.setEmulatorContext.bind(target);
          target.setEmulatorContext = () => set(nonsense);
        },
      ],
    ];
    for (const [code, reason, madeTarget] of worst) {
      const primary = await primaryOf();
      const secondary = await secondaryOf(primary.service.port, madeTarget && { madeTarget });
      await primary.progress(3);
      killAll('primary');
      await secondary.service.finished;
      expect(secondary.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'failed']);
      expectFailure(secondary.failovers.at(-1), code, reason);
      expect(secondary.status.role).to.equal('failed');
      expect(secondary.out).to.equal('');
      await cleanup.run();
    }
  });
});

function expectFailure(event: FailoverEvent | undefined, code: string, text: string): void {
  expect(event).to.have.property('phase', 'failed');
  expect(event).to.have.nested.property('error.message').that.includes(text);
  expect(event).to.have.nested.property('error.code', code);
}
