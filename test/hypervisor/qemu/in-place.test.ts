// Device states loaded in place: a standby that has loaded a checkpoint on trial is the guest, in RAM and in devices; what
// only one QEMU can have is never wanted by two; and what is held is never lost by a trial, or a takeover, that fails.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { Domain } from '../../../src/hypervisor/port.js';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuSource,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import { splitState } from '../../../src/hypervisor/qemu/state/memory-section.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { Console, MIB, expectCode } from '../support.js';
import { qemus } from './pair.js';
import { Replicator, TEST_NAME, needQemu, ramOf, tickGuest } from './support.js';
import { times } from '../../support/length.js';

const CHECKPOINTS = times(50, 200);
const PORT = 'listen=127.0.0.1:';

/** Two hundred loads, each a few tenths of a second on a busy machine. */
const LOADS_LIMIT_MS = 240_000;

describe('qemu: states loaded in place', function () {
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });
  const keep = <T extends Domain>(domain: T): T => {
    cleanup.add(() => domain.destroy());
    return domain;
  };
  function folder(): string {
    const path = mkdtempSync(join(tmpdir(), 'romulus-in-place-'));
    cleanup.add(() => rmSync(path, { recursive: true }));
    return path;
  }

  async function running(config: QemuConfig): Promise<QemuSource> {
    const source = keep(await openQemuSource(config));
    const screen = new Console(source);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    return source;
  }

  /** Begins a stream, and takes its first checkpoint. */
  async function protectedBy(source: QemuSource, target: QemuTarget): Promise<Replicator> {
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await replicator.checkpoint();
    return replicator;
  }

  async function ticks(target: QemuTarget, screen: Console): Promise<void> {
    await target.start();
    await screen.until(() => screen.ticks().length >= 3);
    expect(screen.text).to.not.include('BAD');
  }

  it(`the standby is the guest, in RAM and devices, after each of ${CHECKPOINTS} loads`, async function () {
    this.timeout(LOADS_LIMIT_MS);
    const config = tickGuest({
      network: [{ id: 'net0', backend: { kind: 'user', options: 'restrict=on' } }],
      arguments: ['-rtc', 'clock=vm'], // the host's goes on between the two savings
      trialLoads: 'each',
    });
    const source = await running(config);
    const target = keep(await openQemuTarget(config));
    let context = new Uint8Array(0);
    const checkpoint = target.checkpoint.bind(target);
    target.checkpoint = (given) => checkpoint((context = new Uint8Array(given)));
    const replicator = new Replicator(source, target);
    await replicator.begin();
    for (let epoch = 0; epoch < CHECKPOINTS; epoch++) {
      let ram: Uint8Array = Buffer.alloc(0);
      await replicator.checkpoint(() => (ram = ramOf(source)));
      expect(ramOf(target).equals(ram), `RAM at checkpoint ${epoch}`).to.equal(true);
      const { deviceState, qmp } = target.machine;
      deviceState.clear();
      await qmp.execute('xen-save-devices-state', { filename: deviceState.path, live: false });
      const { devices } = splitState(context);
      const saved = splitState(deviceState.read()).devices;
      expect(Buffer.compare(saved, devices), `devices at checkpoint ${epoch}`).to.equal(0);
      await sleep(Math.random() * 10); // any moment will do
    }
    const screen = new Console(target);
    await ticks(target, screen);
  });

  it('what a reset writes into RAM is what the guest made of it', async () => {
    const image = join(folder(), 'image');
    writeFileSync(image, Buffer.alloc(10_000, 0x5a));
    // In the midst of what the guest rewrites: it would find a page that is not its own.
    const config = tickGuest({
      arguments: ['-device', `loader,file=${image},addr=0x180000,force-raw=on`],
      trialLoads: 'each',
    });
    const source = await running(config);
    const target = keep(await openQemuTarget(config));
    const replicator = await protectedBy(source, target);
    for (let epoch = 0; epoch < 5; epoch++) {
      let ram: Uint8Array = Buffer.alloc(0);
      await replicator.checkpoint(() => (ram = ramOf(source)));
      expect(ramOf(target).equals(ram)).to.equal(true);
    }
    // Another QEMU resets the machine when it is started.
    for (const pid of qemus('standby')) process.kill(pid, 'SIGKILL');
    let ram: Uint8Array = Buffer.alloc(0);
    await replicator.checkpoint(() => (ram = ramOf(source)));
    expect(ramOf(target).equals(ram)).to.equal(true);
    await source.destroy();
    await ticks(target, new Console(target));
  });

  describe('what only one can have', () => {
    // A port that QEMU listens on: a second one is refused.
    const config = (port: number): QemuConfig =>
      tickGuest(
        {
          memoryBytes: 8 * MIB,
          network: [{ id: 'lan', backend: { kind: 'socket', options: `${PORT}${port}` } }],
        },
        SMALL,
      );
    const SMALL = 'pages=64 dirty=8 tick_ms=10';

    it('is the held one’s, until another one has a checkpoint', async () => {
      const source = await running(config(27_411));
      const held = keep(await openQemuTarget(config(27_412)));
      const screen = new Console(held);
      const first = await protectedBy(source, held);
      await first.checkpoint();
      const filling = keep(await held.another());
      const [before] = qemus('standby');
      expect(qemus('standby')).to.deep.equal([before]);
      await source.disableLogDirty();
      const second = new Replicator(source, filling);
      await second.begin();
      expect(qemus('standby'), 'filled without a QEMU').to.deep.equal([before]);
      await second.checkpoint();
      const [after, ...more] = qemus('standby');
      expect(more).to.deep.equal([]);
      expect(after).to.not.equal(before);
      // The older one is dropped, and the new one is what there is.
      await held.destroy();
      await second.checkpoint();
      await source.destroy();
      expect(screen.text).to.equal('');
      await ticks(filling, new Console(filling));
    });

    it('comes back to the held one when the other one is dropped', async () => {
      const source = await running(config(27_421));
      const held = keep(await openQemuTarget(config(27_422)));
      const first = await protectedBy(source, held);
      await first.checkpoint();
      const filling = keep(await held.another());
      await source.disableLogDirty();
      const second = new Replicator(source, filling);
      await second.begin();
      await second.checkpoint();
      await filling.destroy();
      await source.destroy();
      await ticks(held, new Console(held));
      await expectCode(filling.start(), 'DOMAIN_GONE');
    });
  });

  it('a disk that the primary has open is opened when the domain is taken over', async () => {
    const disk = join(folder(), 'disk');
    writeFileSync(disk, Buffer.alloc(MIB));
    const config = tickGuest(
      {
        memoryBytes: 8 * MIB,
        arguments: ['-drive', `file=${disk},format=raw,if=virtio,id=disk`],
        sharedDisks: ['disk'],
      },
      'pages=64 dirty=8 tick_ms=10',
    );
    const source = await running(config);
    const target = keep(await openQemuTarget(config));
    expect((await target.info()).inventory).to.deep.equal((await source.info()).inventory);
    expect(qemus('standby')).to.deep.equal([]);
    const replicator = await protectedBy(source, target);
    await replicator.checkpoint();
    // As long as the primary's QEMU has it, nobody else can: an error, and nothing is lost.
    await expectCode(target.start(), 'BAD_CONFIGURATION', 'lock');
    await source.destroy();
    await ticks(target, new Console(target));
  });
});
