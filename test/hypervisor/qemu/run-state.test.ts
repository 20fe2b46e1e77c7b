// Who stopped the guest, told from what QEMU says.

import { expect } from 'chai';
import { RunState } from '../../../src/hypervisor/qemu/monitor/run-state.js';

const RUNS = { running: true, status: 'running' };
const event = (name: string, data: Record<string, unknown> = {}) => ({ name, data });

describe('qemu: who stopped the guest', () => {
  const made = (): { run: RunState; said: (string | null)[] } => {
    const run = new RunState(null);
    const said: (string | null)[] = [];
    run.stoppedBy$.subscribe((stoppedBy) => said.push(stoppedBy));
    return { run, said };
  };
  const pause = (run: RunState, before = RUNS): void => {
    run.stopping();
    if (before.running) run.hear(event('STOP'));
    run.stopped(before);
  };
  const resume = (run: RunState): void => {
    run.resuming();
    run.hear(event('RESUME'));
    run.resumed();
  };

  it('our own stops and resumes are nobody else’s', () => {
    const { run, said } = made();
    for (let k = 0; k < 3; k++) {
      pause(run);
      expect(run.resumedByOthers).to.equal(false);
      resume(run);
    }
    expect(said).to.deep.equal([null]);
  });

  it('one that is left stopped is not let run, also not by a pause that was under way', () => {
    const { run, said } = made();
    pause(run);
    expect(run.isToResume).to.equal(true);
    run.leaveStopped();
    expect(run.isToResume).to.equal(false);
    run.resuming();
    run.resumed();
    pause(run, { running: false, status: 'paused' });
    expect(run.isToResume).to.equal(false);
    expect(said.filter((stoppedBy) => stoppedBy === null)).to.deep.equal([null]);
  });

  it('a stop between pauses; why, is asked of QEMU', () => {
    const { run, said } = made();
    expect(run.hear(event('STOP'))).to.equal('ask');
    run.told({ running: false, status: 'suspended' });
    pause(run, { running: false, status: 'suspended' });
    run.resuming();
    run.resumed();
    run.hear(event('RESUME'));
    expect(said).to.deep.equal([null, 'paused', 'suspended', null]);
  });

  it('a stop that our pause was made in, and a full state taken: the next pause finds it handed over, by nobody', () => {
    const handedOver = { running: false, status: 'postmigrate' };
    const { run, said } = made();
    run.hear(event('STOP'));
    for (let k = 0; k < 3; k++) {
      pause(run, k === 0 ? { running: false, status: 'paused' } : handedOver);
      run.resuming();
      run.resumed();
    }
    expect(said).to.deep.equal([null, 'paused']);
    run.hear(event('RESUME'));
    // Our own, in which the guest was handed over.
    pause(run);
    run.stopping();
    run.stopped(handedOver);
    expect(said).to.deep.equal([null, 'paused', null]);
  });

  it('a stop just before ours, found by what ours found', () => {
    const { run, said } = made();
    run.stopping();
    run.hear(event('STOP'));
    run.stopped({ running: false, status: 'paused' });
    expect(said).to.deep.equal([null, 'paused']);
  });

  it('an I/O error or a watchdog: before the pause, in the write of our stop, in the pause', () => {
    for (const [name, data, word] of [
      ['BLOCK_IO_ERROR', { action: 'stop' }, 'io-error'],
      ['WATCHDOG', { action: 'pause' }, 'watchdog'],
    ] as const) {
      const before = made();
      before.run.hear(event(name, data));
      expect(before.run.hear(event('STOP'))).to.equal(null);
      expect(before.said, name).to.deep.equal([null, word]);
      const within = made();
      within.run.stopping();
      within.run.hear(event(name, data));
      within.run.hear(event('STOP'));
      within.run.stopped(RUNS);
      expect(within.said, name).to.deep.equal([null, word]);
      const later = made();
      pause(later.run);
      later.run.hear(event(name, data));
      expect(later.said, name).to.deep.equal([null, word]);
    }
    const reported = made();
    reported.run.hear(event('BLOCK_IO_ERROR', { action: 'report' }));
    pause(reported.run);
    expect(reported.said).to.deep.equal([null]);
  });

  it('a resume in our pause, also one that comes with the stop', () => {
    const { run } = made();
    pause(run);
    run.hear(event('RESUME'));
    expect(run.resumedByOthers).to.equal(true);
    pause(run);
    expect(run.resumedByOthers).to.equal(false);
    run.hear(event('RESUME'));
    run.stopping();
    run.hear(event('STOP'));
    run.hear(event('RESUME'));
    run.stopped(RUNS);
    expect(run.resumedByOthers).to.equal(true);
  });

  it('a stop just after our resume', () => {
    const { run, said } = made();
    pause(run);
    run.resuming();
    run.hear(event('RESUME'));
    run.hear(event('STOP'));
    run.resumed();
    expect(said).to.deep.equal([null, 'paused']);
  });
});
