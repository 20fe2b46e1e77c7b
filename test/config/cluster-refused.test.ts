// What the file of a cluster is refused for: each problem with its place in the file, in the section of a host if it is
// that host's own.

import { expect } from 'chai';
import fc from 'fast-check';
import { parseCluster } from '../../src/config/cluster.js';
import { ConfigError } from '../../src/config/error.js';
import { errorOf, problems } from './refused.js';

const hypervisor = { kind: 'embedded' };
const qemu = { kind: 'qemu' };
const tls = { cert: 'c', key: 'k', ca: 'a' };
const loopback = (port: number) => ({ address: '127.0.0.1', port });
const hosts = { alpha: loopback(1), beta: loopback(2), gamma: loopback(3) };
const domain = { name: 'web', hosts: ['alpha', 'beta'], hypervisor };
const base = { witness: { kind: 'none' }, hosts, domains: [domain] };

type Case = readonly (readonly [string, object, readonly string[]])[];

function refuses(cases: Case, put: (changes: object) => unknown): void {
  for (const [what, changes, expected] of cases) {
    it(what, () => expect(problems(() => parseCluster(put(changes), 'alpha'))).to.deep.equal(expected));
  }
}

describe('config of a cluster: hosts that are refused', () => {
  const alpha = (changes: object) => ({ hosts: { ...hosts, alpha: { ...hosts.alpha, ...changes } } });
  const cases: Case = [
    ['no hosts', { hosts: undefined }, ['hosts: missing']],
    ['a section without any', { hosts: {} }, ['hosts: {}']],
    ['no address', alpha({ address: undefined }), ['hosts.alpha.address: missing']],
    ['an address with a port', alpha({ address: 'a:1' }), ["hosts.alpha.address: 'a:1'"]],
    ['an address of no family', alpha({ address: '1.2.3.4.5' }), ["hosts.alpha.address: '1.2.3.4.5'"]],
    ['an address with an interface', alpha({ address: 'fe80::1%lo' }), ["hosts.alpha.address: 'fe80::1%lo'"]],
    ['any port', alpha({ port: 0 }), ['hosts.alpha.port: 0']],
    ['the port of another', alpha({ port: 2 }), ['hosts.beta.port: 2']],
    ['an unknown key', alpha({ adress: 'x' }), ["hosts.alpha.adress: 'x'"]],
    ['an HTTP side that is none', alpha({ http: { port: 'x' } }), ["hosts.alpha.http.port: 'x'"]],
    ['an HTTP side that is wrong for all, once', { http: { prot: 1 } }, ['http.prot: 1']],
    ['a name in a certificate that there is not', alpha({ name: 'a' }), ["hosts.alpha.name: 'a'"]],
    ['plaintext that is not asked for', alpha({ address: '10.0.0.1' }), ["hosts.alpha.address: '10.0.0.1'"]],
    [
      'plaintext listening that is not asked for',
      alpha({ listen: '0.0.0.0' }),
      ["hosts.alpha.listen: '0.0.0.0'"],
    ],
    ['plaintext beside TLS', { tls, plaintext: true }, ['plaintext: true']],
    ['half of TLS', { tls: { cert: 'c' } }, ['tls.key: missing', 'tls.ca: missing']],
  ];
  refuses(cases, (changes) => ({ ...base, ...changes }));

  for (const name of ['Alpha', '12', 'a..b', '-a', 'a/b', 'a'.repeat(254), 'a\nb']) {
    it(`a host that is called ${JSON.stringify(name.slice(0, 9))}`, () => {
      const error = errorOf(() =>
        parseCluster({ ...base, hosts: { ...hosts, [name]: loopback(4) } }, 'alpha'),
      );
      expect(error.problems).to.have.length(1);
      expect(error.problems[0]?.path).to.include(name === 'a\nb' ? 'a\\nb' : name);
      expect(error.message.split('\n')).to.have.length(2);
    });
  }

  it('a name that is in no certificate, or stands for many', () => {
    const named = (name: string) => () => parseCluster({ ...base, ...alpha({ name }), tls }, 'alpha');
    for (const name of ['*.example.org', '.example.org', 'a b', '-a', 'a..b']) {
      expect(problems(named(name)), name).to.deep.equal([`hosts.alpha.name: '${name}'`]);
    }
    for (const name of ['beta', 'beta.example.org', '192.168.77.12', 'fe80::1']) {
      expect(named(name)().hosts.get('alpha')?.name).to.equal(name);
    }
  });

  it('takes far addresses under TLS, and in plaintext where that is asked for', () => {
    const far = { alpha: { address: '10.0.0.1', listen: '0.0.0.0' }, beta: { address: 'beta.example.org' } };
    expect(parseCluster({ ...base, hosts: far, tls }, 'alpha').listen.host).to.equal('0.0.0.0');
    expect(parseCluster({ ...base, hosts: far, plaintext: true }, 'alpha').dial.plaintext).to.equal(true);
  });
});

describe('config of a cluster: witnesses', () => {
  const etcd = { kind: 'etcd', endpoints: ['https://10.0.0.9:2379'] };
  const http = 'http://10.0.0.9:2379';
  const cases: Case = [
    ['none that is said', { kind: undefined }, ['witness.kind: missing']],
    ['one that there is not', { kind: 'zookeeper' }, ["witness.kind: 'zookeeper'"]],
    ['an etcd without endpoints', { kind: 'etcd' }, ['witness.endpoints: missing']],
    ['an etcd of ten', { ...etcd, endpoints: Array(10).fill('https://a') }, ['witness.endpoints: [ 10 ]']],
    [
      'an endpoint with more behind',
      { ...etcd, endpoints: ['https://a/v3'] },
      ["witness.endpoints[0]: 'https://a/v3'"],
    ],
    [
      'an endpoint with a password',
      { ...etcd, endpoints: ['https://u:p@a'] },
      ["witness.endpoints[0]: 'https://u:p@a'"],
    ],
    ['an endpoint in plaintext', { ...etcd, endpoints: [http] }, [`witness.endpoints[0]: '${http}'`]],
    [
      'one in plaintext under TLS',
      { ...etcd, endpoints: [http], tls: { ca: 'a' } },
      [`witness.endpoints[0]: '${http}'`],
    ],
    ['plaintext and TLS', { ...etcd, plaintext: true, tls: { ca: 'a' } }, ['witness.plaintext: true']],
    ['a certificate without its key', { ...etcd, tls: { ca: 'a', cert: 'c' } }, ['witness.tls.key: missing']],
    ['a key without its certificate', { ...etcd, tls: { ca: 'a', key: 'c' } }, ['witness.tls.cert: missing']],
    ['a user without a password', { ...etcd, user: 'u' }, ['witness.passwordFile: missing']],
    ['a password without a user', { ...etcd, passwordFile: 'p' }, ['witness.user: missing']],
    ['a prefix with a blank', { ...etcd, prefix: 'a b' }, ["witness.prefix: 'a b'"]],
    ['a time of another kind', { ...etcd, timeoutMs: 9 }, ['witness.timeoutMs: 9']],
    ['no directory', { kind: 'file' }, ['witness.directory: missing']],
    [
      'one directory for each host',
      { kind: 'file', directory: '/m/{host}' },
      ["witness.directory: '/m/{host}'"],
    ],
    ['settings of another kind', { kind: 'none', directory: '/m' }, ["witness.directory: '/m'"]],
    [
      'fencing among three',
      { kind: 'fence', command: ['f'] },
      ['hosts: { alpha: { … }, beta: { … }, gamma: { … } }'],
    ],
  ];
  for (const [what, witness, expected] of cases) {
    it(`refuses ${what}`, () => {
      const given = problems(() => parseCluster({ ...base, witness }, 'alpha'));
      // Of what is printed of a whole section or list only the place is held.
      const places = (lines: readonly string[]) => lines.map((line) => line.replace(/: [[{].*/, ''));
      expect(places(given)).to.deep.equal(places(expected));
    });
  }

  it('takes what is right, with its defaults', () => {
    const witness = (given: object, two: object = hosts) =>
      parseCluster({ ...base, hosts: two, witness: given }, 'alpha', { directory: '/d' }).witness;
    const access = { user: 'u', passwordFile: 'p', tls: { ca: 'a', cert: '{host}', key: 'k' } };
    expect(witness({ ...etcd, ...access })).to.deep.equal({
      kind: 'etcd',
      endpoints: ['https://10.0.0.9:2379'],
      user: { name: 'u', passwordFile: '/d/p' },
      tls: { ca: '/d/a', cert: '/d/alpha', key: '/d/k' },
      prefix: '/romulus/',
      timeoutMs: 1000,
    });
    expect(witness({ ...etcd, endpoints: ['http://127.0.0.1:2379'] })).to.include({ kind: 'etcd' });
    expect(witness({ ...etcd, endpoints: [http], plaintext: true })).to.include({ kind: 'etcd' });
    expect(witness({ kind: 'file', directory: 'm' })).to.deep.equal({
      kind: 'file',
      directory: '/d/m',
      timeoutMs: 1000,
    });
    const two = { alpha: hosts.alpha, beta: hosts.beta };
    expect(witness({ kind: 'fence', command: ['f'], directory: 's/{host}' }, two)).to.include({
      directory: '/d/s/alpha',
    });
  });

  it('says who has to be asked where nobody is', () => {
    expect(errorOf(() => parseCluster({ ...base, witness: undefined }, 'alpha')).message).to.match(
      /witness: missing, expected a section with kind: etcd, file, fence or none \(who says which host may run/,
    );
  });
});

describe('config of a cluster: domains that are refused', () => {
  const lan = { network: [{ id: 'lan', mac: '52:54:00:00:00:01' }] };
  const cases: Case = [
    ['no hosts', { hosts: undefined }, ['domains[0].hosts: missing']],
    ['an empty list of them', { hosts: [] }, ['domains[0].hosts: []']],
    ['hosts that are no list', { hosts: 'alpha' }, ["domains[0].hosts: 'alpha'"]],
    ['a host that there is not', { hosts: ['alpha', 'delta'] }, ["domains[0].hosts[1]: 'delta'"]],
    ['a host twice', { hosts: ['alpha', 'alpha'] }, ["domains[0].hosts[1]: 'alpha'"]],
    [
      'a section of a host that there is not',
      { hosts: { alpha: {}, delta: null } },
      ['domains[0].hosts.delta: null'],
    ],
    ['what differs, as a word', { hosts: { alpha: 'x', beta: {} } }, ["domains[0].hosts.alpha: 'x'"]],
    [
      'another name on a host',
      { hosts: { alpha: { name: 'x' }, beta: {} } },
      ["domains[0].hosts.alpha.name: 'x'"],
    ],
    ['waiting for nobody', { hosts: ['alpha'], start: 'with-standby' }, ["domains[0].start: 'with-standby'"]],
    [
      'what is wrong on one host, in its section',
      { hosts: { alpha: { buffer: 1 }, beta: { heartbeat: { timeoutMs: 'x' } } } },
      ['domains[0].hosts.alpha.buffer: 1', "domains[0].hosts.beta.heartbeat.timeoutMs: 'x'"],
    ],
    [
      'what goes wrong by what is laid over it, in the section that is laid over',
      { hosts: { alpha: { heartbeat: { intervalMs: 600 } }, beta: {} } },
      ['domains[0].hosts.alpha.heartbeat.timeoutMs: missing'],
    ],
    [
      'what is wrong on all hosts, once, in what is shared',
      { hosts: { alpha: { buffer: '1MiB' }, beta: { buffer: '2MiB' } }, heartbeat: { intervalMs: 600 } },
      ['domains[0].heartbeat.timeoutMs: missing'],
    ],
    [
      'what is missing where nothing differs, once, though something differs beside it on another host',
      {
        hosts: { alpha: { hypervisor: { cpus: 2 } }, beta: null, gamma: { hypervisor: { memory: 1 } } },
        hypervisor: { ...qemu, sharedDisks: ['d'] },
      },
      ['domains[0].hypervisor.fence: missing', 'domains[0].hosts.gamma.hypervisor.memory: 1'],
    ],
    [
      'a part of a list with ids, where it stands',
      {
        hosts: {
          alpha: { hypervisor: { network: [{ id: 'wan', tap: 't', mac: 'x' }] } },
          beta: { hypervisor: { network: [{ id: 'lan', taap: 't' }] } },
        },
        hypervisor: { ...qemu, network: [{ id: 'lan', mac: 'y', tap: 't' }] },
      },
      [
        "domains[0].hypervisor.network[0].mac: 'y'",
        "domains[0].hosts.alpha.hypervisor.network[0].mac: 'x'",
        "domains[0].hosts.beta.hypervisor.network[0].taap: 't'",
      ],
    ],
    [
      'a card without a plug on the host that does not say one',
      {
        hosts: {
          alpha: { hypervisor: { network: [{ id: 'lan', tap: 't' }] } },
          beta: { hypervisor: { cpus: 2 } },
        },
        hypervisor: { ...qemu, ...lan },
      },
      ["domains[0].hypervisor.network[0]: { id: 'lan', mac: '52:54:00:00:00:01' }"],
    ],
    [
      'a QEMU that runs already on each host',
      { hypervisor: { ...qemu, qmp: 'q' } },
      ["domains[0].hypervisor.qmp: 'q'"],
    ],
    [
      'a different one on each host',
      {
        hosts: { alpha: { hypervisor: { qmp: 'q' } }, beta: { hypervisor: { qmp: 'r' } } },
        hypervisor: qemu,
      },
      ["domains[0].hosts.beta.hypervisor.qmp: 'r'"],
    ],
  ];
  refuses(cases, (changes) => ({ ...base, domains: [{ ...domain, ...changes }] }));

  it('a QEMU that runs already is taken where nobody has to stand by', () => {
    const single = { ...domain, hosts: ['alpha'], hypervisor: { ...qemu, qmp: 'q' } };
    expect(parseCluster({ ...base, domains: [single] }, 'alpha').domains[0]?.canStandBy).to.equal(false);
  });

  it('two of one name, and none', () => {
    const given = { ...base, domains: [domain, { ...domain, hosts: ['gamma'] }] };
    expect(problems(() => parseCluster(given, 'alpha'))).to.deep.equal(["domains[1].name: 'web'"]);
    expect(problems(() => parseCluster({ ...base, domains: [] }, 'alpha'))).to.deep.equal(['domains: []']);
    expect(problems(() => parseCluster({ ...base, domains: [5] }, 'alpha'))).to.deep.equal(['domains[0]: 5']);
  });

  it('all of it at once, one line each, with a hint for what is misspelt', () => {
    const error = errorOf(() =>
      parseCluster({
        ...base,
        witnes: {},
        domains: [{ ...domain, hosts: { alpha: { heartbeats: 1 }, betta: null }, start: 'at-once' }],
      }),
    );
    expect(error.message.split('\n')).to.deep.equal([
      'the configuration is not usable:',
      '  witnes: {} given, expected witness (did you mean that? there is no such key)',
      '  domains[0].hosts.betta: null given, expected beta (did you mean that? there is no such host)',
      "  domains[0].start: 'at-once' given, expected one of immediately, with-standby",
      '  domains[0].hosts.alpha.heartbeats: 1 given, expected heartbeat (did you mean that? there is no such key)',
    ]);
  });
});

describe('config of a cluster: anything at all', () => {
  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withSparseArray: true,
  });
  const oneOf = (valid: unknown, other: fc.Arbitrary<unknown>) =>
    fc.oneof({ weight: 3, arbitrary: fc.constant(valid) }, { weight: 1, arbitrary: other });
  const difference = fc.record(
    {
      hypervisor: fc.oneof(
        anything,
        fc.record({ kind: fc.constantFrom('qemu', 'embedded'), network: anything }),
      ),
      heartbeat: fc.record({ intervalMs: fc.integer() }),
      name: anything,
      output: oneOf({}, anything),
    },
    { requiredKeys: [] },
  );
  const named = fc.constantFrom('alpha', 'beta', 'gamma', 'delta', '__proto__');
  const nearlyDomain = fc.record(
    {
      name: oneOf('web', fc.string()),
      hosts: oneOf(
        ['alpha'],
        fc.oneof(fc.dictionary(named, fc.oneof(difference, anything)), fc.array(named), anything),
      ),
      hypervisor: oneOf(hypervisor, anything),
      checkpoint: oneOf({}, anything),
      start: oneOf(undefined, anything),
    },
    { requiredKeys: ['hosts'] },
  );
  const nearlyCluster = fc.record({
    witness: oneOf(
      { kind: 'none' },
      fc.oneof(anything, fc.record({ kind: fc.constant('etcd'), endpoints: anything })),
    ),
    hosts: oneOf(hosts, fc.oneof(anything, fc.dictionary(named, anything))),
    http: oneOf({}, anything),
    tls: oneOf(undefined, anything),
    domains: oneOf(
      [{ name: 'web', hosts: ['alpha'], hypervisor }],
      fc.oneof(fc.array(nearlyDomain, { maxLength: 3 }), anything),
    ),
  });

  it('is a configuration or a ConfigError with a line for each problem, nothing else', () => {
    let accepted = 0;
    fc.assert(
      fc.property(fc.oneof(anything, { weight: 4, arbitrary: nearlyCluster }), (given) => {
        try {
          expect(parseCluster(given, 'alpha').hosts.has('alpha')).to.equal(true);
          accepted++;
        } catch (thrown) {
          expect(thrown).to.be.instanceOf(ConfigError);
          if (!(thrown instanceof ConfigError)) return;
          expect(thrown.problems).to.not.be.empty;
          expect(thrown.message.split('\n')).to.have.length(thrown.problems.length + 1);
        }
      }),
      { numRuns: 250 },
    );
    expect(accepted).to.be.greaterThan(0);
  });
});
