// The witness that is an etcd of three members, which are killed and stopped.

import { expect } from 'chai';
import type { Register } from '../../src/failover/register.js';
import { settle } from '../../src/failover/settle.js';
import { createEtcdWitness } from '../../src/failover/witnesses/etcd/etcd.js';
import { Cleanup } from '../support/cleanup.js';
import { gateway, historyOf, needEtcd, startEtcd, type EtcdMember } from './etcd-support.js';
import { alone, refused } from './support.js';

const backoff = { firstMs: 10, maxMs: 200 };

describe('witness etcd of three members', () => {
  const cleanup = new Cleanup();
  let members: EtcdMember[];

  before(async function () {
    await needEtcd(this);
  });
  beforeEach(async function () {
    this.timeout(120_000);
    members = await startEtcd(cleanup, { members: 3 });
  });
  afterEach(() => cleanup.run());

  function witness(requestTimeoutMs = 1000) {
    const opened = createEtcdWitness({
      endpoints: members.map(({ endpoint }) => endpoint),
      requestTimeoutMs,
    });
    cleanup.add(() => opened.close());
    return opened;
  }

  async function leader(): Promise<EtcdMember> {
    const states = await Promise.all(
      members.map(({ endpoint }) =>
        gateway<{ leader: string; header: { member_id: string } }>(endpoint, 'maintenance/status', {}),
      ),
    );
    const at = states.findIndex((state) => state.leader === state.header.member_id);
    const found = members[at];
    if (found === undefined) throw new Error('nobody leads');
    return found;
  }

  /** Writes until `enough`, and checks that its account of it and etcd's are the same. */
  async function write(domain: string, enough: (written: number) => boolean): Promise<void> {
    const host = witness();
    const tokens: string[] = [];
    let expected: Register | null = null;
    while (!enough(tokens.length)) {
      const token = `t-${tokens.length}`;
      const settled = await settle(host, domain, { expected, claim: alone('one'), token }, { backoff });
      // Nobody else writes: whatever was lost on the way, it is ours.
      expect(settled.won).to.equal(true);
      tokens.push(token);
      expected = settled.register;
    }
    const endpoint = members.at(-1)?.endpoint ?? '';
    expect(await historyOf(endpoint, domain)).to.deep.equal(tokens);
  }

  it('a leader that is killed while registers are written costs time, nothing else', async function () {
    this.timeout(120_000);
    const first = await leader();
    // The last one is asked for the history.
    if (first === members.at(-1)) members.unshift(first, ...members.splice(0, 2));
    members = [...new Set(members)];
    const killed: Promise<void>[] = [];
    await write('web', (written) => {
      if (written === 20) killed.push(first.kill());
      return written === 40;
    });
    expect(killed).to.have.length(1);
    await Promise.all(killed);
  });

  it('a leader that stands still, and wakes up, neither', async function () {
    this.timeout(120_000);
    const first = await leader();
    let stopped = false;
    let after = 0;
    const stopping = async () => {
      await first.stop();
      stopped = true;
    };
    const begun: Promise<void>[] = [];
    await write('web', (written) => {
      if (written === 10) begun.push(stopping());
      if (stopped) after++;
      if (after === 10) first.goOn();
      return after > 20;
    });
    await Promise.all(begun);
  });

  it('without a majority nobody answers; with one again what was asked is settled', async function () {
    this.timeout(120_000);
    const [one, two] = members;
    if (one === undefined || two === undefined) throw new Error('there are too few');
    const host = witness(500);
    expect(await host.compareAndSet('web', null, alone('one'), 't1')).to.equal('won');
    await Promise.all([one.stop(), two.stop()]);
    cleanup.add(() => [one, two].forEach((member) => member.goOn()));
    await refused(host.read('web'), 'TIMEOUT', 'UNREACHABLE');
    const expected: Register = { ...alone('one'), generation: 1, token: 't1' };
    const failures: string[] = [];
    const settled = await settle(
      host,
      'web',
      { expected, claim: alone('two'), token: 't2' },
      {
        backoff,
        onFailure: ({ error }) => {
          failures.push(error.name);
          if (failures.length === 3) one.goOn();
        },
      },
    );
    expect(failures.length).to.be.at.least(3);
    expect(settled.won).to.equal(true);
    expect(
      (await settle(host, 'web', { expected, claim: alone('x'), token: 't3' }, { backoff })).won,
    ).to.equal(false);
  });
});
