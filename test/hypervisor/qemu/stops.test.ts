// Somebody else stops a protected guest, or lets it run in the middle of a checkpoint.

import { expect } from 'chai';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { PATIENCE_MS, PrimaryOf, SecondaryOf, expectContinuation, killAll } from './pair.js';
import { needQemu, tickGuest } from './support.js';

describe('qemu: stops and resumes that Romulus did not make', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(() => cleanup.run());

  async function pairOf(): Promise<{ primary: PrimaryOf; secondary: SecondaryOf }> {
    const config = tickGuest({ dirty: 'compare' });
    const primary = new PrimaryOf(config, { intervalMs: 10 });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const secondary = new SecondaryOf(primary, config);
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await primary.progress(5);
    return { primary, secondary };
  }

  it('a stop is kept, told, and passed on: who takes over does not let the guest run', async () => {
    const { primary, secondary } = await pairOf();
    const { qmp } = primary.domain.machine;
    const isRunning = async (): Promise<boolean> =>
      ((await qmp.execute('query-status')) as { running: boolean }).running;
    for (let round = 0; round < 5; round++) {
      // In whatever moment. (In a pause of ours QEMU takes no notice of it, and nobody else does.)
      while (primary.status().stoppedBy !== 'paused') {
        await qmp.execute('stop');
        await primary.progress(2);
      }
      await primary.progress(5);
      expect(await isRunning()).to.equal(false);
      expect(primary.status().stoppedBy).to.equal('paused');
      if (round === 4) break;
      await qmp.execute('cont');
      await until('told', () => primary.status().stoppedBy === null, PATIENCE_MS);
      await primary.progress(2);
    }
    expect(primary.transitions.map(({ reason }) => reason)).to.include('the domain was stopped: paused');
    killAll('primary');
    await secondary.active();
    const there = secondary.targets.at(-1)?.machine.qmp;
    expect(await there?.execute('query-status')).to.include({ running: false });
    expect(secondary.out).to.equal('');
    await there?.execute('cont');
    await expectContinuation(primary, secondary);
  });

  it('a resume in a checkpoint costs no more than that', async () => {
    const { primary, secondary } = await pairOf();
    const { qmp } = primary.domain.machine;
    const transitions = primary.transitions.length;
    let disturbing = true;
    const others = (async () => {
      while (disturbing) {
        // Refused while QEMU hands its state over.
        await qmp.execute('cont').catch((error: unknown) => expect(error).to.match(/not finalized/));
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 40));
      }
    })();
    await primary.progress(60);
    disturbing = false;
    await others;
    expect(primary.transitions.slice(transitions), JSON.stringify(primary.transitions)).to.deep.equal([]);
    expect(secondary.failovers).to.deep.equal([]);
    killAll('primary');
    await secondary.active();
    await expectContinuation(primary, secondary);
  });
});
