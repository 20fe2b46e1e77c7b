// A standby that ends by itself before it is taken over, through both hosts: it is replaced and filled again while
// the primary runs on, and nothing is ever taken over that is not whole.

import { expect } from 'chai';
import { BehaviorSubject } from 'rxjs';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { MemoryDomain } from '../memory/domain.js';
import { NOWHERE } from '../../src/output/outlet.js';
import type { StandbyLossReport } from '../../src/report/reports.js';
import { Standby, Standbys } from '../../src/secondary/standbys.js';
import { LINE_BYTES, lineOf, memoryAfter, progressOf } from '../service/memory-guest.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { PAGES, TestPrimary, TestSecondary, log, type SecondaryChanges } from '../service/world.js';

describe('service: a standby that ends by itself', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  interface Pair {
    readonly primary: TestPrimary;
    readonly secondary: TestSecondary;
    readonly losses: StandbyLossReport[];
  }

  async function pair(changes: SecondaryChanges = {}): Promise<Pair> {
    const primary = new TestPrimary();
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const secondary = new TestSecondary(primary, changes);
    cleanup.add(() => secondary.service.stop());
    const losses: StandbyLossReport[] = [];
    secondary.service.standbyLosses$.subscribe((loss) => losses.push(loss));
    await secondary.start();
    return { primary, secondary, losses };
  }

  /** The primary's domain crashes, and goes on here from the last checkpoint. */
  async function survives({ primary, secondary }: Pair): Promise<void> {
    const commits = secondary.commits.length;
    await until('checkpoints', () => secondary.commits.length > commits + 3);
    expect(secondary.status()).to.deep.include({ role: 'standby', link: 'replicating', error: null });
    primary.guest().domain.crash();
    await until('failover', () => secondary.owns());
    const { memory } = secondary.running();
    const n = progressOf(memory);
    expect(Buffer.compare(memory, memoryAfter(n, PAGES))).to.equal(0);
    expect(primary.output().length).to.be.at.most(n * LINE_BYTES);
    const others = secondary.domains.filter((domain) => domain !== secondary.running());
    expect(others.every(({ state }) => state === 'destroyed')).to.equal(true);
  }

  it('held: dropped and filled again, the primary’s domain never stands still for it', async () => {
    const both = await pair();
    const { primary, secondary, losses } = both;
    for (let round = 0; round < 3; round++) {
      const before = primary.checkpoints.length;
      await until('checkpoints', () => primary.checkpoints.length > before + 5);
      const progress = primary.guest().progress;
      secondary.domains.at(-1)?.crash('killed');
      await until('the next standby', () => secondary.domains.length === round + 2);
      await until('the domain runs on', () => primary.guest().progress > progress + 40);
      await until('protected', () => secondary.status().link === 'replicating');
    }
    expect(losses.map(({ was, reason }) => `${was} ${reason}`)).to.deep.equal(Array(3).fill('held killed'));
    expect(primary.transitions.map(({ reason }) => reason)).to.include('STANDBY_LOST');
    const streams = () => new Set(primary.checkpoints.map(({ streamUuid }) => streamUuid)).size;
    await until('a stream for each standby', () => streams() === 4);
    const output = primary.output();
    let said = '';
    for (let n = 1; n <= output.length / LINE_BYTES; n++) said += lineOf(n);
    expect(output === said).to.equal(true);
    await survives(both);
  });

  it('spare: replaced when a stream comes', async () => {
    const before = new TestPrimary();
    await before.start();
    const { port, registers } = before;
    await before.service.stop();
    const secondary = new TestSecondary({ port, registers });
    cleanup.add(() => secondary.service.stop());
    const losses: StandbyLossReport[] = [];
    secondary.service.standbyLosses$.subscribe((loss) => losses.push(loss));
    await secondary.start();
    secondary.domains[0]?.crash('killed');
    await until('destroyed', () => secondary.domains[0]?.state === 'destroyed');
    expect(losses.map(({ was }) => was)).to.deep.equal(['spare']);
    expect(secondary.status()).to.deep.include({ role: 'standby', error: null });
    const primary = new TestPrimary({ port, registers });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    await survives({ primary, secondary, losses });
    expect(losses).to.have.length(1);
  });

  it('filling: filled again', async () => {
    let crashes = 2;
    const both = await pair({
      made: (domain) => {
        let written = 0;
        domain.script = (call) => {
          if (call === 'writePages' && ++written === 2 && crashes-- > 0) domain.crash('killed');
        };
      },
    });
    await survives(both);
    expect(both.losses.map(({ was }) => was)).to.deep.equal(['filling', 'filling']);
  });

  it('ended before anything could be done with it: filled again', async () => {
    const made: MemoryDomain[] = [];
    const both = await pair({
      made: (domain) => {
        made.push(domain);
        if (made.length === 2 || made.length === 3) domain.crash('killed');
      },
    });
    both.secondary.domains[0]?.crash('killed');
    await survives(both);
    expect(made.length).to.equal(4);
  });

  it('always, at once: tried with growing pauses, and the primary runs on', async () => {
    const { primary, secondary, losses } = await pair({
      failover: { redialMinMs: 20, redialMaxMs: 200 },
      made: (domain) => {
        domain.script = (call) => {
          if (call === 'populate') domain.crash('killed');
        };
      },
    });
    const started = performance.now();
    await until('time', () => performance.now() - started > 1000);
    // 0, 20, 40, 80, 160, 200, 200, … with the spread at least half of each.
    expect(losses.length).to.be.within(3, 14);
    expect(secondary.failovers).to.deep.equal([]);
    const progress = primary.guest().progress;
    await until('the domain runs on', () => primary.guest().progress > progress + 40);
    expect(primary.checkpoints).to.deep.equal([]);
  });

  it('made when nobody wants it any more: destroyed', async () => {
    const domain = new MemoryDomain({ name: 'alpha', pages: PAGES, empty: true });
    let made: (domain: MemoryDomain) => void = () => undefined;
    const standbys = new Standbys({
      open: () => new Promise((resolve) => (made = resolve)),
      console: NOWHERE,
      limitBytes: 1000,
      tap: null,
      ended: () => undefined,
      stopped: () => undefined,
      log,
    });
    const filling = standbys.fill().catch((error: unknown) => error);
    await standbys.close();
    made(domain);
    expect(await filling).to.have.property('code', 'DOMAIN_GONE');
    expect(domain.state).to.equal('destroyed');
  });

  describe('what only one can have', () => {
    function standbysOf(domains: readonly MemoryDomain[], endLimitMs?: number) {
      let opened = 0;
      const standbys = new Standbys({
        open: () => {
          const domain = domains[opened++];
          return domain ? Promise.resolve(domain) : Promise.reject(new Error('there are no more'));
        },
        console: NOWHERE,
        limitBytes: 1000,
        tap: null,
        ended: () => undefined,
        stopped: () => undefined,
        ...(endLimitMs !== undefined && { endLimitMs }),
        log,
      });
      return { standbys, opened: () => opened };
    }
    const domainOf = (): MemoryDomain => new MemoryDomain({ name: 'alpha', pages: PAGES, empty: true });
    const turns = async (): Promise<void> => {
      for (let k = 0; k < 20; k++) await new Promise((resolve) => setImmediate(resolve));
    };

    for (const was of ['held', 'filling'] as const) {
      it(`the next one is opened when the one before (${was}) has ended`, async () => {
        const [before, next] = [domainOf(), domainOf()];
        const { standbys, opened } = standbysOf([before, next]);
        let end: () => void = () => undefined;
        const destroy = before.destroy.bind(before);
        before.destroy = async () => {
          await new Promise<void>((resolve) => (end = resolve));
          await destroy();
        };
        await standbys.fill();
        if (was === 'held') await standbys.adopt();
        const discarded = standbys.discard(was);
        const filled = standbys.fill();
        await turns();
        expect(opened()).to.equal(1);
        end();
        expect((await filled).domain).to.equal(next);
        expect(before.state).to.equal('destroyed');
        await discarded;
        await standbys.discard('filling');
      });
    }

    it('and does not wait for ever: an error, and it can be tried again', async () => {
      const [before, next] = [domainOf(), domainOf()];
      const { standbys, opened } = standbysOf([before, next], 30);
      let end: () => void = () => undefined;
      before.destroy = () => new Promise<void>((resolve) => (end = resolve));
      await standbys.fill();
      const discarded = standbys.discard('filling');
      const outcome = await standbys.fill().catch((error: unknown) => error);
      expect(outcome).to.have.property('code', 'FAILED');
      expect(opened()).to.equal(1);
      end();
      await discarded;
      expect((await standbys.fill()).domain).to.equal(next);
      await standbys.discard('filling');
    });
  });

  describe('taken over', () => {
    it('its console takes nothing, and somebody else lets it run: it is stopped again, until it does', async () => {
      const domain = new MemoryDomain({ name: 'alpha', pages: PAGES, empty: true });
      let taking = false;
      let taken = 0;
      const standby = new Standby(
        domain,
        {
          open: () => Promise.resolve(domain),
          console: {
            write: (bytes) => {
              if (!taking) return 0;
              taken += bytes.length;
              return bytes.length;
            },
            close: () => undefined,
          },
          limitBytes: 100,
          tap: null,
          ended: () => undefined,
          stopped: () => undefined,
          log,
        },
        { ended: () => undefined, stopped: () => undefined },
      );
      cleanup.add(() => standby.destroy());
      await standby.start();
      await standby.speak();
      domain.output$.next(Buffer.alloc(1000, 1));
      for (let round = 0; round < 3; round++) {
        await until('it stands still', () => domain.state === 'suspended');
        await domain.resume();
        expect(domain.state).to.equal('running');
      }
      await until('it stands still', () => domain.state === 'suspended');
      taking = true;
      await until('it runs', () => domain.state === 'running');
      expect(taken).to.equal(1000);
    });

    it('somebody else stops it: its status says by what, and it is told; before, the primary’s has it', async () => {
      const stoppedBy$ = new BehaviorSubject<string | null>(null);
      const { primary, secondary } = await pair({ made: (domain) => Object.assign(domain, { stoppedBy$ }) });
      await until('checkpoints', () => primary.checkpoints.length > 3);
      stoppedBy$.next('paused');
      expect(secondary.status().stoppedBy).to.equal(null);
      stoppedBy$.next(null);
      primary.guest().domain.crash();
      await until('failover', () => secondary.owns());
      expect(secondary.status().stoppedBy).to.equal(null);
      stoppedBy$.next('io-error');
      expect(secondary.status().stoppedBy).to.equal('io-error');
      stoppedBy$.next(null);
      expect(secondary.status().stoppedBy).to.equal(null);
      expect(secondary.transitions.slice(-2).map(({ reason }) => reason)).to.deep.equal([
        'the domain was stopped: io-error',
        'the domain runs again',
      ]);
    });
  });

  it('and the primary dies before the next one is filled: the failover has failed, with the reason', async () => {
    let mayFill = true;
    const both = await pair({
      made: (domain) => {
        domain.script = (call) => {
          if (call === 'populate' && !mayFill) throw new HypervisorError('OUT_OF_MEMORY', 'not now');
        };
      },
    });
    const { primary, secondary } = both;
    await until('checkpoints', () => primary.checkpoints.length > 5);
    mayFill = false;
    const { streamUuid, epochCommitted } = secondary.status();
    secondary.domains[0]?.crash('killed');
    await until('unprotected', () => primary.status().register?.mode === 'alone');
    await until('told', () => secondary.status().error?.code === 'STANDBY_LOST');
    expect(secondary.status().error?.message).to.include('killed');
    primary.guest().domain.crash();
    await until('said so', () => secondary.failovers.length > 0);
    expect(secondary.failovers).to.have.length(1);
    const [failed] = secondary.failovers;
    expect(failed).to.deep.include({ phase: 'failed', streamUuid });
    expect(failed?.epoch).to.be.within(epochCommitted, epochCommitted + 2);
    expect(failed).to.have.nested.property('error.code', 'NO_STANDBY');
    expect(failed).to.have.nested.property('error.message').that.includes('killed');
    expect(secondary.status()).to.deep.include({ role: 'standby' });
    expect(secondary.domains.some(({ state }) => state === 'running')).to.equal(false);
    // Nobody stood by, so the primary starts it anew.
    mayFill = true;
    await until('protected', () => secondary.status().link === 'replicating');
    await until('nothing is wrong', () => secondary.status().error === null);
  });
});
