// Two real QEMUs at the handshake, through both hosts: those that differ are refused with the difference, and nothing
// is taken over; those that do not are linked. And output that passes unprotected, held while a secondary is linked.

import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { pino } from 'pino';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import { QemuPrimary } from '../../../src/hypervisor/qemu/index.js';
import { openSource } from '../../../src/service/hypervisors.js';
import { agentOn, WatchedHost } from '../../service/hosts.js';
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
  let registers = createMemoryWitness();
  before(function () {
    return needQemu(this);
  });
  afterEach(() => cleanup.run());

  /** Resolves when the guest is there, or cannot be. */
  async function primaryOf(hypervisor: Section, changes: Section = {}): Promise<WatchedHost> {
    const section = { name: 'web', hypervisor, output: { console: 'none' }, ...changes };
    registers = createMemoryWitness();
    domain = null;
    const agent = agentOn(
      'north',
      { port: 0, registers, domains: [section] },
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
    cleanup.add(() => agent.stop());
    const primary = new WatchedHost(agent);
    await agent.start();
    await until('it runs, or failed', () => primary.was('primary') || primary.was('failed'), 20_000);
    return primary;
  }

  const failureOf = (primary: WatchedHost): string =>
    primary.history.find(({ role }) => role === 'failed')?.error?.message ?? 'it has not failed';

  async function secondaryOf(
    { service: { port } }: WatchedHost,
    hypervisor: Section,
    said: string[] = [],
  ): Promise<WatchedHost> {
    const section = {
      ...{ name: 'web', hypervisor, output: { console: 'none' } },
      failover: { redialMinMs: 10, redialMaxMs: 100 },
    };
    const log = pino({ level: 'warn' }, { write: (line: string) => void said.push(line) });
    const agent = agentOn('south', { port, registers, domains: [section] }, { log });
    cleanup.add(() => agent.stop());
    const secondary = new WatchedHost(agent);
    await agent.start();
    return secondary;
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
    const primary = await primaryOf({ ...HYPERVISOR, network: [CARD] });
    if (!domain) throw new Error('no domain');
    const screen = new Console(domain);
    for (const [what, [changes, expected]] of Object.entries(misfits)) {
      const said: string[] = [];
      const secondary = await secondaryOf(primary, { ...HYPERVISOR, network: [CARD], ...changes }, said);
      await until(what, () => secondary.status().error !== null);
      const { error, role, link } = secondary.status();
      expect(error?.code, what).to.equal('DOMAIN_MISMATCH');
      for (const text of expected) expect(error?.message, what).to.match(text);
      expect(role, what).to.equal('standby');
      expect(link, what).to.be.oneOf(['connecting', 'down']);
      // It is said once, however often it dials.
      expect(said.filter((line) => line.includes('DOMAIN_MISMATCH')).length, what).to.equal(1);
      await secondary.service.stop();
      expect([secondary.failovers, secondary.commits], what).to.deep.equal([[], []]);
    }
    const ticks = screen.ticks().length;
    await screen.until(() => screen.ticks().length > ticks);
    expect(primary.status()).to.include({ role: 'primary', link: 'down' });
    expect(screen.text).to.not.include('BAD');

    const secondary = await secondaryOf(primary, { ...HYPERVISOR, network: [CARD] });
    await until('linked', () => primary.status().link === 'replicating', 20_000);
    expect(secondary.status().error).to.equal(null);
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
    expect(primary.status().error).to.equal(null);
    const secondary = await secondaryOf(primary, { ...HYPERVISOR, network: [CARD] });
    await until('refused', () => secondary.status().error !== null);
    expect(secondary.status().error?.message).to.match(
      /network cards: virtio-net-pci .* on a tap on the primary/,
    );
    await secondary.service.stop();
    await primary.service.stop();

    await ip('link', 'del', tap);
    await ip('tuntap', 'add', tap, 'mode', 'tap', 'multi_queue');
    const queues = { ...HYPERVISOR, arguments: [...GUEST, '-set', 'netdev.lan.queues=2'] };
    const several = await primaryOf({ ...queues, network: [{ id: 'lan', tap }] });
    expect(failureOf(several)).to.include('the output of netdev lan cannot be held');
  });

  it('a network card past the gates does not start', async () => {
    for (const option of ['-netdev', '-nic', '-net']) {
      const primary = await primaryOf({ ...HYPERVISOR, arguments: [...GUEST, option, 'user,id=way-out'] });
      expect(failureOf(primary)).to.include('in `network` their output is held');
      await primary.service.stop();
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
    expect(failureOf(primary)).to.include('the output of the network card back-door would not be held');
  });

  it('output that passes unprotected is held while a secondary is linked, and passes again', async () => {
    const world = await World.open();
    cleanup.add(() => world.close());
    const network = [{ id: 'lan', socket: world.netdev }];
    const hypervisor = { ...HYPERVISOR, network };
    const primary = await primaryOf(hypervisor, {
      checkpoint: { intervalMs: 60_000, slab: '4MiB' },
    });
    let checkpoints = 0;
    primary.service.checkpoints$.subscribe(() => checkpoints++);
    const speak = async () => domain && announce(domain.machine.qmp);
    await until('the gate is tested', () => world.frames > 0); // its test lets a frame out
    await world.hears(1, speak);
    const secondary = await secondaryOf(primary, hypervisor);
    await until('the first checkpoint', () => checkpoints === 1, 20_000);
    await world.hears(0, speak);
    await world.hears(0, speak);
    await world.hears(2, async () => {
      primary.service.requestCheckpoint('web');
      await until('the second checkpoint', () => checkpoints === 2);
    });
    await world.hears(0, speak);
    await world.hears(1, () => secondary.service.stop());
    await world.hears(1, speak);
  });
});
