// config/cluster.yaml is what people start from: it loads on each of its hosts, it shows every key, its values are the
// defaults that they claim to be, and what it switches off is right, too.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parse } from 'yaml';
import { loadCluster, parseCluster } from '../../src/config/cluster.js';
import { clusterDomainSchema, clusterSchema } from '../../src/config/cluster-schema.js';
import { httpSchema } from '../../src/config/sections.js';
import { keysOf, sectionsOf, switchOn } from './example.js';

const FILE = 'config/cluster.yaml';
const source = readFileSync(FILE, 'utf8');

const hosts = {
  alpha: { address: '127.0.0.1', port: 7300 },
  beta: { address: '127.0.0.1', port: 7301, http: { port: 9301 } },
};
const domain = { name: 'web', hosts: ['alpha', 'beta'], hypervisor: { kind: 'embedded' } };
const etcd = { kind: 'etcd', endpoints: ['http://127.0.0.1:2379'] };
const minimal = { witness: etcd, hosts, domains: [domain] };

describe('config example of a cluster', () => {
  it('loads, and holds the defaults', async () => {
    for (const host of ['alpha', 'beta']) {
      expect(await loadCluster(FILE, host)).to.deep.equal(parseCluster(minimal, host));
    }
  });

  it('shows each key of the schema', () => {
    const resolve = (file: string) => file;
    const schemas = [clusterSchema(resolve), clusterDomainSchema(resolve, null), httpSchema(1)];
    const keys = new Set(schemas.flatMap((schema) => [...keysOf(schema)]));
    expect(keys.size).to.be.greaterThan(90);
    const shown = (key: string) => new RegExp(`^[ #-]*(console: \\{ )?${key}:`, 'm').test(source);
    expect([...keys].filter((key) => !shown(key))).to.deep.equal([]);
  });

  it('is right in what it says of witnesses, and their defaults are the ones that it claims', () => {
    const { sections } = sectionsOf(source, 'witness');
    const [file, fence, none] = sections.map(
      (witness) => parseCluster({ ...minimal, witness }, 'beta').witness,
    );
    const of = (witness: object) => parseCluster({ ...minimal, witness }, 'beta').witness;
    expect(file).to.deep.equal(of({ kind: 'file', directory: '/mnt/shared/romulus' }));
    expect(fence).to.deep.equal(of({ kind: 'fence', command: ['/usr/local/sbin/turn-off', '--and-wait'] }));
    expect(none).to.deep.equal({ kind: 'none' });
  });

  it('is right in what it says of QEMU, and of what differs on a host', () => {
    const { sections, rest } = sectionsOf(source, 'hypervisor', 4);
    const [managed, attached] = sections;
    const [{ hosts: differing }] = (
      parse(switchOn(rest), { uniqueKeys: false }) as {
        domains: [{ hosts: Readonly<Record<string, unknown>> }];
      }
    ).domains;
    expect(differing).to.have.keys('alpha', 'beta');
    const on = (host: string, web: object) =>
      parseCluster({ ...minimal, domains: [{ ...domain, ...web }] }, host, { directory: '/d' }).domains[0];
    const beta = on('beta', { hosts: differing, hypervisor: managed });
    expect(beta?.output.console).to.deep.equal({ kind: 'file', file: '/d/web.console' });
    expect(beta?.hypervisor).to.deep.equal({
      ...on('alpha', { hypervisor: { kind: 'qemu' } })?.hypervisor,
      cpu: 'host',
      disks: { root: { durability: 'strict', preallocate: false, bytes: 20 * 2 ** 30 } },
      arguments: ['-kernel', '/boot/vmlinuz', '-append', 'console=ttyS0'],
      network: [
        {
          id: 'lan',
          mac: '52:54:00:00:00:01',
          model: 'virtio-net-pci',
          backend: { kind: 'tap', interface: 'tap7' },
        },
      ],
    });
    const alpha = on('alpha', { hosts: { alpha: { hypervisor: attached }, beta: {} } });
    expect(alpha?.canStandBy).to.equal(false);
    expect(alpha?.hypervisor).to.deep.equal({
      kind: 'qemu',
      mode: 'attached',
      qmp: '/run/guest.qmp',
      serial: '/run/guest.serial',
      netdevs: ['lan'],
      sharedDisks: [],
      disks: {},
    });
  });

  it('is right in the rest that it switches off', () => {
    const { rest } = sectionsOf(sectionsOf(source, 'hypervisor', 4).rest, 'witness');
    const given = parse(switchOn(rest).replace('http://127.0.0.1:2379', 'https://127.0.0.1:2379'), {
      uniqueKeys: false,
    }) as { domains: [Record<string, unknown>] };
    // What differs there is a QEMU's; guest and image are alternatives.
    const [web] = given.domains;
    web['hosts'] = domain.hosts;
    delete (web['hypervisor'] as { guest?: unknown }).guest;
    const agent = parseCluster(given, 'alpha', { directory: '/etc/romulus' });
    expect(agent.witness).to.deep.include({
      user: { name: 'romulus', passwordFile: '/etc/romulus/etcd-password' },
      tls: {
        cert: '/etc/romulus/alpha.crt',
        key: '/etc/romulus/alpha.key',
        ca: '/etc/romulus/etcd-ca.crt',
      },
    });
    expect(agent.listen).to.deep.include({
      host: '0.0.0.0',
      token: '/etc/romulus/token',
      tls: { cert: '/etc/romulus/alpha.crt', key: '/etc/romulus/alpha.key', ca: '/etc/romulus/ca.crt' },
    });
    expect(agent.hosts.get('alpha')?.name).to.equal('alpha.example.org');
    expect(agent.hooks.command).to.have.length(2);
    expect(agent.hooks.webhook?.url).to.equal('http://127.0.0.1:8080/romulus');
    expect(agent.domains[0]?.output).to.deep.include({
      console: { kind: 'file', file: '/etc/romulus/web.console' },
      tap: '/etc/romulus/web.tap',
    });
    const { hypervisor } = agent.domains[0] ?? {};
    expect(hypervisor?.kind === 'embedded' && hypervisor.boot.kind).to.equal('image');
  });
});
