// Two real QEMUs at the handshake, through both services: those that differ are refused with the difference, and nothing
// is taken over; those that do not are linked. And output that passes unprotected, held while a secondary is linked.

import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { pino } from 'pino';
import { parsePrimaryConfig, parseSecondaryConfig } from '../../../src/config/load.js';
import { QemuPrimary } from '../../../src/hypervisor/qemu/index.js';
import { openSource } from '../../../src/service/hypervisors.js';
import { createPrimaryService } from '../../../src/service/primary-service.js';
import type { PrimaryService, SecondaryService } from '../../../src/report/reports.js';
import { createSecondaryService } from '../../../src/service/secondary-service.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { announce, World } from './outside.js';
import { Console } from '../support.js';
import { TICK_ELF, needQemu } from './support.js';
import { temporaryDirectory } from '../../support/temporary.js';

type Section = Record<string, unknown>;

const GUEST = ['-kernel', TICK_ELF, '-append', 'pages=256 dirty=16 tick_ms=10'];
const HYPERVISOR: Section = {
  kind: 'qemu',
  accelerator: 'tcg',
  cpu: 'max',
  memory: '16MiB',
  dirty: 'compare',
  arguments: [...GUEST, '-device', 'virtio-rng-pci,id=dice'],
};
const CARD = { id: 'lan', user: 'restrict=on' };

const ip = async (...words: string[]): Promise<void> => {
  await promisify(execFile)('ip', words);
};

describe('qemu: the handshake', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  let domain: QemuPrimary | null = null;
  before(function () {
    return needQemu(this);
  });
  afterEach(() => cleanup.run());

  async function primaryOf(hypervisor: Section, changes: Section = {}): Promise<PrimaryService> {
    const primary = createPrimaryService(
      parsePrimaryConfig({
        listen: { port: 0 },
        http: false,
        domains: [{ name: 'web', hypervisor, output: { console: 'none' }, ...changes }],
      }),
      {
        log: pino({ level: 'silent' }),
        openSource: async (config) => {
          const opened = await openSource(config);
          if (!(opened instanceof QemuPrimary)) throw new Error('another domain');
          domain = opened;
          return opened;
        },
      },
    );
    cleanup.add(() => primary.stop());
    await primary.start();
    return primary;
  }

  async function secondaryOf(
    port: number,
    hypervisor: Section,
    said: string[] = [],
  ): Promise<SecondaryService> {
    const service = createSecondaryService(
      parseSecondaryConfig({
        http: false,
        domains: [
          {
            name: 'web',
            primary: `ws://127.0.0.1:${port}`,
            hypervisor,
            failover: { redialMinMs: 10, redialMaxMs: 100 },
            output: { console: 'none' },
          },
        ],
      }),
      { log: pino({ level: 'warn' }, { write: (line: string) => void said.push(line) }) },
    );
    cleanup.add(() => service.stop());
    await service.start();
    return service;
  }

  const misfits: Record<string, [Section, RegExp[]]> = {
    'another machine': [
      { machine: 'pc' },
      [/machine: pc-q35-\S+ on the primary, pc-i440fx-\S+ on the secondary/],
    ],
    'other memory': [{ memory: '32MiB' }, [/memory: 16 MiB on the primary, 32 MiB on the secondary/]],
    'another processor': [
      { cpu: 'qemu64' },
      [
        /vCPUs: max-x86_64-cpu .* on the primary, qemu64-x86_64-cpu .* on the secondary/,
        /vCPU features: .*0x7/,
      ],
    ],
    'more processors': [{ cpus: 2 }, [/vCPUs: max-x86_64-cpu core-id 1 .* only on the secondary/]],
    'a device more': [
      { arguments: [...GUEST, '-device', 'virtio-rng-pci,id=dice', '-device', 'virtio-balloon-pci,id=air'] },
      [/devices: virtio-balloon-pci air addr \S+, virtio-balloon-device only on the secondary/],
    ],
    'a device less': [{ arguments: GUEST }, [/devices: virtio-rng-pci dice addr .* only on the primary/]],
    'a device of another name': [
      { arguments: [...GUEST, '-device', 'virtio-rng-pci,id=coin'] },
      [/virtio-rng-pci dice .* only on the primary; virtio-rng-pci coin/],
    ],
    'a device at another place': [
      { arguments: [...GUEST, '-device', 'virtio-rng-pci,id=dice,addr=0x9'] },
      [/dice addr 0\d\.0 only on the primary; virtio-rng-pci dice addr 09\.0 only on the secondary/],
    ],
    'a network card of another address': [
      { network: [{ ...CARD, mac: '52:54:00:00:00:09' }] },
      [/network cards: virtio-net-pci .*:56 on the primary, virtio-net-pci .*:09 on the secondary/],
    ],
    'a network card on none of QEMU’s own networks': [
      { network: [{ id: 'lan', socket: 'udp=127.0.0.1:9,localaddr=127.0.0.1:0' }] },
      [/user networks: 1 on the primary, none on the secondary/],
    ],
    'a network card of another type': [
      { network: [{ ...CARD, model: 'e1000' }] },
      [/network cards: virtio-net-pci .* on the primary, e1000 .* on the secondary/],
    ],
  };

  it('refuses a secondary that differs, says how, and the domain goes on', async () => {
    const primary = await primaryOf(
      { ...HYPERVISOR, network: [CARD] },
      {
        output: { console: 'none', whenUnprotected: 'pass' },
      },
    );
    if (!domain) throw new Error('no domain');
    const screen = new Console(domain);
    for (const [what, [changes, expected]] of Object.entries(misfits)) {
      const said: string[] = [];
      const secondary = await secondaryOf(primary.port, { ...HYPERVISOR, network: [CARD], ...changes }, said);
      const failovers: unknown[] = [];
      const commits: unknown[] = [];
      secondary.failover$.subscribe((event) => failovers.push(event));
      secondary.commits$.subscribe((event) => commits.push(event));
      await until(what, () => secondary.statuses()[0]?.error !== null);
      const [status] = secondary.statuses();
      expect(status?.error?.code, what).to.equal('DOMAIN_MISMATCH');
      for (const text of expected) expect(status?.error?.message, what).to.match(text);
      expect(status?.role, what).to.equal('standby');
      expect(status?.link, what).to.be.oneOf(['connecting', 'down']);
      // It is said once, however often it dials.
      expect(said.filter((line) => line.includes('DOMAIN_MISMATCH')).length, what).to.equal(1);
      await secondary.stop();
      expect([failovers, commits], what).to.deep.equal([[], []]);
    }
    const ticks = screen.ticks().length;
    await screen.until(() => screen.ticks().length > ticks);
    expect(primary.statuses()[0]).to.include({ role: 'primary', link: 'down' });
    expect(screen.text).to.not.include('BAD');

    const secondary = await secondaryOf(primary.port, { ...HYPERVISOR, network: [CARD] });
    await until('linked', () => primary.statuses()[0]?.link === 'replicating', 20_000);
    expect(secondary.statuses()[0]?.error).to.equal(null);
  });

  it('a virtio card on a tap is not linked to one that is on none; a tap of several queues cannot be held', async function () {
    const tap = `romulus${process.pid % 10_000_000}`;
    try {
      await ip('tuntap', 'add', tap, 'mode', 'tap');
    } catch (error) {
      console.log(`\n    SKIPPED: no tap can be made here: ${String(error)}\n`);
      return this.skip();
    }
    cleanup.add(() => ip('link', 'del', tap));
    const primary = await primaryOf({ ...HYPERVISOR, network: [{ id: 'lan', tap }] });
    expect(primary.statuses()[0]?.error).to.equal(null);
    const secondary = await secondaryOf(primary.port, { ...HYPERVISOR, network: [CARD] });
    await until('refused', () => secondary.statuses()[0]?.error !== null);
    expect(secondary.statuses()[0]?.error?.message).to.match(
      /network cards: virtio-net-pci .* on a tap on the primary/,
    );
    await secondary.stop();
    await primary.stop();

    await ip('link', 'del', tap);
    await ip('tuntap', 'add', tap, 'mode', 'tap', 'multi_queue');
    const queues = { ...HYPERVISOR, arguments: [...GUEST, '-set', 'netdev.lan.queues=2'] };
    const several = await primaryOf({ ...queues, network: [{ id: 'lan', tap }] });
    expect(several.statuses()[0]?.error?.message).to.include('the output of netdev lan cannot be held');
  });

  it('a network card past the gates does not start', async () => {
    for (const option of ['-netdev', '-nic', '-net']) {
      const primary = await primaryOf({ ...HYPERVISOR, arguments: [...GUEST, option, 'user,id=way-out'] });
      const [status] = primary.statuses();
      expect(status?.role).to.equal('failed');
      expect(status?.error?.message).to.include('in `network` their output is held');
      await primary.stop();
    }
    // Whatever other option makes one.
    const folder = await temporaryDirectory('romulus-handshake-');
    cleanup.add(() => rm(folder, { recursive: true }));
    const file = path.join(folder, 'card.cfg');
    const card = ['[device "back-door"]', 'driver = "virtio-net-pci"', 'netdev = "way-out"'];
    await writeFile(file, ['[netdev "way-out"]', 'type = "user"', ...card, ''].join('\n'));
    const primary = await primaryOf({
      ...HYPERVISOR,
      arguments: [...GUEST, '-readconfig', file],
      network: [CARD],
    });
    const [status] = primary.statuses();
    expect(status?.role).to.equal('failed');
    expect(status?.error?.message).to.include('the output of the network card back-door would not be held');
  });

  it('output that passes unprotected is held while a secondary is linked, and passes again', async () => {
    const world = await World.open();
    cleanup.add(() => world.close());
    const network = [{ id: 'lan', socket: world.netdev }];
    const hypervisor = { ...HYPERVISOR, network };
    const primary = await primaryOf(hypervisor, {
      checkpoint: { intervalMs: 60_000, slab: '4MiB' },
      output: { console: 'none', whenUnprotected: 'pass' },
    });
    let checkpoints = 0;
    primary.checkpoints$.subscribe(() => checkpoints++);
    const speak = async () => domain && announce(domain.machine.qmp);
    await until('the gate is tested', () => world.frames > 0); // its test lets a frame out
    await world.hears(1, speak);
    const secondary = await secondaryOf(primary.port, hypervisor);
    await until('the first checkpoint', () => checkpoints === 1, 20_000);
    await world.hears(0, speak);
    await world.hears(0, speak);
    await world.hears(2, async () => {
      primary.requestCheckpoint('web');
      await until('the second checkpoint', () => checkpoints === 2);
    });
    await world.hears(0, speak);
    await world.hears(1, () => secondary.stop());
    await world.hears(1, speak);
  });
});
