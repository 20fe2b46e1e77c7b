// Settling a write: what is told is so, whatever becomes of requests and replies.

import { expect } from 'chai';
import fc from 'fast-check';
import { codeOf } from '../../src/errors.js';
import type { Register, RegisterWitness } from '../../src/failover/register.js';
import { settle, type SettleFailure } from '../../src/failover/settle.js';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { createNoneWitness } from '../../src/failover/witnesses/none.js';
import { Cleanup } from '../support/cleanup.js';
import { conforms } from './conformance.js';
import { LossyWitness, type Fate } from './lossy-witness.js';
import { alone, paired, refused } from './support.js';

const backoff = { firstMs: 0, maxMs: 0 };
const claim = alone('one');
const first: Register = { ...claim, generation: 1, token: 't1' };

describe('settle', () => {
  const settled = (fates: readonly Fate[], memory = createMemoryWitness(), token = 't1') =>
    settle(new LossyWitness(memory, fates), 'web', { expected: null, claim, token }, { backoff });

  it('a write that is done is won, also if nobody said so', async () => {
    for (const fates of [
      ...([['done'], ['lost', 'done'], ['unheard'], ['unheard', 'lost', 'lost']] as const),
      ...([
        ['late', 'done'],
        ['unheard', 'done', 'lost', 'lost'],
      ] as const),
    ]) {
      expect(await settled(fates)).to.deep.equal({ won: true, register: first });
    }
  });

  it('one that somebody else came before is lost, and who that is is told', async () => {
    for (const fates of [['done'], ['lost', 'unheard', 'done', 'lost', 'done']] as const) {
      const memory = createMemoryWitness();
      await memory.compareAndSet('web', null, alone('two'), 'other');
      const register = await memory.read('web');
      expect(await settled(fates, memory)).to.deep.equal({ won: false, register });
    }
  });

  it('an attempt that arrives when all is over changes nothing', async () => {
    const memory = createMemoryWitness();
    const lossy = new LossyWitness(memory, ['late', 'lost', 'done']);
    const write = { expected: null, claim, token: 't1' };
    expect((await settle(lossy, 'web', write, { backoff })).won).to.equal(true);
    await memory.compareAndSet('web', first, paired('one', 'two'), 't2');
    await lossy.arrive();
    expect((await memory.read('web'))?.token).to.equal('t2');
  });

  it('the same write can be settled again', async () => {
    const memory = createMemoryWitness();
    expect((await settled(['done'], memory)).won).to.equal(true);
    expect((await settled(['done'], memory)).won).to.equal(true);
    await memory.compareAndSet('web', first, claim, 't2');
    expect(await settled(['done'], memory)).to.deep.equal({ won: false, register: await memory.read('web') });
  });

  it('a witness that contradicts itself is asked again', async () => {
    const memory = createMemoryWitness();
    await memory.compareAndSet('web', null, alone('two'), 'other');
    let reads = 0;
    const stale: RegisterWitness = {
      ...memory,
      read: (domain) => (reads++ < 2 ? Promise.resolve(null) : memory.read(domain)),
    };
    const told: SettleFailure[] = [];
    const options = { backoff, onFailure: (failure: SettleFailure) => told.push(failure) };
    const outcome = await settle(stale, 'web', { expected: null, claim, token: 't1' }, options);
    expect(outcome).to.deep.equal({ won: false, register: await memory.read('web') });
    expect(told).to.have.length(2);
  });

  it('nothing follows from a witness that has lost what it knew', async () => {
    const memory = createMemoryWitness();
    const later: Register = { ...claim, generation: 3, token: 't3' };
    const stop = new AbortController();
    const told: SettleFailure[] = [];
    const onFailure = (failure: SettleFailure) => {
      told.push(failure);
      if (told.length === 3) stop.abort();
    };
    const write = { expected: later, claim, token: 't4' };
    await refused(settle(memory, 'web', write, { backoff, signal: stop.signal, onFailure }), 'ABORTED');
    await memory.compareAndSet('web', null, claim, 't1');
    const again = new AbortController();
    const options = { backoff, signal: again.signal, onFailure: () => again.abort() };
    await refused(settle(memory, 'web', write, options), 'ABORTED');
    expect(told.map(({ error }) => codeOf(error))).to.deep.equal(['CORRUPT', 'CORRUPT', 'CORRUPT']);
  });

  it('each failure is told, with a wait that grows to its limit', async () => {
    const told: SettleFailure[] = [];
    await settle(
      new LossyWitness(createMemoryWitness(), ['lost', 'lost', 'lost', 'lost', 'unheard', 'done', 'lost']),
      'web',
      { expected: null, claim, token: 't1' },
      { backoff: { firstMs: 2, maxMs: 8 }, onFailure: (failure) => told.push(failure) },
    );
    expect(told.map(({ step, failures }) => `${step} ${failures}`)).to.deep.equal([
      ...['write 1', 'write 2', 'write 3', 'write 4', 'write 5', 'read 6'],
    ]);
    for (const [index, { waitMs }] of told.entries()) {
      const fullMs = Math.min(8, 2 * 2 ** index);
      expect(waitMs).to.be.within(fullMs / 2, fullMs);
    }
  });

  it('given up it rejects, and what was asked for may still come true', async () => {
    const memory = createMemoryWitness();
    const lossy = new LossyWitness(memory, ['late', ...Array.from({ length: 1000 }, () => 'lost' as const)]);
    const stop = new AbortController();
    const onFailure = ({ failures }: SettleFailure) => failures === 3 && stop.abort();
    const options = { backoff: { firstMs: 1, maxMs: 60_000 }, signal: stop.signal, onFailure };
    await refused(settle(lossy, 'web', { expected: null, claim, token: 't1' }, options), 'ABORTED');
    expect(await memory.read('web')).to.equal(null);
    await lossy.arrive();
    expect(await memory.read('web')).to.deep.equal(first);
  });

  it('what cannot be is not tried again', async () => {
    const memory = createMemoryWitness();
    const write = { expected: null, claim: alone('a b'), token: 't' };
    await refused(settle(memory, 'web', write), 'BAD_CLAIM');
    await memory.close();
    await refused(settle(memory, 'web', { ...write, claim }), 'CLOSED');
  });

  it('whatever is lost or late, of two that write the same generation at most one has won', async () => {
    const fates = fc.array(fc.constantFrom<Fate>('done', 'lost', 'unheard', 'late'), { maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(fates, fates, async (one, two) => {
        const memory = createMemoryWitness();
        const hosts = [one, two].map((each) => new LossyWitness(memory, each));
        const outcomes = await Promise.all(
          hosts.map((host, index) =>
            settle(host, 'web', { expected: null, claim, token: `t${index}` }, { backoff }),
          ),
        );
        for (const host of hosts) await host.arrive();
        const winner = outcomes.findIndex(({ won }) => won);
        expect((await memory.read('web'))?.token).to.equal(`t${winner}`);
        expect(outcomes.filter(({ won }) => won)).to.have.length(1);
      }),
      { numRuns: 300 },
    );
  });
});

describe('witness in memory', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  conforms({
    open: () => {
      const memory = createMemoryWitness();
      return Promise.resolve([memory, memory]);
    },
    cleanup,
    runs: 100,
  });
});

describe('witness none', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  conforms({
    open: () => {
      const none = createNoneWitness();
      return Promise.resolve([none, none]);
    },
    cleanup,
    runs: 100,
    claims: [alone('one'), alone('two')],
  });

  it('grants a boot, a pair and a takeover, but not that an owner which lost its standby goes on alone', async () => {
    const none = createNoneWitness();
    expect(none.name).to.equal('none');
    expect(await none.compareAndSet('web', null, alone('one'), 't1')).to.equal('won');
    expect(await none.compareAndSet('web', await none.read('web'), paired('one', 'two'), 't2')).to.equal(
      'won',
    );
    const held = await none.read('web');
    await refused(none.compareAndSet('web', held, alone('one'), 't3'), 'NO_WITNESS');
    expect(await none.read('web')).to.deep.equal(held);
    expect(await none.compareAndSet('web', first, alone('one'), 't3')).to.equal('lost');
    expect(await none.compareAndSet('web', held, alone('two'), 't4')).to.equal('won');
  });
});
