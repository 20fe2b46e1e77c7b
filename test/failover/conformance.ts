// What every witness that hosts share has to do, whatever it is.

import { expect } from 'chai';
import fc from 'fast-check';
import { settle } from '../../src/failover/settle.js';
import type { Claim, Register, RegisterWitness } from '../../src/failover/register.js';
import type { Cleanup } from '../support/cleanup.js';
import { alone, paired, refused } from './support.js';

type Hosts = readonly [RegisterWitness, RegisterWitness];

export interface Conforming {
  /** Two that ask the same registers, as two hosts have them. */
  readonly open: () => Promise<Hosts>;
  readonly cleanup: Cleanup;
  /** Of each property: what a request costs decides. */
  readonly runs: number;
  /** That may follow each other in any order. */
  readonly claims?: readonly Claim[];
}

const CLAIMS = [alone('one'), alone('two'), paired('one', 'two'), paired('two', 'one', 's-2')];

let names = 0;
const newDomain = () => `domain-${names++}`;

export function conforms({ open, cleanup, runs, claims = CLAIMS }: Conforming): void {
  let opened: Hosts | null = null;
  const hosts = (): Hosts => {
    if (opened === null) throw new Error('nothing is open yet');
    return opened;
  };

  beforeEach(async () => {
    const [one, two] = (opened = await open());
    cleanup.add(async () => {
      await one.close();
      await two.close();
    });
  });

  writes(hosts, claims);
  races(hosts, claims, runs);
  refusals(hosts, claims);
}

function writes(hosts: () => Hosts, claims: readonly Claim[]): void {
  const [first = alone('one'), second = first] = claims;

  it('a register is absent, then what was written, for both', async () => {
    const [one, two] = hosts();
    const domain = newDomain();
    expect(await one.read(domain)).to.equal(null);
    expect(await one.compareAndSet(domain, null, first, 'token-1')).to.equal('won');
    const register: Register = { ...first, generation: 1, token: 'token-1' };
    expect(await two.read(domain)).to.deep.equal(register);
    expect(await two.compareAndSet(domain, register, second, 'token-2')).to.equal('won');
    expect(await one.read(domain)).to.deep.equal({ ...second, generation: 2, token: 'token-2' });
  });

  it('domains have nothing to do with each other, also if their names begin alike', async () => {
    const [one, two] = hosts();
    const domain = newDomain();
    expect(await one.compareAndSet(`${domain}-b`, null, first, 't')).to.equal('won');
    expect(await one.read(domain)).to.equal(null);
    expect(await two.compareAndSet(domain, null, first, 't')).to.equal('won');
    expect(await one.read(`${domain}-`)).to.equal(null);
  });

  it('a write that expects something else is lost, and changes nothing', async () => {
    const [one, two] = hosts();
    const domain = newDomain();
    const stranger: Register = { ...first, generation: 1, token: 'stranger' };
    expect(await one.compareAndSet(domain, stranger, second, 't')).to.equal('lost');
    expect(await one.read(domain)).to.equal(null);
    await one.compareAndSet(domain, null, first, 't1');
    const old: Register = { ...first, generation: 1, token: 't1' };
    await one.compareAndSet(domain, old, first, 't2');
    const now: Register = { ...first, generation: 2, token: 't2' };
    for (const expected of [null, old, { ...now, token: 't3' }, { ...now, generation: 3 }]) {
      expect(await two.compareAndSet(domain, expected, second, 't4')).to.equal('lost');
    }
    expect(await two.read(domain)).to.deep.equal(now);
  });
}

function races(hosts: () => Hosts, claims: readonly Claim[], runs: number): void {
  const [first = alone('one')] = claims;

  it('of writers that expect the same exactly one wins', async () => {
    const [one, two] = hosts();
    const rounds = fc.array(fc.array(fc.nat(claims.length - 1), { minLength: 1, maxLength: 6 }), {
      maxLength: 5,
    });
    await fc.assert(
      fc.asyncProperty(rounds, async (writers) => {
        const domain = newDomain();
        let held: Register | null = null;
        for (const [round, picks] of writers.entries()) {
          const expected: Register | null = held;
          const outcomes = await Promise.all(
            picks.map((pick, index) =>
              (index % 2 ? one : two).compareAndSet(
                domain,
                expected,
                claims[pick] ?? first,
                `t-${round}-${index}`,
              ),
            ),
          );
          expect(outcomes.filter((outcome) => outcome === 'won')).to.have.length(1);
          held = await one.read(domain);
          expect(held?.token).to.equal(`t-${round}-${outcomes.indexOf('won')}`);
          expect(held?.generation).to.equal(round + 1);
        }
      }),
      { numRuns: runs },
    );
  });

  it('what is settled as won is a generation of its own', async () => {
    const [one, two] = hosts();
    const domain = newDomain();
    const won: Register[] = [];
    const writer = async (witness: RegisterWitness, name: string) => {
      let expected = await witness.read(domain);
      for (let write = 0; write < 10; write++) {
        const settled = await settle(witness, domain, { expected, claim: first, token: `${name}-${write}` });
        if (settled.won) won.push(settled.register);
        expected = settled.register;
      }
    };
    await Promise.all([writer(one, 'one'), writer(two, 'two'), writer(one, 'three')]);
    const generations = won.map(({ generation }) => generation);
    expect(new Set(generations).size).to.equal(generations.length);
    const { generation: last = NaN } = (await two.read(domain)) ?? {};
    expect(Math.max(...generations)).to.be.at.most(last);
    // One that was written, and followed at once by another's, may be told as lost.
    expect(generations.length).to.be.at.least(last / 2);
    expect(last).to.be.at.least(10);
  });
}

function refusals(hosts: () => Hosts, claims: readonly Claim[]): void {
  const [first = alone('one')] = claims;

  it('names that cannot be are refused before anybody is asked', async () => {
    const [one] = hosts();
    const long = 'a'.repeat(64);
    for (const domain of ['', '..', 'a/b', 'A', long]) {
      await refused(one.read(domain), 'BAD_CLAIM');
      await refused(one.compareAndSet(domain, null, first, 't'), 'BAD_CLAIM');
    }
    for (const claim of [alone(''), alone('a/b'), alone('a'.repeat(254)), paired('one', 'one')]) {
      await refused(one.compareAndSet('web', null, claim, 't'), 'BAD_CLAIM');
    }
    await refused(one.compareAndSet('web', null, first, 'a/b'), 'BAD_CLAIM');
    expect(await one.read('web')).to.equal(null);
  });

  it('who has given up is not answered, nor is anybody after the end', async () => {
    const [one] = hosts();
    await refused(one.read('web', AbortSignal.abort()), 'ABORTED');
    await refused(one.compareAndSet('web', null, first, 't', AbortSignal.abort()), 'ABORTED');
    await one.close();
    await refused(one.read('web'), 'CLOSED');
    await refused(one.compareAndSet('web', null, first, 't'), 'CLOSED');
  });
}
