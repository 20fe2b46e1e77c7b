// What a new user meets when QEMU does not start, or its monitor is somebody else's: the sentence says what to do.

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { expect } from 'chai';
import { attachQemuSource, openQemuSource, type QemuConfig } from '../../../src/hypervisor/qemu/index.js';
import { adviceOn } from '../../../src/hypervisor/qemu/process/start-errors.js';
import { Agent, clusterOf } from '../../cli/agent.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { until } from '../../support/until.js';
import { MIB, expectCode } from '../support.js';
import { StrangeQemu } from './stranger.js';
import { TEST_NAME, needQemu, tickGuest } from './support.js';

describe('qemu: what does not start', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });
  const config = tickGuest({ dirty: 'compare', memoryBytes: 8 * MIB });

  describe('KVM', () => {
    const words: readonly [string, RegExp][] = [
      [
        'Could not access KVM kernel module: No such file or directory\n-accel kvm: failed to initialize kvm: No such file or directory',
        /no \/dev\/kvm here.*nested virtualisation.*accelerator: tcg/,
      ],
      [
        'Could not access KVM kernel module: Permission denied\n-accel kvm: failed to initialize kvm: Permission denied',
        /group kvm.*accelerator: tcg/,
      ],
      [
        "error: failed to set MSR 0x10a to 0x69\nkvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.",
        /nested virtualisation.*accelerator: tcg/,
      ],
      ['KVM internal error. Suberror: 1\nextra data[0]: 0x1\nemulation failure', /accelerator: tcg/],
    ];
    for (const [said, advice] of words) {
      it(`that says “${said.split('\n', 1)[0] ?? ''}” is told what to write instead`, () => {
        expect(adviceOn(said)).to.include({ key: 'accelerator', value: 'kvm' });
        expect(adviceOn(said)?.text).to.match(advice);
      });
    }

    it('that is not here is told by an agent on either side', async function () {
      // In a file system in which /dev/kvm is none, whether it is here or not.
      const without = ['unshare', '--mount', 'sh', '-c', 'mount --bind /dev/null /dev/kvm; exec "$@"', 'sh'];
      if (spawnSync(without[0] ?? '', ['--mount', 'true']).status !== 0) this.skip();
      const domain = { hypervisor: { kind: 'qemu', accelerator: 'kvm', memory: '8MiB' } };
      const cluster = await clusterOf(cleanup, { domain });
      for (const host of ['alpha', 'beta'] as const) {
        const agent = await Agent.start(cleanup, host, cluster, without);
        const said = /accelerator: tcg.*"key":"accelerator"|"key":"accelerator".*accelerator: tcg/;
        await until('it says so', () => agent.says(said).length > 0, 30_000);
      }
    });
  });

  describe('a tap', () => {
    const tap = `romulus${process.pid % 100_000}`;
    const withTap = (): QemuConfig => ({
      ...config,
      network: [{ id: 'lan', backend: { kind: 'tap', interface: tap } }],
    });
    const ip = (...args: string[]) => spawnSync('ip', args).status === 0;
    const made = (context: Mocha.Context, ...kind: string[]): void => {
      if (!ip('tuntap', 'add', tap, 'mode', ...kind)) context.skip();
      cleanup.add(() => ip('link', 'delete', tap));
    };

    it('with many queues is named, with the commands that make it right', async function () {
      made(this, 'tap', 'multi_queue');
      const error = await expectCode(openQemuSource(withTap()), 'BAD_CONFIGURATION', 'multi_queue');
      expect(error.message).to.include(`ip tuntap add ${tap} mode tap`);
      expect(error.facts).to.include({ key: 'tap', value: tap });
      ip('link', 'delete', tap);
      ip('tuntap', 'add', tap, 'mode', 'tap');
      await (await openQemuSource(withTap())).destroy();
    });

    it('that is a tun is named', async function () {
      made(this, 'tun');
      await expectCode(openQemuSource(withTap()), 'BAD_CONFIGURATION', 'is a tun');
    });

    it('that is another kind of interface is named', async function () {
      if (!ip('link', 'add', tap, 'type', 'bridge')) this.skip();
      cleanup.add(() => ip('link', 'delete', tap));
      await expectCode(openQemuSource(withTap()), 'BAD_CONFIGURATION', `${tap} is no tap`);
    });

    it('that another QEMU has is named', async function () {
      made(this, 'tap');
      const first = await openQemuSource(withTap());
      cleanup.add(() => first.destroy());
      await expectCode(openQemuSource(withTap()), 'BAD_CONFIGURATION', 'another program has the tap');
    });
  });

  describe('a monitor', () => {
    const attach = (monitor: string) => attachQemuSource({ name: 'test', monitor });

    it('that another client has is told within seconds, again and again', async () => {
      const qemu = await StrangeQemu.start();
      cleanup.add(() => qemu.kill());
      await qemu.ask(async () => {
        // Later ones find more of them waiting than QEMU lets wait.
        for (let attempt = 0; attempt < 4; attempt++) {
          const error = await expectCode(attach(qemu.monitor), 'BAD_CONFIGURATION', 'one client at a time');
          expect(error.message).to.include('-qmp unix:');
        }
      });
    });

    it('of libvirt is told how to have a second one', async () => {
      const directory = path.join(await cleanup.directory(), 'libvirt/qemu/domain-1-web');
      await mkdir(directory, { recursive: true });
      const monitor = path.join(directory, 'monitor.sock');
      const clients: net.Socket[] = [];
      const server = net.createServer((client) => clients.push(client)).listen(monitor);
      cleanup.add(() => server.close());
      await once(server, 'listening');
      const error = await expectCode(attach(monitor), 'BAD_CONFIGURATION', "libvirt's own monitor");
      expect(error.message).to.include('<qemu:commandline>').and.include("<qemu:arg value='-qmp'/>");
      expect(error.facts).to.deep.equal({ key: 'monitor', value: monitor });
      for (const client of clients) client.destroy();
    });

    it('for people is told from one for programs', async () => {
      const monitor = path.join(await cleanup.directory(), 'hmp');
      const qemu = await StrangeQemu.start(['-monitor', `unix:${monitor},server=on,wait=off`]);
      cleanup.add(() => qemu.kill());
      await access(monitor);
      await expectCode(attach(monitor), 'BAD_CONFIGURATION', 'is no QMP monitor');
    });
  });
});
