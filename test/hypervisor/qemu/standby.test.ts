// A standby whose QEMU dies, hangs, or does not take what it is given, through both services: the memory is kept, another
// QEMU is started, and the primary's death is survived as ever.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import type { FailoverEvent } from '../../../src/report/reports.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import {
  PATIENCE_MS,
  PrimaryOf,
  SecondaryOf,
  expectContinuation,
  killAll,
  qemus,
  type PairChanges,
} from './pair.js';
import type { Reach } from '../../service/hosts.js';
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
    await primary.start();
    return primary;
  }

  async function secondaryOf(primary: Reach, changes: PairChanges = {}): Promise<SecondaryOf> {
    const secondary = new SecondaryOf(primary, config, changes);
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    return secondary;
  }

  async function survive(primary: PrimaryOf, secondary: SecondaryOf): Promise<void> {
    await primary.progress(3);
    expect(secondary.status()).to.deep.include({ role: 'standby', link: 'replicating', error: null });
    killAll('primary');
    await secondary.active();
    await expectContinuation(primary, secondary);
  }

  it('while it waits: another QEMU waits in its place', async () => {
    const before = await primaryOf();
    const { port, registers } = before;
    await before.service.stop();
    const secondary = await secondaryOf({ port, registers });
    await anotherQemu(() => killAll('standby'));
    const primary = await primaryOf({ port, registers });
    await survive(primary, secondary);
    expect(secondary.targets).to.have.length(1);
    expect(secondary.losses).to.deep.equal([]);
  });

  it('while it is filled: what was filled is not lost', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary, {
      madeTarget: (target) => {
        const write = target.writePages.bind(target);
        target.writePages = async (...args) => {
          target.writePages = write;
          const { gone } = target.machine;
          killAll('standby');
          await gone;
          return write(...args);
        };
      },
    });
    await survive(primary, secondary);
    expect(secondary.targets).to.have.length(1);
    expect(secondary.losses).to.deep.equal([]);
  });

  it('while it replicates, again and again: protection goes on, with the memory that is there', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary);
    for (let round = 0; round < 3; round++) {
      await primary.progress(5);
      await sleep(Math.random() * 40); // any moment will do: mid-checkpoint, mid-load, between two
      await anotherQemu(() => killAll('standby', round === 1 ? 'SIGTERM' : 'SIGKILL'));
      await primary.progress(5);
    }
    expect(secondary.failovers).to.deep.equal([]);
    expect(secondary.targets).to.have.length(1);
    expect(primary.transitions.filter(({ link }) => link === 'down')).to.deep.equal([]);
    expect(successiveTicksOf(primary.raw)[0]).to.equal(1);
    await survive(primary, secondary);
  });

  it('and hangs: replaced when a checkpoint is loaded on trial', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary);
    await primary.progress(3);
    const [hung] = qemus('standby');
    await anotherQemu(() => killAll('standby', 'SIGSTOP'));
    expect(qemus('standby')).to.not.include(hung);
    await primary.progress(5);
    await survive(primary, secondary);
  });

  it('at the moment when it is needed: the takeover goes on in another QEMU', async () => {
    for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
      const primary = await primaryOf();
      const secondary = await secondaryOf(primary, {
        madeTarget: (target) => {
          const start = target.start.bind(target);
          target.start = () => {
            killAll('standby', signal);
            return start();
          };
        },
      });
      await survive(primary, secondary);
      await cleanup.run();
    }
  });

  it('with its memory: the domain is lost, and another one is filled', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary);
    await primary.progress(3);
    secondary.targets[0]?.events$.next({ kind: 'crashed', reason: 'its memory is gone' });
    await until('another one', () => secondary.targets.length === 2, PATIENCE_MS);
    await until('protected', () => secondary.status().link === 'replicating', PATIENCE_MS);
    expect(secondary.losses.map(({ was, reason }) => [was, reason])).to.deep.equal([
      ['held', 'its memory is gone'],
    ]);
    await survive(primary, secondary);
  });

  it('not, if it runs and the network cannot be told: the failover is complete', async () => {
    const primary = await primaryOf();
    let told = 0;
    const secondary = await secondaryOf(primary, {
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
    expect(secondary.status()).to.deep.include({ phase: 'owner', error: null });
  });

  it('because of a state that it cannot load: known at once, and said on both sides; no failover into it', async () => {
    const primary = await primaryOf();
    const secondary = await secondaryOf(primary, {
      madeTarget: (target) => {
        const checkpoint = target.checkpoint.bind(target);
        target.checkpoint = () => checkpoint(NONSENSE);
      },
    });
    await until('refused', () => secondary.status().error?.code === 'STATE_REFUSED', PATIENCE_MS);
    expect(secondary.status().error?.message).to.include('foo');
    await until('told', () => primary.status().error?.code === 'STATE_REFUSED', PATIENCE_MS);
    expect(primary.status().error?.message).to.include('foo');
    expect(primary.checkpoints, 'nothing is acknowledged that cannot be loaded').to.deep.equal([]);
    expect(secondary.status().link).to.not.equal('replicating');
    expect(secondary.failovers).to.deep.equal([]);
  });

  it('because of a later state that it cannot load: back to the checkpoint before, which works', async () => {
    const primary = await primaryOf();
    let count = 0;
    let spoilt = false;
    const secondary = await secondaryOf(primary, {
      config: { trialLoads: 'each' },
      madeTarget: (target) => {
        const checkpoint = target.checkpoint.bind(target);
        target.checkpoint = (context) => {
          if (++count !== 8 || spoilt) return checkpoint(context);
          spoilt = true;
          killAll('primary'); // nobody is there to fill it again
          return checkpoint(NONSENSE);
        };
      },
    });
    await secondary.active();
    const { epoch } = secondary.commits.at(-1) ?? { epoch: -1 };
    expect(epoch).to.equal(6);
    expect(secondary.failovers.at(-1)).to.deep.include({ phase: 'completed', epoch: 6 });
    await until('the guest ticks on', () => ticksOf(secondary.out).length >= 5, PATIENCE_MS);
    expect(secondary.out).to.not.include('BAD');
  });

  it('when it cannot be started at all: nothing is lost, it is tried again until it can', async () => {
    const primary = await primaryOf();
    let broken = true;
    let attempts = 0;
    const secondary = await secondaryOf(primary, {
      madeTarget: (target) => {
        const start = target.start.bind(target);
        target.start = () => {
          attempts++;
          return broken ? Promise.reject(new HypervisorError('FAILED', 'not now')) : start();
        };
      },
    });
    await primary.progress(3);
    killAll('primary');
    await until('some attempts', () => attempts >= 3, PATIENCE_MS);
    expect(secondary.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'failed']);
    expectFailure(secondary.failovers.at(-1), 'FAILED', 'not now');
    expect(secondary.status()).to.deep.include({ role: 'standby', link: 'suspect' });
    broken = false;
    await until('failover', () => secondary.owns(), PATIENCE_MS);
    expect(secondary.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'failed', 'completed']);
    await expectContinuation(primary, secondary);
  });
});

/** A device state of a device that no machine has. */
const NONSENSE = Buffer.from('QEVM\0\0\0\x03\x04\0\0\0\x01\x03foo\0\0\0\0\0\0\0\x01', 'latin1');

/** Resolves when the standby's QEMU is another than before. */
async function anotherQemu(action: () => void): Promise<void> {
  const before = qemus('standby');
  action();
  await until('another QEMU', () => qemus('standby').some((pid) => !before.includes(pid)), PATIENCE_MS);
}

function expectFailure(event: FailoverEvent | undefined, code: string, text: string): void {
  expect(event).to.have.property('phase', 'failed');
  expect(event).to.have.nested.property('error.message').that.includes(text);
  expect(event).to.have.nested.property('error.code', code);
}
