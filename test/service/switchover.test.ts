// A domain goes from one host to the other and back while both are well, and says all that it has to say, once; and where
// that comes to nothing, it goes on where it was.

import { expect } from 'chai';
import { codeOf } from '../../src/errors.js';
import type { Register, RegisterWitness } from '../../src/failover/register.js';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { successiveTicksOf } from '../hypervisor/support.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { TwoAgents } from './two-agents.js';
import { TestPrimary, TestSecondary } from './world.js';

const ROUNDS = 20;
const hypervisor = {
  kind: 'embedded',
  memory: '4MiB',
  guest: { dirtyPages: 10, workingSetPages: 64, tickMs: 5 },
};

/** A register that is asked for one host's sake only when that is let through. */
class Gated implements RegisterWitness {
  readonly name = 'gated';
  readonly #inner = createMemoryWitness();
  #held: (() => void)[] | null = null;

  constructor(private readonly host: string) {}

  shut(): void {
    this.#held = [];
  }

  open(): void {
    for (const go of this.#held ?? []) go();
    this.#held = null;
  }

  read: RegisterWitness['read'] = (domain, signal) => this.#inner.read(domain, signal);

  compareAndSet: RegisterWitness['compareAndSet'] = async (domain, expected, claim, token, signal) => {
    if (claim.owner === this.host) await new Promise<void>((go) => (this.#held ? this.#held.push(go) : go()));
    return this.#inner.compareAndSet(domain, expected, claim, token, signal);
  };

  close(): void {
    this.open();
  }
}

/** What is asked of the register, in order. */
class Watched implements RegisterWitness {
  readonly name = 'watched';
  readonly asked: string[] = [];
  /** The reads, counted from one, that see what was there before the last write. */
  old: readonly number[] = [];
  readonly #inner = createMemoryWitness();
  #before: Register | null = null;

  read: RegisterWitness['read'] = async (domain, signal) => {
    this.asked.push('read');
    const register = await this.#inner.read(domain, signal);
    const reads = this.asked.filter((what) => what === 'read').length;
    return this.old.includes(reads) ? this.#before : register;
  };

  compareAndSet: RegisterWitness['compareAndSet'] = async (domain, expected, claim, token, signal) => {
    const before = await this.#inner.read(domain, signal);
    const outcome = await this.#inner.compareAndSet(domain, expected, claim, token, signal);
    if (outcome === 'won') this.#before = before;
    this.asked.push(`${claim.mode} ${claim.owner} ${outcome}`);
    return outcome;
  };

  /** Somebody writes again what is there: the same claim, another generation. */
  async touch(): Promise<void> {
    const now = await this.#inner.read('web');
    if (now) await this.compareAndSet('web', now, now, 'touched');
    this.asked.length = 0;
  }

  close(): void {
    void this.#inner.close();
  }
}

async function refusal(switched: Promise<unknown>): Promise<string> {
  return switched.then(
    () => 'switched',
    (error: unknown) => codeOf(error),
  );
}

describe('service: switchover', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it(`${ROUNDS} in a row, both directions: nothing is missing and nothing is said twice`, async () => {
    const two = await TwoAgents.start(cleanup, { hypervisor });
    for (let round = 0; round < ROUNDS; round++) {
      const { owner, standby } = await two.paired();
      await two.more();
      const report = await two.agent(owner).switchover('web', standby);
      expect(report).to.include({ domain: 'web', to: standby });
      expect(report.epoch).to.be.greaterThan(0);
      await two.more();
      expect(two.owner).to.equal(standby);
    }
    await two.paired();
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
    const completed = two.failovers.filter(({ phase }) => phase === 'completed');
    expect(completed.map(({ reason }) => reason)).to.deep.equal(Array(ROUNDS).fill('HANDED_OVER'));
  });

  it('the register is read before the domain stands still for it; if that is old by then, it goes on where it was', async () => {
    const witness = new Watched();
    const two = await TwoAgents.start(cleanup, { hypervisor, witness });
    await two.more();
    witness.asked.length = 0;
    await two.agent('alpha').switchover('web');
    // By the owner, whether it is paired; and for each of the checkpoints that are tried.
    const ahead = ['read', 'read', 'read'];
    expect(witness.asked.slice(0, 5)).to.deep.equal([...ahead, 'paired beta won', 'alone beta won']);
    await two.paired();
    await witness.touch();
    // Old views are a witness' right: what is claimed by one is lost.
    witness.old = [2, 3];
    expect(await refusal(two.agent('beta').switchover('web'))).to.equal('NOT_SWITCHED');
    expect(witness.asked.slice(0, 5)).to.deep.equal([...ahead, 'paired alpha lost', 'read']);
    await two.paired();
    expect(two.owner).to.equal('beta');
    await two.agent('beta').switchover('web');
    expect(two.owner).to.equal('alpha');
    await two.more();
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
  });

  it('the register grants it too late: it goes on here, and is not there', async () => {
    const witness = new Gated('beta');
    const two = await TwoAgents.start(cleanup, {
      ...{ hypervisor, witness },
      domain: { checkpoint: { intervalMs: 20, switchoverTimeoutMs: 2000 } },
    });
    await two.more();
    witness.shut();
    const switched = two.agent('alpha').switchover('web');
    expect(await refusal(two.agent('alpha').switchover('web'))).to.equal('UNDER_WAY');
    expect(await refusal(switched)).to.equal('NOT_SWITCHED');
    await two.more();
    witness.open();
    await two.paired();
    expect(two.owner).to.equal('alpha');
    expect(two.failovers).to.deep.equal([]);
    expect(await two.agent('alpha').evacuate()).to.have.nested.property('[0].to', 'beta');
    await two.more();
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
  });

  for (const [what, refused, seen] of [
    ['the checkpoint that is tried first: its owner is not stopped for it', 1, ['tried']],
    ['the last but one: it goes on where it was', 2, ['tried', 'tried']],
    ['the last checkpoint: it goes on where it was', 3, ['tried', 'tried', 'the last', 'tried']],
  ] as const) {
    it(`the standby does not take ${what}, and is protected again`, async () => {
      let refuses = true;
      const told: string[] = [];
      const primary = new TestPrimary({ emulator: true });
      cleanup.add(() => primary.service.stop());
      await primary.start();
      const secondary = new TestSecondary(primary, {
        emulator: true,
        made: (domain) =>
          Object.assign(domain, {
            beginLast: () => told.push('the last'),
            checkpoint: (_: Uint8Array, isTrial: boolean) => {
              if (!isTrial) return Promise.resolve();
              told.push('tried');
              const isRefused = refuses && told.filter((word) => word === 'tried').length === refused;
              const error = new HypervisorError('BAD_CONTEXT', 'it is not taken');
              return isRefused ? Promise.reject(error) : Promise.resolve();
            },
          }),
      });
      cleanup.add(() => secondary.service.stop());
      await secondary.start();
      const more = async () => {
        const { length } = primary.checkpoints;
        await until('checkpoints', () => primary.checkpoints.length > length + 3);
      };
      await more();
      expect(await refusal(primary.service.switchover('alpha'))).to.equal('NOT_SWITCHED');
      expect(told).to.deep.equal(seen);
      await more();
      expect([primary.owns(), secondary.owns(), secondary.failovers.length]).to.deep.equal([true, false, 0]);
      refuses = false;
      expect(await primary.service.switchover('alpha')).to.include({ to: 'south' });
      expect(secondary.owns()).to.equal(true);
    });
  }

  it('is refused where nobody could go on at once', async () => {
    const two = await TwoAgents.start(cleanup, { hypervisor });
    const refused = (host: 'alpha' | 'beta', domain: string, to?: string) =>
      refusal(two.agent(host).switchover(domain, to));
    expect(await refused('alpha', 'wbe')).to.equal('UNKNOWN_DOMAIN');
    expect(await refused('beta', 'web')).to.equal('NOT_OWNER');
    expect(await refused('alpha', 'web', 'gamma')).to.equal('NOT_STANDBY');
    expect(await two.agent('beta').evacuate()).to.deep.equal([]);
    await two.end('beta');
    await two.more();
    expect(await refused('alpha', 'web')).to.equal('NOT_PAIRED');
    expect(await two.agent('alpha').evacuate()).to.deep.equal([
      { ok: false, domain: 'web', code: 'NOT_PAIRED', message: 'no standby is linked' },
    ]);
  });

  it('the owner’s agent stops meanwhile: whoever asked hears of it, and one of the two goes on', async () => {
    const two = await TwoAgents.start(cleanup, { hypervisor });
    await two.more();
    const switched = refusal(two.agent('alpha').switchover('web'));
    await two.end('alpha');
    expect(['STOPPED', 'switched', 'NOT_SWITCHED']).to.include(await switched);
    await two.begin('alpha');
    await two.paired();
    await two.more();
  });
});
