// The witness that is an etcd of one member, and what is no etcd.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import fc from 'fast-check';
import type { Register } from '../../src/failover/register.js';
import { settle, type Settled } from '../../src/failover/settle.js';
import { createEtcdWitness } from '../../src/failover/witnesses/etcd/etcd.js';
import { Cleanup } from '../support/cleanup.js';
import { conforms } from './conformance.js';
import { base64, gateway, historyOf, needEtcd, startEtcd, type EtcdMember } from './etcd-support.js';
import { LossyProxy, type Loss } from './lossy-proxy.js';
import { alone, paired, refused } from './support.js';

const backoff = { firstMs: 1, maxMs: 10 };

describe('witness etcd', () => {
  const cleanup = new Cleanup();
  const ofOne = new Cleanup();
  let etcd: EtcdMember;

  before(async function () {
    await needEtcd(this);
    const [member] = await startEtcd(cleanup);
    if (member === undefined) throw new Error('there is no member');
    etcd = member;
  });
  afterEach(() => ofOne.run());
  after(() => cleanup.run());

  let domains = 0;
  const newDomain = () => `lossy-${domains++}`;

  function witness(endpoints: readonly string[], requestTimeoutMs = 1000) {
    const opened = createEtcdWitness({ endpoints, requestTimeoutMs });
    ofOne.add(() => opened.close());
    return opened;
  }

  conforms({
    open: () => {
      const endpoints = [etcd.endpoint];
      return Promise.resolve([createEtcdWitness({ endpoints }), createEtcdWitness({ endpoints })]);
    },
    cleanup: ofOne,
    runs: 20,
  });

  it('a value that is no register is told, and never taken for an absent one', async () => {
    const good = {
      version: 1,
      generation: 1,
      mode: 'alone',
      owner: 'one',
      standby: null,
      stream: null,
      token: 't',
    };
    const values = [
      ...['', '{', 'null', '[]', '"x"', `${JSON.stringify(good)}x`, 'x'.repeat(3000)],
      ...[{ version: 2 }, { generation: 0 }, { generation: 1.5 }, { generation: '1' }, { mode: 'both' }],
      ...[
        { owner: null },
        { owner: 'a b' },
        { standby: 'two' },
        { mode: 'paired' },
        { more: 1 },
        { token: '' },
      ],
    ].map((wrong) => (typeof wrong === 'string' ? wrong : JSON.stringify({ ...good, ...wrong })));
    const domain = newDomain();
    const direct = witness([etcd.endpoint]);
    for (const value of values) {
      await gateway(etcd.endpoint, 'kv/put', { key: base64(`/romulus/${domain}`), value: base64(value) });
      const error = await refused(direct.read(domain), 'CORRUPT');
      if (value.length < 3000) expect(error.facts).to.include({ octets: value.length });
      await refused(direct.compareAndSet(domain, null, alone('one'), 't'), 'CORRUPT');
    }
    await gateway(etcd.endpoint, 'kv/put', {
      ...{ key: base64(`/romulus/${domain}`), value: base64(JSON.stringify(good)) },
    });
    expect((await direct.read(domain))?.owner).to.equal('one');
  });

  it('what answers, and is no etcd, is told', async () => {
    const answers = ['<html>', '{}', '[]', 'null', '{"header":{}}', '{"header":{"revision":"1"},"kvs":[{}]}'];
    const more = [
      '{"header":{"revision":"1"},"kvs":[{}],"count":"1"}',
      '{"header":{"revision":"1"},"count":"1"}',
    ];
    for (const answer of [...answers, ...more, ' '.repeat(100_000)]) {
      const server = createServer((_, response) => response.end(answer)).listen(0, '127.0.0.1');
      ofOne.add(() => once(server.close(), 'close'));
      await once(server, 'listening');
      const stranger = witness([`http://127.0.0.1:${(server.address() as AddressInfo).port}`]);
      await refused(stranger.read('web'), 'CORRUPT');
    }
  });

  it('an answer of an absent key is nothing but that', async () => {
    const direct = witness([etcd.endpoint]);
    expect(await direct.read(newDomain())).to.equal(null);
    await refused(witness(['http://127.0.0.1:1']).read('web'), 'UNREACHABLE');
    for (const endpoints of [[], ['x'], ['ftp://x'], ['http://u:p@x'], ['http://x/y']]) {
      expect(() => createEtcdWitness({ endpoints })).to.throw('endpoint');
    }
  });

  it('a write whose reply is lost is not known, and not sent again by itself', async () => {
    for (const loss of ['reply', 'silence'] as const) {
      const domain = newDomain();
      const proxy = await LossyProxy.open(ofOne, etcd.endpoint);
      const lossy = witness([proxy.endpoint, etcd.endpoint], 300);
      proxy.losses = ['none', loss];
      await refused(lossy.compareAndSet(domain, null, alone('one'), 't1'), 'UNREACHABLE', 'TIMEOUT');
      expect(await historyOf(etcd.endpoint, domain)).to.deep.equal(['t1']);
      proxy.losses = ['request', 'request'];
      expect(await lossy.compareAndSet(domain, null, alone('one'), 't1')).to.equal('lost');
      const settled = await settle(lossy, domain, { expected: null, claim: alone('one'), token: 't1' });
      expect(settled.won).to.equal(true);
    }
  });

  it('whatever is lost: what is settled is what etcd says happened', async () => {
    const losses = fc.array(fc.constantFrom<Loss>('none', 'none', 'request', 'reply', 'silence'), {
      maxLength: 12,
    });
    const proxies = [
      await LossyProxy.open(ofOne, etcd.endpoint),
      await LossyProxy.open(ofOne, etcd.endpoint),
    ];
    const hosts = proxies.map((proxy) => witness([proxy.endpoint], 100));
    await fc.assert(
      fc.asyncProperty(losses, losses, async (...planned) => {
        const domain = newDomain();
        proxies.forEach((proxy, index) => (proxy.losses = [...(planned[index] ?? [])]));
        const told: { token: string; settled: Settled }[] = [];
        await Promise.all(
          hosts.map(async (host, index) => {
            let expected: Register | null = null;
            for (let write = 0; write < 3; write++) {
              const token = `host-${index}-${write}`;
              const claim = write % 2 ? alone('one') : paired('one', 'two');
              const settled = await settle(host, domain, { expected, claim, token }, { backoff });
              told.push({ token, settled });
              expected = settled.register;
            }
          }),
        );
        const history = await historyOf(etcd.endpoint, domain);
        for (const { token, settled } of told) checkTold(history, token, settled);
      }),
      { numRuns: 25 },
    );
  });

  it('an endpoint where nobody is costs nothing, one that stands still a part of the limit', async () => {
    const [still] = await startEtcd(ofOne);
    if (still === undefined) throw new Error('there is no member');
    await still.stop();
    ofOne.add(() => still.goOn());
    const domain = newDomain();
    const several = witness(['http://127.0.0.1:1', still.endpoint, etcd.endpoint], 5000);
    const startMs = performance.now();
    expect(await several.compareAndSet(domain, null, alone('one'), 't')).to.equal('won');
    expect(performance.now() - startMs).to.be.above(1000);
    const againMs = performance.now();
    expect((await several.read(domain))?.token).to.equal('t');
    expect(performance.now() - againMs).to.be.below(1000);
    await refused(witness([still.endpoint], 200).read(domain), 'TIMEOUT');
  });
});

/** `won` is so; `lost` is so, or others have written since. */
function checkTold(history: readonly string[], token: string, { won, register }: Settled): void {
  const generation = history.indexOf(token) + 1;
  if (won) expect(register.generation).to.equal(generation);
  else if (generation > 0) expect(register.generation).to.be.above(generation);
  expect(history[register.generation - 1]).to.equal(register.token);
}
