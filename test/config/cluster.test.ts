// The one file of all hosts: what comes out of it for each of them, and for each of the two roles.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { primaryOf, secondaryOf, type AgentConfig, type AgentDomainConfig } from '../../src/config/agent.js';
import { hostCalled, loadCluster, parseCluster } from '../../src/config/cluster.js';
import { ConfigError } from '../../src/config/error.js';
import { errorOf, problems } from './refused.js';

const hypervisor = { kind: 'embedded' };
const tls = { cert: '{host}.crt', key: '{host}.key', ca: 'ca.crt' };
const shared = { kind: 'qemu', sharedDisks: ['d'], fence: 'external' };
const hosts = {
  alpha: { address: '127.0.0.1', port: 7300 },
  beta: { address: '::1' },
  gamma: { address: 'localhost', port: 7301, listen: '127.0.0.1' },
};
const domain = { name: 'web', hosts: ['alpha', 'beta'], hypervisor };
const cluster = (changes: object, web: object = {}) => ({
  witness: { kind: 'none' },
  hosts,
  domains: [{ ...domain, ...web }],
  ...changes,
});

/** The first domain as one host sees it. */
function web(agent: AgentConfig): AgentDomainConfig {
  const [first] = agent.domains;
  if (first === undefined) throw new Error('no domain of this host');
  return first;
}

const onHost = (host: string, section: object) => web(parseCluster(cluster({}, section), host));

describe('config of a cluster: what comes out', () => {
  it('is what is told of this host, with defaults', () => {
    const agent = parseCluster(cluster({}), 'beta');
    expect(agent.host).to.equal('beta');
    expect([...agent.hosts]).to.deep.equal([
      ['alpha', { address: '127.0.0.1', port: 7300, name: '127.0.0.1' }],
      ['beta', { address: '::1', port: 7300, name: '::1' }],
      ['gamma', { address: 'localhost', port: 7301, name: 'localhost' }],
    ]);
    expect(agent.http).to.deep.equal({ host: '127.0.0.1', port: 9300 });
    expect(agent.witness).to.deep.equal({ kind: 'none' });
    expect(agent.listen).to.include({ host: '::1', port: 7300, plaintext: false });
    expect(parseCluster(cluster({}), 'gamma').listen).to.include({ host: '127.0.0.1', port: 7301 });
  });

  it('has the domains of this host only, and of each what differs here', () => {
    const qemu = { kind: 'qemu', memory: '64MiB', network: [{ id: 'lan', mac: '52:54:00:00:00:01' }] };
    const given = cluster({
      domains: [
        domain,
        {
          name: 'db',
          hosts: {
            gamma: { hypervisor: { network: [{ id: 'lan', tap: 'tap0' }] } },
            alpha: {
              hypervisor: { network: [{ id: 'lan', tap: 'tap7' }] },
              output: { console: { file: 'c' } },
            },
          },
          hypervisor: qemu,
        },
      ],
    });
    const names = (host: string) => parseCluster(given, host).domains.map(({ name }) => name);
    expect(names('beta')).to.deep.equal(['web']);
    expect(names('gamma')).to.deep.equal(['db']);
    const [, db] = parseCluster(given, 'alpha', { directory: '/etc/romulus' }).domains;
    expect(db?.hosts).to.deep.equal(['gamma', 'alpha']);
    expect(db?.output.console).to.deep.equal({ kind: 'file', file: '/etc/romulus/c' });
    expect(
      db?.hypervisor.kind === 'qemu' && db.hypervisor.mode === 'managed' && db.hypervisor.network,
    ).to.deep.equal([
      { id: 'lan', mac: '52:54:00:00:00:01', model: undefined, backend: { kind: 'tap', interface: 'tap7' } },
    ]);
  });

  it('has an HTTP side of its own where that is said beside the host', () => {
    const given = (http: unknown, own: unknown) =>
      parseCluster(cluster({ http, hosts: { ...hosts, alpha: { ...hosts.alpha, http: own } } }), 'alpha')
        .http;
    expect(given(undefined, { port: 9301 })).to.deep.equal({ host: '127.0.0.1', port: 9301 });
    expect(given({ host: '0.0.0.0', port: 1 }, { port: 9301 })).to.deep.equal({
      host: '0.0.0.0',
      port: 9301,
    });
    expect(given({ port: 1 }, false)).to.equal(false);
    expect(given(false, { port: 2 })).to.deep.equal({ host: '127.0.0.1', port: 2 });
    expect(given(false, undefined)).to.equal(false);
  });

  it('has the name of the host in its paths', () => {
    const at = (host: string) =>
      parseCluster(
        cluster(
          {
            tls,
            witness: { kind: 'fence', command: ['f'] },
            hosts: { alpha: hosts.alpha, beta: hosts.beta },
          },
          { output: { tap: '{host}.tap' } },
        ),
        host,
        { directory: '/etc/romulus' },
      );
    const state = process.env['XDG_STATE_HOME'] ?? '';
    expect(at('beta').listen.tls).to.deep.equal({
      cert: '/etc/romulus/beta.crt',
      key: '/etc/romulus/beta.key',
      ca: '/etc/romulus/ca.crt',
    });
    expect(at('alpha').dial.tls?.cert).to.equal('/etc/romulus/alpha.crt');
    expect(web(at('alpha')).output.tap).to.equal('/etc/romulus/alpha.tap');
    expect(at('beta').witness).to.deep.equal({
      kind: 'fence',
      command: ['f'],
      timeoutMs: 60_000,
      attempts: 3,
      retryDelayMs: 1000,
      directory: path.join(state, 'romulus', 'register', 'beta'),
    });
  });

  it('knows who could stand by, and who waits for a standby', () => {
    const attached = { alpha: { hypervisor: { qmp: 'q' } }, beta: null };
    const sections = { hosts: attached, hypervisor: { kind: 'qemu' } };
    expect(onHost('alpha', sections).canStandBy).to.equal(false);
    expect(onHost('beta', sections).canStandBy).to.equal(true);
    expect(onHost('alpha', {})).to.include({ canStandBy: true, start: 'immediately', onCrash: 'restart' });
    expect(onHost('alpha', { hypervisor: shared }).start).to.equal('with-standby');
    expect(onHost('alpha', { hypervisor: shared, hosts: ['alpha'] }).start).to.equal('immediately');
    expect(onHost('alpha', { hypervisor: shared, start: 'immediately' }).start).to.equal('immediately');
    expect(onHost('alpha', { hypervisor: { ...shared, qmp: 'q' }, hosts: ['alpha'] }).start).to.equal(
      'immediately',
    );
  });
});

describe('config of a cluster: which host this is', () => {
  const called = os.hostname().toLowerCase();
  const named = (name: string) =>
    cluster({ hosts: { other: hosts.beta, [name]: hosts.alpha } }, { hosts: [name] });

  it('is the one that is named, else the one that is called as the machine is, whole or to the first dot', () => {
    expect(parseCluster(named('x'), 'other').host).to.equal('other');
    expect(parseCluster(named(called)).host).to.equal(called);
    expect(hostCalled('Alpha.Example.org', ['beta', 'alpha'])).to.equal('alpha');
    expect(hostCalled('alpha.example.org', ['alpha', 'alpha.example.org'])).to.equal('alpha.example.org');
    expect(hostCalled('alphabet', ['alpha', ''])).to.equal(null);
    expect(parseCluster(named('constructor'), 'constructor').host).to.equal('constructor');
  });

  it('is asked for if it is none of them', () => {
    const unnamed = errorOf(() => parseCluster(cluster({})));
    expect(unnamed.code).to.equal('UNKNOWN_HOST');
    expect(unnamed.message).to.include(
      `expected one of alpha, beta, gamma (--host says which; this machine is called`,
    );
    const misspelt = errorOf(() => parseCluster(cluster({}), 'alphaa', { file: 'cluster.yaml' }));
    expect(misspelt.code).to.equal('UNKNOWN_HOST');
    expect(misspelt.message.split('\n')).to.deep.equal([
      'cluster.yaml is not usable:',
      "  this host: 'alphaa' given, expected alpha (did you mean that? there is no such host)",
    ]);
    expect(errorOf(() => parseCluster(cluster({}), 'toString')).code).to.equal('UNKNOWN_HOST');
  });

  it('is not asked before the file is right: what is wrong there is told first', () => {
    expect(problems(() => parseCluster(cluster({ plaintext: 1 }), 'nobody'))).to.deep.equal(['plaintext: 1']);
  });

  it('takes relative paths from the directory of the file', async () => {
    const directory = await mkdtemp(path.join(os.tmpdir(), 'romulus-cluster-'));
    try {
      const file = path.join(directory, 'cluster.yaml');
      await writeFile(file, JSON.stringify(cluster({ token: 'secret' })));
      expect((await loadCluster(file, 'alpha')).listen.token).to.equal(path.join(directory, 'secret'));
      await writeFile(file, 'hosts: [');
      const wrong = await loadCluster(file, 'alpha').catch((thrown: unknown) => thrown);
      expect(wrong).to.be.instanceOf(ConfigError).with.property('code', 'BAD_YAML');
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

describe('config of a cluster: the two roles', () => {
  const secured = { tls, hosts: { ...hosts, gamma: { ...hosts.gamma, name: 'gamma.example.org' } } };
  const everywhere = { hosts: ['gamma', 'beta', 'alpha'], buffer: '1MiB', start: 'with-standby' };

  it('have what each of them needs of the domain, and the way to the owner', () => {
    const agent = parseCluster(cluster({ token: '/t' }, everywhere), 'alpha');
    const domain = web(agent);
    const { name, hypervisor, output } = domain;
    const { start, checkpoint, precopy, disks, heartbeat } = domain;
    expect(start).to.equal('with-standby');
    expect(primaryOf(domain, agent)).to.deep.equal({
      ...{ name, hypervisor, output, start, checkpoint, precopy, disks, heartbeat },
      secondaryNames: undefined,
    });
    const { bufferBytes, failover } = domain;
    expect(bufferBytes).to.equal(2 ** 20);
    for (const [owner, primary] of [
      ['beta', 'ws://[::1]:7300'],
      ['gamma', 'ws://localhost:7301'],
    ] as const) {
      expect(secondaryOf(domain, agent, owner)).to.deep.equal({
        ...{ name, hypervisor, output, bufferBytes, failover },
        ...{ primary, primaryName: undefined, plaintext: false, tls: undefined, token: '/t' },
      });
    }
  });

  it('under TLS hold each other to the names in the certificates of the domain’s other hosts', () => {
    const agent = parseCluster(cluster(secured, everywhere), 'alpha', { directory: '/d' });
    expect(primaryOf(web(agent), agent).secondaryNames).to.deep.equal(['gamma.example.org', '::1']);
    const { primary, primaryName, tls: shown } = secondaryOf(web(agent), agent, 'gamma');
    expect(primary).to.equal('wss://localhost:7301');
    expect(primaryName).to.equal('gamma.example.org');
    expect(shown?.key).to.equal('/d/alpha.key');
    const single = parseCluster(cluster(secured, { hosts: ['alpha'] }), 'alpha');
    expect(primaryOf(web(single), single).secondaryNames).to.deep.equal([]);
  });

  it('do not dial who cannot own the domain: this host itself, one of another domain, one of another file', () => {
    const agent = parseCluster(cluster({}), 'alpha');
    for (const owner of ['alpha', 'gamma', 'delta', 'constructor']) {
      const error = errorOf(() => secondaryOf(web(agent), agent, owner));
      expect(error.code).to.equal('UNKNOWN_HOST');
      expect(error.message).to.include(`owner of web: '${owner}' given, expected one of beta`);
    }
  });
});
