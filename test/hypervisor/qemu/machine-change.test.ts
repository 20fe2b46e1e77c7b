// A protected guest becomes another machine, by somebody else's hand: protection is lost, and says why, until the change is
// undone; and nobody hears a card that is held by nobody.

import { expect } from 'chai';
import { pino } from 'pino';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import { attachQemuSource, openQemuSource, QemuPrimary } from '../../../src/hypervisor/qemu/index.js';
import type { QmpClient } from '../../../src/hypervisor/qemu/monitor/qmp.js';
import { openSource } from '../../../src/service/hypervisors.js';
import { agentOn, WatchedHost } from '../../service/hosts.js';
import { log } from '../../service/world.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { expectCode } from '../support.js';
import { announce, World } from './outside.js';
import { needQemu, TICK_ARGUMENTS, tickGuest } from './support.js';
import { StrangeQemu } from './stranger.js';

const PATIENCE_MS = 40_000;
/** Of these ports one is for what is plugged in later. */
const PORTS = [
  '-device',
  'pcie-root-port,id=port0,chassis=1',
  '-device',
  'pcie-root-port,id=port1,chassis=2',
];

describe('qemu: a guest whose state cannot be saved', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(() => cleanup.run());

  const unsaveable: Record<string, string[]> = {
    'virtio-crypto': [
      ...['-object', 'cryptodev-backend-builtin,id=crypt', '-device', 'virtio-crypto-pci,cryptodev=crypt'],
    ],
    'usb-mtp': ['-device', 'qemu-xhci', '-device', 'usb-mtp,rootdir=/usr/share/qemu'],
    nvme: ['-device', 'nvme,serial=1'],
    rocker: ['-device', 'rocker'],
    ivshmem: [
      ...['-object', 'memory-backend-ram,id=common,size=1M,share=on'],
      ...['-device', 'ivshmem-plain,memdev=common,master=off'],
    ],
  };
  for (const [device, options] of Object.entries(unsaveable)) {
    it(`is refused by name: ${device}; one that runs already goes on`, async () => {
      const error = await expectCode(
        openQemuSource(tickGuest({ dirty: 'compare', arguments: options })),
        'BAD_CONFIGURATION',
        device,
      );
      expect(error.message).to.include('only-migratable');
      const qemu = await StrangeQemu.start(options);
      cleanup.add(() => qemu.kill());
      await expectCode(
        attachQemuSource({ name: 'web', monitor: qemu.monitor }),
        'BAD_CONFIGURATION',
        `cannot save the state of this guest`,
      );
      expect(await qemu.isRunning()).to.equal(true);
    });
  }
});

describe('qemu: a machine that changes while it is protected', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  let world: World;
  let domain: QemuPrimary | null = null;
  let said: string[] = [];
  let registers = createMemoryWitness();
  before(function () {
    return needQemu(this);
  });
  beforeEach(async () => {
    said = [];
    domain = null;
    registers = createMemoryWitness();
    world = await World.open();
    cleanup.add(() => world.close());
  });
  afterEach(() => cleanup.run());

  const managed = () => ({
    ...{ kind: 'qemu', accelerator: 'tcg', memory: '16MiB', dirty: 'compare' },
    arguments: [...TICK_ARGUMENTS, ...PORTS],
    network: [{ id: 'lan', socket: world.netdev }],
  });

  /** As on each host: the primary's may be there already. */
  const domains = (hypervisor: Record<string, unknown>) => [
    {
      ...{ name: 'web', output: { console: 'none' } },
      hosts: { north: { hypervisor }, south: { hypervisor: managed() } },
      checkpoint: { intervalMs: 10, slab: '4MiB' },
      heartbeat: { intervalMs: 50, timeoutMs: 2000 },
      failover: { redialMinMs: 10, redialMaxMs: 100 },
    },
  ];

  async function primaryOf(hypervisor: Record<string, unknown>): Promise<WatchedHost> {
    const options = { port: 0, registers, domains: domains(hypervisor) };
    const agent = agentOn('north', options, {
      log: pino({ level: 'warn' }, { write: (line: string) => void said.push(line) }),
      openSource: async (config) => {
        const opened = await openSource(config);
        if (!(opened instanceof QemuPrimary)) throw new Error('another domain');
        domain = opened;
        return opened;
      },
    });
    cleanup.add(() => agent.stop());
    const primary = new WatchedHost(agent);
    await agent.start();
    await until('the guest is there', () => domain !== null, PATIENCE_MS);
    return primary;
  }

  async function secondaryOf({ service: { port } }: WatchedHost): Promise<WatchedHost> {
    const agent = agentOn('south', { port, registers, domains: domains(managed()) }, { log });
    cleanup.add(() => agent.stop());
    const secondary = new WatchedHost(agent);
    await agent.start();
    return secondary;
  }

  const linkOf = (host: WatchedHost) => host.status().link;
  const errorOf = (host: WatchedHost) => host.status().error?.message ?? '';

  async function changedAndBack(
    primary: WatchedHost,
    expected: RegExp,
    change: () => Promise<unknown>,
    undo: () => Promise<unknown>,
  ): Promise<void> {
    const secondary = await secondaryOf(primary);
    await until('protected', () => linkOf(primary) === 'replicating', PATIENCE_MS);
    await change();
    await until('the primary says so', () => expected.test(errorOf(primary)), PATIENCE_MS);
    await until('the secondary says so', () => expected.test(errorOf(secondary)), PATIENCE_MS);
    expect(linkOf(primary)).to.not.equal('replicating');
    expect(linkOf(secondary)).to.not.equal('replicating');
    await undo();
    await until('protected again', () => linkOf(primary) === 'replicating', PATIENCE_MS);
    expect(errorOf(primary)).to.equal('');
    expect(secondary.failovers).to.deep.equal([]);
    await secondary.service.stop();
  }

  /** A guest that does not know how to let a device go lets it go at its reset. */
  async function unplug(qmp: QmpClient, id: string): Promise<void> {
    await qmp.execute('device_del', { id });
    await qmp.execute('system_reset');
  }

  it('a device: protection is lost by name, and comes back without it', async () => {
    const primary = await primaryOf(managed());
    const qmp = () => domain?.machine.qmp as QmpClient;
    await changedAndBack(
      primary,
      /devices: virtio-rng-pci dice addr \S+, virtio-rng-device only on the primary|devices: .*virtio-rng-pci dice/,
      () => qmp().execute('device_add', { driver: 'virtio-rng-pci', id: 'dice', bus: 'port0' }),
      () => unplug(qmp(), 'dice'),
    );
    expect(said.join('')).to.include('the machine has changed');
    const crypt = { driver: 'nvme', serial: '1', id: 'disk', bus: 'port1' };
    const refused = await qmp()
      .execute('device_add', crypt)
      .catch((error: unknown) => String(error));
    expect(refused).to.include('not migratable');
  });

  it('a network card, hot-plugged: nobody hears it', async () => {
    const primary = await primaryOf(managed());
    const qmp = () => domain?.machine.qmp as QmpClient;
    const elsewhere = await World.open();
    cleanup.add(() => elsewhere.close());
    const [, ...target] = elsewhere.netdev.split('=');
    const [address = '', port = ''] = (target.join('=').split(',')[0] ?? '').split(':');
    await changedAndBack(
      primary,
      /network cards: .*e1000/,
      async () => {
        await qmp().execute('netdev_add', {
          ...{ type: 'socket', id: 'wan', udp: `${address}:${port}`, localaddr: '127.0.0.1:0' },
        });
        await until('the netdev is unplugged', () => said.some((line) => line.includes('the netdev wan')));
        await qmp().execute('device_add', { driver: 'e1000', netdev: 'wan', id: 'door', bus: 'port0' });
        await elsewhere.hears(0, () => announce(qmp()));
      },
      async () => {
        await elsewhere.hears(0, () => announce(qmp()));
        await unplug(qmp(), 'door');
      },
    );
    expect(elsewhere.frames).to.equal(0);
    expect(said.join('')).to.include('network: [{ id: wan');
  });

  it('attached: a device whose state cannot be saved, when the guest is about to be stopped: no checkpoint, and it goes on', async () => {
    const monitor = `${await cleanup.directory()}/other`;
    const qemu = await StrangeQemu.start([...PORTS, '-qmp', `unix:${monitor},server=on,wait=off`]);
    cleanup.add(() => qemu.kill());
    const source = await attachQemuSource({ name: 'web', monitor: qemu.monitor });
    cleanup.add(() => source.destroy());
    const other = await StrangeQemu.monitorAt(monitor);
    cleanup.add(() => other.close());
    const isRunning = async () => ((await other.execute('query-status')) as { running: boolean }).running;
    await source.prepareSuspend();
    await other.execute('device_add', { driver: 'nvme', serial: '1', id: 'disk', bus: 'port0' });
    await source.suspend();
    expect(await isRunning()).to.equal(false);
    await expectCode(source.emulatorContext(), 'MACHINE_CHANGED', 'nvme');
    await source.resume();
    expect(await isRunning()).to.equal(true);
  });

  it('attached: a device by another monitor, and one whose state cannot be saved; the guest goes on', async () => {
    const monitor = `${await cleanup.directory()}/other`;
    const qemu = await StrangeQemu.start([
      ...StrangeQemu.network(world),
      ...PORTS,
      ...['-qmp', `unix:${monitor},server=on,wait=off`],
    ]);
    cleanup.add(() => qemu.kill());
    const primary = await primaryOf({
      ...{ kind: 'qemu', qmp: qemu.monitor, serial: qemu.serial, network: [{ id: 'lan' }] },
    });
    const other = await StrangeQemu.monitorAt(monitor);
    cleanup.add(() => other.close());
    await changedAndBack(
      primary,
      /cannot be saved: State blocked by non-migratable device .*nvme|devices: .*nvme disk/,
      () => other.execute('device_add', { driver: 'nvme', serial: '1', id: 'disk', bus: 'port0' }),
      () => unplug(other, 'disk'),
    );
    expect(qemu.lives()).to.equal(true);
  });
});
