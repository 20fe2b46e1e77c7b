// A trial of a standby, with memory domains: what it sees of the copy that runs, and that nothing is left of it, however it
// ends.

import { setImmediate as turn } from 'node:timers/promises';
import { expect } from 'chai';
import { BehaviorSubject, Subject } from 'rxjs';
import { codeOf } from '../../src/errors.js';
import { Bitmap } from '../../src/hypervisor/bitmap.js';
import { HypervisorError, type TargetDomain } from '../../src/hypervisor/port.js';
import { ServiceError } from '../../src/report/error.js';
import type { TrialReport } from '../../src/report/reports.js';
import type { CopiedCheckpoint } from '../../src/restore/copies.js';
import { RestoreError } from '../../src/restore/error.js';
import { tryStandby } from '../../src/secondary/trial.js';
import { DomainCopy } from '../../src/restore/copy.js';
import { MemoryDomain } from '../memory/domain.js';
import { MemoryGuest } from '../service/memory-guest.js';
import { log } from '../service/world.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';

const PAGES = 64;
const EPOCH = 7;
const SECONDS = 0.1;

describe('secondary: a trial', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  /** A standby, and the domain in which it is tried. */
  function scene(load: () => Promise<void> = () => Promise.resolve()) {
    const standby = new MemoryDomain({ pages: PAGES });
    const tried = new MemoryDomain({ pages: PAGES, empty: true });
    const guest = new MemoryGuest(tried);
    cleanup.add(() => guest.end());
    const stopping = new AbortController();
    const copyTo = async (into: TargetDomain): Promise<CopiedCheckpoint> => {
      const frames = new Bitmap(PAGES);
      frames.setAll();
      const copy = new DomainCopy(standby, into, frames);
      await copy.run();
      return { epoch: EPOCH, stamps: copy.stamps, load };
    };
    const trying = { trial: () => Promise.resolve(tried) };
    const attempt = (changes: Partial<Parameters<typeof tryStandby>[0]> = {}): Promise<TrialReport> =>
      tryStandby({
        ...{ name: 'web', host: 'beta', standby: Object.assign(standby, trying), copyTo, seconds: SECONDS },
        ...{ signal: stopping.signal, log, ...changes },
      });
    return { standby, tried, guest, stopping, attempt };
  }

  it('of one that is at work: it lives, and is ended', async () => {
    const { tried, attempt } = scene();
    const report = await attempt();
    expect(report).to.include({ domain: 'web', host: 'beta', epoch: EPOCH, lives: true });
    expect(report.seconds).to.be.within(SECONDS, SECONDS + 1);
    expect(report.changedPages).to.be.greaterThan(10);
    expect(report.outputBytes).to.be.greaterThan(100);
    expect(tried.state).to.equal('destroyed');
  });

  it('tells the last of its console, whole lines, and no more than so much', async () => {
    const { tried, attempt } = scene();
    const reported = attempt();
    await until('it runs', () => tried.state === 'running');
    for (let k = 0; k < 40; k++) tried.say(Buffer.alloc(1000, 'a').fill('\n', 999));
    tried.say(Buffer.from('and last\n'));
    const { console: said } = await reported;
    expect(said.length).to.be.within(1, 2048);
    expect(said).to.match(/^(a{999}\n|[\d]{7}\n|and last\n)/);
  });

  it('of one that does nothing: it does not live', async () => {
    const { guest, attempt } = scene();
    guest.writesPerTurn = 0;
    const report = await attempt();
    expect(report).to.include({ lives: false, changedPages: 0 });
  });

  it('of one that comes to a standstill: it does not live', async () => {
    const { tried, guest, attempt } = scene();
    const reported = attempt();
    await until('it has run', () => tried.state === 'running' && guest.progress > 20);
    guest.writesPerTurn = 0;
    const report = await reported;
    expect(report.lives).to.equal(false);
    expect(report.why).to.include('standstill');
  }).timeout(10_000);

  it('of one that ends is over at once, with what it said', async () => {
    const { tried, attempt } = scene();
    const reported = attempt({ seconds: 3600 });
    await until('it runs', () => tried.state === 'running');
    tried.say(Buffer.from('panic\n'));
    tried.crash('the guest panicked');
    const report = await reported;
    expect(report).to.include({ lives: false, why: 'it ended: the guest panicked' });
    expect(report.console).to.include('panic');
    expect(tried.state).to.equal('destroyed');
  });

  it('of one that is reset, or stopped, or cannot be started: it does not live', async () => {
    const resets$ = new Subject<string>();
    const reset = scene();
    const resetting = reset.attempt({ standby: trial(reset.tried, { resets$ }) });
    await until('it runs', () => reset.tried.state === 'running');
    resets$.next('guest-reset');
    expect((await resetting).why).to.include('guest-reset');

    const stopped = scene();
    const stoppedBy$ = new BehaviorSubject<string | null>('io-error');
    const standing = await stopped.attempt({ standby: trial(stopped.tried, { stoppedBy$ }) });
    expect(standing.why).to.include('io-error');

    const refused = scene(() => Promise.reject(new HypervisorError('BAD_CONTEXT', 'no such device')));
    const report = await refused.attempt();
    expect(report).to.include({ lives: false, seconds: 0 });
    expect(report.why).to.include('no such device');
    expect(refused.tried.state).to.equal('destroyed');
  });

  it('that cannot be made says why', async () => {
    const { attempt } = scene();
    const without = new MemoryDomain({ pages: PAGES });
    const code = (work: Promise<unknown>) => work.then(() => 'tried', codeOf);
    expect(await code(attempt({ standby: without }))).to.equal('UNSUPPORTED');
    const poor = Object.assign(new MemoryDomain({ pages: 1 }), {
      trial: () => Promise.reject(new HypervisorError('OUT_OF_MEMORY', 'no room')),
    });
    expect(await code(attempt({ standby: poor }))).to.equal('OUT_OF_MEMORY');
    const copyTo = () => Promise.reject(new RestoreError('NOT_COPIED', 'the stream is over'));
    expect(await code(attempt({ copyTo }))).to.equal('INTERRUPTED');
  });

  const reason = new ServiceError('INTERRUPTED', 'something else comes first');
  for (const during of ['the making', 'the copy', 'the loading', 'the run'] as const) {
    it(`interrupted in ${during}: over at once, and nothing is left`, async () => {
      let reached = false;
      const never = async (): Promise<never> => {
        reached = true;
        return new Promise(() => undefined);
      };
      const { tried, stopping, attempt } = scene(during === 'the loading' ? never : undefined);
      let made: () => void = () => undefined;
      const opened = new Promise<MemoryDomain>((resolve) => (made = () => resolve(tried)));
      if (during === 'the making') reached = true;
      else made();
      const standby = Object.assign(new MemoryDomain({ pages: PAGES }), { trial: () => opened });
      const given = { standby, seconds: 3600, ...(during === 'the copy' && { copyTo: never }) };
      const outcome = attempt(given).catch((error: unknown) => error);
      await until(during, () => reached || (during === 'the run' && tried.state === 'running'));
      stopping.abort(reason);
      await turn();
      made(); // too late, where it was not made before
      expect(await outcome).to.equal(reason);
      expect(tried.state).to.equal('destroyed');
    });
  }
});

/** A standby that is tried in this domain, of which more is known. */
function trial(tried: MemoryDomain, more: object): TargetDomain {
  return Object.assign(new MemoryDomain({ pages: PAGES }), {
    trial: () => Promise.resolve(Object.assign(tried, more)),
  });
}
