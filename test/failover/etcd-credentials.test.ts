// The witness that is an etcd which wants to know who asks: by certificate, by user and password.

import { expect } from 'chai';
import { createEtcdWitness } from '../../src/failover/witnesses/etcd/etcd.js';
import type { EtcdAccess } from '../../src/failover/witnesses/etcd/member.js';
import { Authority, read } from '../support/authority.js';
import { Cleanup } from '../support/cleanup.js';
import { base64, gateway, needEtcd, startEtcd, type EtcdMember } from './etcd-support.js';
import { alone, refused } from './support.js';

/** A server that does not take our certificate says so, and cuts; the cut may be all that arrives. */
const NOT_ADMITTED = ['DENIED', 'UNREACHABLE'] as const;

describe('witness etcd that asks who is there', () => {
  const cleanup = new Cleanup();
  const ofOne = new Cleanup();

  before(async function () {
    await needEtcd(this);
  });
  afterEach(() => ofOne.run());
  after(() => cleanup.run());

  function witness({ endpoint }: EtcdMember, access: EtcdAccess) {
    const opened = createEtcdWitness({ endpoints: [endpoint], ...access });
    ofOne.add(() => opened.close());
    return opened;
  }

  it('by certificate: each side knows the other, or nothing is said', async () => {
    const directory = await cleanup.directory();
    const authority = new Authority(directory);
    const server = authority.issue();
    const member = await started(
      'https',
      ...['--cert-file', server.cert, '--key-file', server.key, '--client-cert-auth'],
      ...['--trusted-ca-file', server.ca],
    );
    const good = read(authority.issue());
    const host = witness(member, { tls: () => good });
    expect(await host.read('web')).to.equal(null);
    expect(await host.compareAndSet('web', null, alone('one'), 't')).to.equal('won');
    const stranger = read(new Authority(directory, 'stranger').issue());
    await refused(witness(member, { tls: () => ({ ca: good.ca }) }).read('web'), ...NOT_ADMITTED);
    const strange = { ...stranger, ca: good.ca };
    await refused(witness(member, { tls: () => strange }).read('web'), ...NOT_ADMITTED);
    await refused(witness(member, { tls: () => ({ ...good, ca: stranger.ca }) }).read('web'), 'DENIED');
    await refused(witness(member, { tls: () => ({ ...good, key: stranger.key }) }).read('web'), 'DENIED');
    await refused(witness(member, {}).read('web'), 'DENIED');
    const unreadable = () => {
      throw new Error('no such file');
    };
    await refused(witness(member, { tls: unreadable }).read('web'), 'DENIED');
  });

  it('a certificate that is renewed is shown the next time', async () => {
    const directory = await cleanup.directory();
    const authority = new Authority(directory);
    const server = authority.issue();
    const member = await started(
      'https',
      ...['--cert-file', server.cert, '--key-file', server.key, '--client-cert-auth'],
      ...['--trusted-ca-file', server.ca],
    );
    const day = 24 * 3600 * 1000;
    let current = read(
      authority.issue({ from: new Date(Date.now() - 2 * day), until: new Date(Date.now() - day) }),
    );
    const host = witness(member, { tls: () => current });
    await refused(host.read('web'), ...NOT_ADMITTED);
    current = read(authority.issue());
    expect(await host.read('web')).to.equal(null);
  });

  it('by user and password; a member that was restarted has forgotten who we are', async function () {
    this.timeout(120_000);
    const member = await started('http');
    await protect(member.endpoint);
    const user = { name: 'romulus', password: 'secret' };
    const host = witness(member, { user });
    expect(await host.compareAndSet('web', null, alone('one'), 't')).to.equal('won');
    await refused(witness(member, {}).read('web'), 'DENIED');
    await refused(witness(member, { user: { ...user, password: 'wrong' } }).read('web'), 'DENIED');
    await refused(witness(member, { user: { ...user, name: 'nobody' } }).read('web'), 'DENIED');
    const elsewhere = createEtcdWitness({ endpoints: [member.endpoint], prefix: '/other/', user });
    ofOne.add(() => elsewhere.close());
    await refused(elsewhere.read('web'), 'DENIED');
    await member.kill();
    expect(await member.start()).to.equal(true);
    expect((await host.read('web'))?.token).to.equal('t');
  });

  it('a token that is old, because users have changed, is had again', async function () {
    this.timeout(120_000);
    const member = await started('http');
    const root = await protect(member.endpoint);
    const host = witness(member, { user: { name: 'romulus', password: 'secret' } });
    expect(await host.read('web')).to.equal(null);
    await gateway(member.endpoint, 'auth/user/add', { name: 'more', password: 'more' }, root);
    expect(await host.compareAndSet('web', null, alone('one'), 't')).to.equal('won');
  });

  it('a user where there are none is told', async () => {
    const member = await started('http');
    const user = { name: 'romulus', password: 'secret' };
    await refused(witness(member, { user }).read('web'), 'DENIED');
  });

  async function started(scheme: 'http' | 'https', ...args: string[]): Promise<EtcdMember> {
    const [member] = await startEtcd(cleanup, { scheme, args });
    if (member === undefined) throw new Error('there is no member');
    return member;
  }
});

/** Users root and romulus; the second may read and write what begins with /romulus/. Resolves to a token of root's. */
async function protect(endpoint: string): Promise<string> {
  for (const [name, password] of [
    ['root', 'root'],
    ['romulus', 'secret'],
  ]) {
    await gateway(endpoint, 'auth/user/add', { name, password });
    await gateway(endpoint, 'auth/role/add', { name });
    await gateway(endpoint, 'auth/user/grant', { user: name, role: name });
  }
  // The end of a range is its prefix with the last octet one more.
  const perm = { permType: 'READWRITE', key: base64('/romulus/'), range_end: base64('/romulus0') };
  await gateway(endpoint, 'auth/role/grant', { name: 'romulus', perm });
  await gateway(endpoint, 'auth/enable', {});
  const { token } = await gateway<{ token: string }>(endpoint, 'auth/authenticate', {
    ...{ name: 'root', password: 'root' },
  });
  return token;
}
