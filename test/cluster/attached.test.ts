// A QEMU that nobody of ours has started, on a host whose agent is killed and started again: beside whoever took its guest
// over it says nothing. Real agents, a real etcd, one connection of a client.

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { guestCommandLine } from '../../src/hypervisor/qemu/guest/command-line.js';
import { Counter } from '../hypervisor/qemu/lab-counter.js';
import { SHARED, TAP } from '../hypervisor/qemu/lab.js';
import { guestMachine, QEMU } from '../support/qemu.js';
import { until } from '../support/until.js';
import { Cluster, DOMAIN, GUEST_MAC, needCluster, PATIENCE_MS } from './cluster.js';
import { ADDRESS_OF } from './network.js';

const LOAD = { workingSetPages: 1024, dirtyPages: 100, tickMs: 50, address: `${ADDRESS_OF.guest}/24` };
const MONITOR = `${SHARED}/theirs.qmp`;
const SERIAL = `${SHARED}/theirs.serial`;
/** Longer than it takes to notice a death, and to take over. */
const LATER_MS = 3000;

function domainOf(files: GuestFiles): object {
  return {
    name: DOMAIN,
    hypervisor: { kind: 'qemu' },
    hosts: {
      alpha: { hypervisor: { qmp: MONITOR, serial: SERIAL, network: [{ id: 'lan' }] } },
      beta: {
        hypervisor: { ...guestMachine(files, LOAD), network: [{ id: 'lan', mac: GUEST_MAC, tap: TAP }] },
      },
    },
    checkpoint: { intervalMs: 50 },
    heartbeat: { intervalMs: 100, timeoutMs: 1000 },
    failover: { redialMaxMs: 500 },
  };
}

function theirQemu({ kernel, initramfs }: GuestFiles): string[] {
  const socket = (path: string) => `unix:${path},server=on,wait=off`;
  return [
    ...['-nodefaults', '-display', 'none', '-accel', 'tcg', '-cpu', 'max', '-m', '128M'],
    ...['-object', `memory-backend-file,id=ram,size=128M,mem-path=${SHARED}/theirs.ram,share=on`],
    ...['-machine', 'q35,memory-backend=ram', '-qmp', socket(MONITOR), '-serial', socket(SERIAL)],
    ...['-netdev', `tap,id=lan,ifname=${TAP},script=no,downscript=no`],
    ...['-device', `virtio-net-pci,netdev=lan,mac=${GUEST_MAC}`],
    ...['-kernel', kernel, '-initrd', initramfs, '-append', guestCommandLine(LOAD)],
  ];
}

describe('cluster: the agent beside a QEMU that it was attached to', function () {
  this.timeout(2 * PATIENCE_MS);
  let files: GuestFiles;
  let etcd = '';
  let cluster: Cluster | null = null;
  let since = 0;

  before(async function () {
    ({ etcd, files } = await needCluster(this));
  });
  beforeEach(() => (since = Date.now()));
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(cluster?.transcript(since));
    await cluster?.close();
    cluster = null;
  });

  for (const [when, restartsMs] of [
    ['after the takeover', LATER_MS],
    ['at once', 0],
  ] as const) {
    it(`killed, and started again ${when}: never two are heard`, async () => {
      const c = await Cluster.open({ etcd, domains: [domainOf(files)] });
      cluster = c;
      c.lab.spawn('alpha', QEMU, theirQemu(files), ['ignore', 'ignore', 'inherit']);
      const isThere = (path: string) => c.lab.run('alpha', 'sh', '-c', `[ -S ${path} ] || sleep 1`);
      for (const path of [MONITOR, SERIAL]) await isThere(path);
      await c.start();
      await c.untilProtected();
      await until('the guest ticks', () => c.ticks.length > 2, PATIENCE_MS);
      const client = new Counter(c.lab);
      await client.reach(20, PATIENCE_MS);
      const [owner, standby] = [c.host('alpha'), c.host('beta')];
      expect(c.owner()).to.equal(owner);
      await owner.die('agent');
      await sleep(restartsMs);
      const before = client.replies.length;
      await owner.start();
      await client.reach(before + 50, PATIENCE_MS);
      await sleep(LATER_MS);
      await client.reach(client.replies.length + 20, PATIENCE_MS);
      if (restartsMs > 0) expect(c.owner()).to.equal(standby);
      expect(await c.contradiction()).to.equal(null);
    });
  }
});
