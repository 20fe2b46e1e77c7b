// Attaching to a QEMU that somebody else started: what it lacks is named, and whatever becomes of us, its guest goes on.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { attachQemuSource, openQemuTarget, type QemuSource } from '../../../src/hypervisor/qemu/index.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { StrangeQemu } from './stranger.js';
import { Console, expectCode, firstEvent } from '../support.js';
import { Replicator, needQemu, ramOf, tickGuest } from './support.js';

const AGENT = fileURLToPath(new URL('./agent.js', import.meta.url));

/** Of the device states of attached guests; whoever else uses this machine may have some. */
const directories = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('romulus-qemu-'));

describe('qemu: attached', function () {
  const cleanup = new Cleanup();
  let qemu: StrangeQemu;
  let others: ReadonlySet<string>;
  before(function () {
    others = new Set(directories());
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    const left = () => directories().filter((name) => !others.has(name));
    await until('the guards clean up', () => left().length === 0).catch((error: unknown) => {
      throw new Error(`there is still ${left().join(', ')}`, { cause: error });
    });
  });
  const start = async (memory?: Parameters<typeof StrangeQemu.start>[1]): Promise<void> => {
    const started = await StrangeQemu.start([], memory);
    cleanup.add(() => started.kill());
    qemu = started;
  };
  const attach = async (): Promise<QemuSource> => {
    const domain = await attachQemuSource({ name: 'test', monitor: qemu.monitor, serial: qemu.serial });
    cleanup.add(() => domain.destroy());
    return domain;
  };

  it('replicates, and lets go of a guest that runs', async () => {
    await start();
    const source = await attach();
    const screen = new Console(source);
    expect((await source.info()).state).to.equal('running');
    expect(source.machine.tracking.way).to.equal('compare');
    await screen.until(() => screen.ticks().length >= 2);
    const target = await openQemuTarget(tickGuest());
    cleanup.add(() => target.destroy());
    const targetScreen = new Console(target);
    const replicator = new Replicator(source, target);
    await replicator.begin();
    for (let epoch = 0; epoch < 5; epoch++) {
      let ram = Buffer.alloc(0) as Buffer;
      await replicator.checkpoint(() => (ram = ramOf(source)));
      expect(ramOf(target).equals(ram)).to.equal(true);
    }
    await source.suspend();
    await source.destroy();
    expect(await qemu.isRunning()).to.equal(true);
    await target.start();
    await targetScreen.until(() => targetScreen.ticks().length >= 3);
    expect(screen.text + targetScreen.text).to.not.include('BAD');
    // Once more, and now QEMU goes.
    const again = await attach();
    const event = firstEvent(again);
    await qemu.kill();
    expect(await event).to.deep.equal({
      kind: 'crashed',
      reason: 'the connection to QEMU’s monitor is lost',
    });
  });

  it('goes on if we are killed in mid-checkpoint; not if somebody else stopped it', async () => {
    await start();
    for (const [mode, expected] of [
      ['attach-suspended', true],
      ['attach-stopped', false],
    ] as const) {
      const agent = spawn(process.execPath, [AGENT, mode, qemu.monitor], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(agent.stdout, 'data');
      agent.kill('SIGKILL');
      await once(agent, 'close');
      await until('the guard has done its work', () => !qemu.isGuarded());
      expect(await qemu.isRunning(), mode).to.equal(expected);
    }
  });

  it('names what is missing', async () => {
    const nobody = attachQemuSource({ name: 'test', monitor: '/nonexistent/qmp' });
    await expectCode(nobody, 'BAD_CONFIGURATION', '-qmp unix:');
    await start('of its own');
    await expectCode(attach(), 'BAD_CONFIGURATION', '-object memory-backend-file');
    await start('not shared');
    await expectCode(attach(), 'BAD_CONFIGURATION', 'share');
    expect(await qemu.isRunning()).to.equal(true);
  });
});
