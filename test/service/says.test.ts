// What agents say by themselves, for whoever waits for a link: what was chosen, and why there is none.

import { expect } from 'chai';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { HypervisorError, type SourceDomain } from '../../src/hypervisor/port.js';
import { MemoryDomain } from '../memory/domain.js';
import { captureLog, type CapturedLog } from '../support/capture.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { agentOn, type Reach } from './hosts.js';
import { PAGES, TestPrimary, TestSecondary } from './world.js';

/** The agent of a standby whose domains have so many pages. */
function standbyOf({ port, registers }: Reach, log: CapturedLog['log'], pages = PAGES) {
  const domain = {
    ...{ name: 'alpha', hypervisor: { kind: 'embedded' } },
    failover: { redialMinMs: 5, redialMaxMs: 5 },
  };
  return agentOn(
    'south',
    { port, registers, domains: [domain] },
    { log, openTarget: ({ name }) => Promise.resolve(new MemoryDomain({ name, pages, empty: true })) },
  );
}

describe('service: what is said', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('why a secondary has no link: each reason once, however often it tries', async () => {
    const { log, lines } = captureLog();
    const says = (text: string) => lines().filter(({ msg }) => msg === text);
    const secondary = standbyOf({ port: 0, registers: createMemoryWitness() }, log);
    cleanup.add(() => secondary.stop());
    await secondary.start();
    await until('it tries again', () => says('dial failed').length >= 3);
    const told = says('no link to the primary').map(({ level, code, reason }) => ({ level, code, reason }));
    expect(told).to.deep.equal([{ level: 'info', code: 'REFUSED', reason: 'nobody listens there' }]);
  });

  /** A primary whose network can no longer be reached, because its domain is gone, is fenced. */
  async function fencedWarnings(changes: Partial<SourceDomain>): Promise<unknown[]> {
    const { log, lines } = captureLog();
    const done = () => Promise.resolve();
    const gone = () => Promise.reject(new HypervisorError('DOMAIN_GONE', 'The domain is destroyed.'));
    const gate = { seal: done, release: done, pass: done, hold: done, restart: done, discard: gone };
    const counts = { heldBytes: 0, emittedBytes: 0, releasedBytes: 0 };
    const registers = createMemoryWitness();
    const primary = new TestPrimary({
      ...{ log, registers },
      made: (domain) => Object.assign(domain, { gates: [{ ...gate, ...counts }], ...changes }),
    });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    // One that is left to run on is not ended by us.
    cleanup.add(() => primary.guest().end());
    const secondary = new TestSecondary(primary);
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('paired', () => primary.status().register?.mode === 'paired');
    const taken = { mode: 'alone', owner: 'south', standby: null, stream: null } as const;
    const paired = await registers.read('alpha');
    expect(await registers.compareAndSet('alpha', paired, taken, 'theirs')).to.equal('won');
    await secondary.service.stop();
    await until('fenced', () => primary.was('fenced'));
    await primary.service.stop();
    return lines()
      .filter(({ level, msg }) => level === 'warn' && String(msg).startsWith('could not'))
      .map(({ msg }) => msg);
  }

  it('nothing of a domain that is gone when its output is to be discarded; but of one that may run on', async () => {
    expect(await fencedWarnings({})).to.deep.equal([]);
    expect(await fencedWarnings({ leave: () => Promise.resolve([]) })).to.deep.equal([
      'could not discard output',
    ]);
  });

  it('a secondary that does not fit: once for each reason, however often it dials', async () => {
    const { log, lines } = captureLog();
    const primary = new TestPrimary({ log });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const refused = () =>
      lines()
        .filter(({ msg }) => String(msg).startsWith('connection refused'))
        .map(({ pages, msg }) => pages ?? msg);
    const dialled = async (pages: number, times: number): Promise<void> => {
      const { log: own, lines: said } = captureLog();
      const secondary = standbyOf(primary, own, pages);
      await secondary.start();
      if (pages === PAGES) await until('linked', () => primary.status().link === 'replicating');
      else await until('dials', () => said().filter(({ msg }) => msg === 'dial failed').length >= times);
      await secondary.stop();
    };
    await dialled(PAGES + 1, 3);
    expect(refused()).to.have.length(1);
    await dialled(PAGES + 2, 3);
    expect(refused()).to.have.length(2);
    await dialled(PAGES, 1); // it fits now
    await dialled(PAGES + 2, 3);
    expect(refused()).to.have.length(3);
  });

  it('what a domain’s hypervisor chose by itself', async () => {
    const { log, lines } = captureLog({ level: 'info' });
    const primary = new TestPrimary({
      log,
      made: (domain) => Object.assign(domain, { notes: ['fast, as root'] }),
    });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    expect(lines().filter(({ domain, msg }) => domain === 'alpha' && msg === 'fast, as root')).to.have.length(
      1,
    );
  });
});
