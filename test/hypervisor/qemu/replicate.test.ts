// A real QEMU replicated into a real standby, both ways of dirty tracking: the guest goes on from the last checkpoint at
// the very next tick, and can be protected from there. That the standby's RAM is the guest's at each checkpoint is
// tested through the services (equality.test.ts).

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import {
  openQemuSource,
  openQemuTarget,
  type DirtyWay,
  type QemuConfig,
} from '../../../src/hypervisor/qemu/index.js';
import type { Domain } from '../../../src/hypervisor/port.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Console, MIB, expectCode, successiveTicksOf } from '../support.js';
import { Replicator, canTrack, needQemu, ramOf, tickGuest } from './support.js';

const CHECKPOINTS = 20;
const NETWORK: QemuConfig['network'] = [{ id: 'net0', backend: { kind: 'user', options: 'restrict=on' } }];

describe('qemu: a standby', function () {
  const domains: Domain[] = [];
  const keep = <T extends Domain>(domain: T): T => {
    domains.push(domain);
    return domain;
  };
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    for (const domain of domains.splice(0)) await domain.destroy();
  });

  for (const dirty of ['compare', 'fuse'] satisfies DirtyWay[]) {
    it(`goes on at the next tick after ${CHECKPOINTS} checkpoints, and is protected in its turn (${dirty})`, async function () {
      const config = tickGuest({ dirty, network: NETWORK });
      if (!(await canTrack(dirty))) return this.skip();
      const source = keep(await openQemuSource(config));
      const { tracking, trackingReason } = source.machine;
      expect([tracking.way, trackingReason]).to.deep.equal([dirty, 'configured']);
      const screen = new Console(source);
      const target = keep(await openQemuTarget(config));
      const targetScreen = new Console(target);
      expect((await source.info()).inventory).to.deep.equal((await target.info()).inventory);
      await source.start();
      await screen.untilText('tick 2 ok\n');
      const replicator = new Replicator(source, target);
      await replicator.begin();
      let said = 0;
      for (let epoch = 0; epoch < CHECKPOINTS; epoch++) {
        await replicator.checkpoint(() => (said = screen.text.length));
        await sleep(Math.random() * 20); // any moment will do: mid-check, mid-rewrite, mid-line
      }
      expect(replicator.dirtyPages.slice(1).some((count) => count >= 100)).to.equal(true);
      expect(Math.max(...replicator.dirtyPages.slice(5))).to.be.below(2000);
      await source.destroy();
      expect(targetScreen.text).to.equal('');
      await target.start();
      await targetScreen.until(() => targetScreen.ticks().length >= 5);
      // What the guest had said at the last checkpoint, and what it said from there, are what one guest would have said.
      const text = screen.text.slice(0, said) + targetScreen.text;
      expect(successiveTicksOf(text)[0]).to.equal(1);

      // And it can be protected from there: the standby is a source now.
      const third = keep(await openQemuTarget(config));
      const thirdScreen = new Console(third);
      const second = new Replicator(target.source(), third);
      await second.begin();
      for (let epoch = 0; epoch < 5; epoch++) {
        let ram: Uint8Array = Buffer.alloc(0);
        await second.checkpoint(() => (ram = ramOf(target)));
        expect(ramOf(third).equals(ram), `checkpoint ${epoch} of the second standby`).to.equal(true);
      }
      await target.destroy();
      await third.start();
      await thirdScreen.until(() => thirdScreen.ticks().length >= 3);
      expect(thirdScreen.text).to.not.include('BAD');
    });
  }

  it('follows the guest through a reset, on another machine type', async () => {
    const config = tickGuest({ machine: 'pc' });
    const source = keep(await openQemuSource(config));
    const screen = new Console(source);
    const target = keep(await openQemuTarget(config));
    await source.start();
    await screen.untilText('tick 3 ok\n');
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await replicator.checkpoint();
    const before = screen.text.length;
    await source.machine.qmp.execute('system_reset');
    await screen.until(() => screen.text.slice(before).includes('tick 2 ok\n'));
    let ram: Uint8Array = Buffer.alloc(0);
    await replicator.checkpoint(() => (ram = ramOf(source)));
    expect(ramOf(target).equals(ram)).to.equal(true);
    expect(await target.comparePages(Uint32Array.of(0, 256), 2, ram)).to.deep.equal([1]);
  });

  const cards: Record<string, readonly string[]> = {
    q35: ['virtio-net-pci', 'e1000', 'e1000e', 'rtl8139', 'vmxnet3'],
    microvm: ['virtio-net-device'],
  };
  for (const [machine, models] of Object.entries(cards)) {
    it(`goes on where the network cards have other ids (${machine})`, async () => {
      const config = (prefix: string): QemuConfig =>
        tickGuest({
          ...{ dirty: 'compare', machine, network: NETWORK },
          arguments: models.flatMap((model) => ['-device', `${model},id=${prefix}-${model}`]),
        });
      const source = keep(await openQemuSource(config('ours')));
      const target = keep(await openQemuTarget(config('theirs')));
      const targetScreen = new Console(target);
      expect((await source.info()).inventory).to.deep.equal((await target.info()).inventory);
      await source.start();
      const replicator = new Replicator(source, target);
      await replicator.begin();
      await replicator.checkpoint();
      await source.destroy();
      await target.start(); // the state was loaded, or it fails
      if (machine === 'microvm') return; // where this guest does not boot
      await targetScreen.until(() => targetScreen.ticks().length > 1);
      expect(targetScreen.text).to.not.include('BAD');
    });
  }

  it('finds the guest’s memory bad if pages are not what they were', async () => {
    const config = tickGuest({ dirty: 'compare' });
    const source = keep(await openQemuSource(config));
    const screen = new Console(source);
    const target = keep(await openQemuTarget(config));
    const targetScreen = new Console(target);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await replicator.checkpoint();
    const workingSet = 0x112000 / PAGE_SIZE;
    // Of one page it may be that the guest rewrites it before it looks: it does so with a tenth of them.
    for (let page = 100; page < 116; page++) await target.clearPage(workingSet + page);
    await target.start();
    await targetScreen.untilText(' BAD ');
  });

  it('refuses what a standby cannot do, with a reason', async () => {
    const target = keep(await openQemuTarget(tickGuest({ dirty: 'compare' })));
    const page = new Uint8Array(PAGE_SIZE).fill(7);
    await expectCode(target.start(), 'WRONG_STATE');
    await expectCode(target.writePages(Uint32Array.of(5), 1, page), 'NOT_POPULATED');
    await expectCode(target.populate(Uint32Array.of(4096), 1, new Uint32Array(1)), 'FRAME_OUT_OF_RANGE');
    await target.populate(Uint32Array.of(5), 1, new Uint32Array(1));
    await expectCode(target.writePages(Uint32Array.of(5, 5), 2, page), 'FAILED');
    await target.writePages(Uint32Array.of(5), 1, page);
    expect(await target.comparePages(Uint32Array.of(5), 1, page)).to.deep.equal([]);
    await expectCode(target.setEmulatorContext(Buffer.from('nonsense')), 'BAD_CONTEXT');
    await expectCode(
      target.setEmulatorContext(Buffer.from('QEVM\0\0\0\x02........')),
      'BAD_CONTEXT',
      'format',
    );
    await expectCode(target.setHvmParam({ index: 1n, value: 2n }), 'UNSUPPORTED');
    // A device state that is none of this machine's: QEMU says why, and nothing is lost by it.
    const setbacks: string[] = [];
    target.warnings$.subscribe((setback) => setbacks.push(setback));
    await target.setEmulatorContext(
      Buffer.from('QEVM\0\0\0\x03\x04\0\0\0\x01\x03foo\0\0\0\0\0\0\0\x01', 'latin1'),
    );
    await expectCode(target.start(), 'BAD_CONTEXT', 'foo');
    await expectCode(target.start(), 'BAD_CONTEXT', 'foo');
    expect(setbacks.join('\n')).to.include('foo');
    expect(await target.comparePages(Uint32Array.of(5), 1, page)).to.deep.equal([]);
    expect((await target.info()).state).to.equal('created');
  });

  it('saves a guest that is not logged: its pages as they are', async () => {
    const source = keep(
      await openQemuSource(
        tickGuest({ dirty: 'compare', memoryBytes: 8 * MIB }, 'pages=64 dirty=8 tick_ms=10'),
      ),
    );
    const screen = new Console(source);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    await source.suspend();
    const frames = Uint32Array.from({ length: (8 * MIB) / PAGE_SIZE }, (_, pfn) => pfn);
    const slab = new Uint8Array(new SharedArrayBuffer(8 * MIB));
    await source.copyPages(frames, frames.length, slab, 0);
    expect(ramOf(source).equals(slab)).to.equal(true);
    await expectCode(source.copyPages(frames, 2, new Uint8Array(PAGE_SIZE), 0), 'FAILED');
  });
});
