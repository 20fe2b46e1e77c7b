// The examples in config/ are what people start from: they load, they show every key, and their values are the
// defaults they claim to be.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parse } from 'yaml';
import {
  loadPrimaryConfig,
  loadSecondaryConfig,
  parsePrimaryConfig,
  parseSecondaryConfig,
} from '../../src/config/load.js';
import { primarySchema, secondarySchema } from '../../src/config/schema.js';
import { keysOf, sectionsOf, switchOn } from './example.js';

const PRIMARY = 'config/primary.yaml';
const SECONDARY = 'config/secondary.yaml';

/** The sections for QEMU, which are alternatives to the one that is switched on; and the file without them. */
function qemuSections(file: string) {
  return sectionsOf(readFileSync(file, 'utf8'), 'hypervisor', 4);
}

describe('config examples', () => {
  it('load, and hold the defaults', async () => {
    const hypervisor = { kind: 'embedded' };
    expect(await loadPrimaryConfig(PRIMARY)).to.deep.equal(
      parsePrimaryConfig({ domains: [{ name: 'web', hypervisor }] }),
    );
    expect(await loadSecondaryConfig(SECONDARY)).to.deep.equal(
      parseSecondaryConfig({ domains: [{ name: 'web', primary: 'ws://127.0.0.1:7300', hypervisor }] }),
    );
  });

  for (const [file, schema] of [
    [PRIMARY, primarySchema('/')],
    [SECONDARY, secondarySchema('/')],
  ] as const) {
    it(`${file} shows each key of the schema`, () => {
      const keys = keysOf(schema);
      expect(keys.size).to.be.greaterThan(30);
      const source = readFileSync(file, 'utf8');
      const missing = [...keys].filter(
        (key) => !new RegExp(`^[ #-]*(console: \\{ )?${key}:`, 'm').test(source),
      );
      // A standby does not run in a QEMU that is there already.
      const onPrimaryOnly = file === SECONDARY ? ['qmp', 'serial'] : [];
      expect(missing).to.deep.equal(onPrimaryOnly);
    });
  }

  it('are right in what they switch off, too', () => {
    const guestAway = (document: { domains: { hypervisor: { guest?: unknown } }[] }) => {
      for (const domain of document.domains) delete domain.hypervisor.guest;
      return document;
    };
    const primary: unknown = guestAway(
      parse(switchOn(qemuSections(PRIMARY).rest), { uniqueKeys: false }) as Parameters<typeof guestAway>[0],
    );
    const config = parsePrimaryConfig(primary, { directory: '/etc/romulus' });
    expect(config.listen.tls).to.deep.equal({
      cert: '/etc/romulus/primary.crt',
      key: '/etc/romulus/primary.key',
      ca: '/etc/romulus/ca.crt',
    });
    expect(config.listen.token).to.equal('/etc/romulus/token');
    expect(config.domains[0]?.secondaryNames).to.deep.equal(['beta.example.org']);
    expect(config.hooks.command).to.have.length(2);
    expect(config.hooks.webhook).to.deep.equal({
      url: 'http://127.0.0.1:8080/romulus',
      attempts: 5,
      timeoutMs: 2000,
      retryDelayMs: 500,
    });
    expect(config.domains[0]?.output.console).to.deep.equal({
      kind: 'file',
      file: '/etc/romulus/web.console',
    });
    expect(config.domains[0]?.output.tap).to.equal('/etc/romulus/web.tap');
    const hypervisor = config.domains[0]?.hypervisor;
    expect(hypervisor?.kind === 'embedded' && hypervisor.boot).to.include({
      kind: 'image',
      kernel: '/etc/romulus/bzImage',
    });

    const source = switchOn(qemuSections(SECONDARY).rest).replace('primary: ws://', 'primary: wss://');
    const secondary: unknown = guestAway(
      parse(source, { uniqueKeys: false }) as Parameters<typeof guestAway>[0],
    );
    const [domain] = parseSecondaryConfig(secondary, { directory: '/etc/romulus' }).domains;
    expect(domain?.tls?.key).to.equal('/etc/romulus/secondary.key');
    expect(domain?.token).to.equal('/etc/romulus/token');
    expect(domain?.primaryName).to.equal('alpha.example.org');
    expect(domain?.output.tap).to.equal('/etc/romulus/web.tap');
  });

  it('are right in what they say about QEMU, and its defaults are the ones they claim', () => {
    const bare = parsePrimaryConfig({ domains: [{ name: 'web', hypervisor: { kind: 'qemu' } }] });
    const [managed, attached] = qemuSections(PRIMARY).sections.map((hypervisor) => {
      return parsePrimaryConfig({ domains: [{ name: 'web', hypervisor }] }).domains[0]?.hypervisor;
    });
    expect(managed).to.deep.equal({
      ...bare.domains[0]?.hypervisor,
      cpu: 'host',
      arguments: ['-kernel', '/boot/vmlinuz', '-append', 'console=ttyS0'],
      network: [
        {
          id: 'lan',
          mac: '52:54:00:00:00:01',
          model: 'virtio-net-pci',
          backend: { kind: 'tap', interface: 'tap0' },
        },
      ],
    });
    expect(attached).to.deep.equal({
      kind: 'qemu',
      mode: 'attached',
      qmp: '/run/guest.qmp',
      serial: '/run/guest.serial',
      netdevs: ['lan'],
      sharedDisks: [],
    });
    const standbys = qemuSections(SECONDARY).sections.map((hypervisor) => {
      const domain = { name: 'web', primary: 'ws://127.0.0.1:7300', hypervisor };
      return parseSecondaryConfig({ domains: [domain] }).domains[0]?.hypervisor;
    });
    expect(standbys).to.deep.equal([managed]);
  });
});
