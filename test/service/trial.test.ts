// Test failovers between two agents, with the embedded machine: the standby is tried while it goes on, and what fails over
// afterwards has lost nothing, and says nothing twice.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { codeOf, type RomulusError } from '../../src/errors.js';
import type { TrialReport } from '../../src/report/reports.js';
import { openSource, openTarget } from '../../src/service/hypervisors.js';
import type { TargetDomain } from '../../src/hypervisor/port.js';
import { successiveTicksOf } from '../hypervisor/support.js';
import { MemoryDomain } from '../memory/domain.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { PATIENCE_MS } from './agent-pair.js';
import { LINE_BYTES, MemoryGuest, lineOf, memoryAfter, progressOf } from './memory-guest.js';
import { Resync } from './resyncs.js';
import { TwoAgents } from './two-agents.js';
import { PAGES } from './world.js';

const hypervisor = {
  kind: 'embedded',
  memory: '4MiB',
  guest: { dirtyPages: 10, workingSetPages: 64, tickMs: 5 },
};

const refusal = (tried: Promise<unknown>): Promise<string> => tried.then(() => 'tried', codeOf);

/** Keeps the domains in which standbys are tried. */
function trialsOf(made: TargetDomain[]) {
  return {
    openSource,
    openTarget: async (...given: Parameters<typeof openTarget>) => {
      const target = await openTarget(...given);
      const trial = target.trial?.bind(target);
      return Object.assign(target, {
        trial: async (signal: AbortSignal) => {
          const tried = await trial?.(signal);
          if (!tried) throw new Error('it makes no trials');
          made.push(tried);
          return tried;
        },
      });
    },
  };
}

describe('service: a test failover', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('the standby is acknowledged and committed to meanwhile, and takes over afterwards without a gap', async () => {
    const two = await TwoAgents.start(cleanup, { hypervisor });
    const reports: TrialReport[] = [];
    two.agent('beta').trials$.subscribe((report) => reports.push(report));
    await two.more();
    const epochs = () => [two.status('alpha').epochAcknowledged, two.status('beta').epochCommitted];
    for (let round = 0; round < 3; round++) {
      const before = epochs();
      const report = await two.agent('beta').testFailover('web', { seconds: 1 });
      expect(report).to.include({ domain: 'web', host: 'beta', lives: true });
      expect(report.epoch).to.be.at.least(before[1] ?? NaN);
      expect(report.seconds).to.be.within(1, 3);
      expect(report.changedPages).to.be.greaterThan(10);
      successiveTicksOf(report.console);
      const after = epochs();
      // At 20 ms there are fifty of them in a second.
      for (const [k, epoch] of after.entries()) expect(epoch).to.be.greaterThan((before[k] ?? NaN) + 10);
      expect(two.status('alpha').link).to.equal('replicating');
      expect(two.status('beta')).to.include({ role: 'standby', link: 'replicating' });
    }
    expect(reports.map(({ lives }) => lives)).to.deep.equal([true, true, true]);
    expect(two.failovers).to.deep.equal([]);
    await two.agent('alpha').switchover('web');
    await two.more();
    expect(two.owner).to.equal('beta');
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
  });

  it('a failover that comes meanwhile does not wait for it', async () => {
    const made: TargetDomain[] = [];
    const two = await TwoAgents.start(cleanup, { hypervisor, hypervisors: trialsOf(made) });
    await two.more();
    const tried = refusal(two.agent('beta').testFailover('web', { seconds: 3600 }));
    await until('it is tried', () => made.length === 1, PATIENCE_MS);
    const [domain] = made;
    const info = async () => (await domain?.info())?.state;
    while ((await info()) !== 'running') await sleep(2);
    const report = await two.agent('alpha').switchover('web');
    expect(report.pauseMs).to.be.below(5000);
    expect(await tried).to.equal('INTERRUPTED');
    expect(await info()).to.equal('destroyed');
    await two.more();
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
  });

  it('the agent is stopped meanwhile: whoever asked hears of it, and nothing is left', async () => {
    const made: TargetDomain[] = [];
    const two = await TwoAgents.start(cleanup, { hypervisor, hypervisors: trialsOf(made) });
    const tried = refusal(two.agent('beta').testFailover('web', { seconds: 3600 }));
    await until('it is tried', () => made.length === 1, PATIENCE_MS);
    await two.end('beta');
    expect(await tried).to.equal('INTERRUPTED');
    expect((await made[0]?.info())?.state).to.equal('destroyed');
    await two.more();
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
  });

  it('whoever asked for it leaves: it is over, and the next one may begin', async () => {
    const made: TargetDomain[] = [];
    const two = await TwoAgents.start(cleanup, { hypervisor, hypervisors: trialsOf(made) });
    const asking = new AbortController();
    const beta = two.agent('beta');
    const first = refusal(beta.testFailover('web', { seconds: 3600, signal: asking.signal }));
    expect(await refusal(beta.testFailover('web'))).to.equal('UNDER_WAY');
    await until('it is tried', () => made.length === 1, PATIENCE_MS);
    asking.abort();
    expect(await first).to.equal('INTERRUPTED');
    expect((await made[0]?.info())?.state).to.equal('destroyed');
    expect(await beta.testFailover('web', { seconds: 0.2 })).to.include({ lives: true });
  });

  it('a link that is cut meanwhile ends it; the standby that goes on from there is tried as any', async () => {
    const resync = await Resync.start(cleanup, {
      hypervisor: { ...hypervisor, memory: '16MiB' },
      ...{ memoryBytes: 16 * 2 ** 20, dirtyPages: hypervisor.guest.dirtyPages },
    });
    const { two } = resync;
    const beta = two.agent('beta');
    for (let round = 0; round < 2; round++) {
      const cut = refusal(beta.testFailover('web', { seconds: 3600 }));
      await resync.cut(0);
      expect(await cut).to.equal('INTERRUPTED');
      const committed = () => two.status('beta').epochCommitted;
      const before = committed();
      const report = await beta.testFailover('web', { seconds: 0.5 });
      expect(report).to.include({ lives: true });
      expect(report.epoch, 'of the stream that goes on').to.be.within(before, committed());
      successiveTicksOf(report.console);
    }
    await resync.takeOver();
  });

  it('is refused where nothing is held, with the host that is to be asked', async () => {
    const two = await TwoAgents.start(cleanup, { hypervisor });
    const error = await two
      .agent('alpha')
      .testFailover('web')
      .catch((thrown: unknown) => thrown as RomulusError);
    expect(error).to.have.property('code', 'NOT_STANDBY');
    expect(error).to.have.nested.property('facts.standby', 'beta');
    expect(error).to.have.property('message').that.includes('beta');
    const refused = (domain: string, seconds?: number) =>
      refusal(two.agent('beta').testFailover(domain, seconds === undefined ? {} : { seconds }));
    expect(await refused('wbe')).to.equal('UNKNOWN_DOMAIN');
    for (const seconds of [0, -1, NaN, Infinity])
      expect(await refused('web', seconds)).to.equal('BAD_SECONDS');
    await two.end('alpha');
    expect(await refused('web')).to.equal('NOT_PAIRED');
  });

  it('a hypervisor that makes no trials says so; one that does is seen to have the memory of one epoch', async () => {
    const made: MemoryDomain[] = [];
    const guests: MemoryGuest[] = [];
    cleanup.add(() => guests.forEach((guest) => guest.end()));
    const domainOf = (empty: boolean) => new MemoryDomain({ name: 'web', pages: PAGES, empty });
    let makesTrials = false;
    const target = () => {
      const domain = domainOf(true);
      const trial = () => {
        const tried = domainOf(true);
        made.push(tried);
        return Promise.resolve(tried);
      };
      return Promise.resolve(makesTrials ? Object.assign(domain, { trial }) : domain);
    };
    const source = () => {
      const domain = domainOf(false);
      guests.push(new MemoryGuest(domain));
      return Promise.resolve(domain);
    };
    const two = await TwoAgents.start(cleanup, {
      hypervisor: { kind: 'embedded' },
      hypervisors: { openSource: source, openTarget: target },
    });
    expect(await refusal(two.agent('beta').testFailover('web'))).to.equal('UNSUPPORTED');
    await two.end('beta');
    makesTrials = true;
    await two.begin('beta');
    await two.paired();
    for (let round = 0; round < 5; round++) {
      // Nobody is in it: what it holds in the end is what was copied, while twenty pages were written every other millisecond.
      const report = await two.agent('beta').testFailover('web', { seconds: 0.05 });
      expect(report).to.include({ lives: false, changedPages: 0 });
      const memory = made[round]?.memory ?? new Uint8Array(0);
      expect(Buffer.compare(memory, memoryAfter(progressOf(memory), PAGES))).to.equal(0);
    }
    const { said } = two;
    let expected = '';
    for (let n = 1; n <= said.length / LINE_BYTES; n++) expected += lineOf(n);
    expect(said === expected).to.equal(true);
  });
});
