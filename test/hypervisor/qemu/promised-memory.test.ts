// Memory that is promised is there: the place of guest RAM is too small, is filled by others, its pages are taken away
// under it, or who serves it dies. Whoever promised knows it before the hello, or as soon as it is so; never at a takeover.

import { execFileSync } from 'node:child_process';
import { statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import type { HypervisorError } from '../../../src/hypervisor/port.js';
import type { DirtyTracking } from '../../../src/hypervisor/qemu/memory/dirty.js';
import { FuseTracking } from '../../../src/hypervisor/qemu/memory/fuse/tracking.js';
import {
  attachQemuSource,
  openQemuSource,
  openQemuTarget,
  type DirtyWay,
  type QemuConfig,
  type QemuSource,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import { openTracking } from '../../../src/hypervisor/qemu/memory/tracking.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Cleanup } from '../../support/cleanup.js';
import { isAlive, processesWith } from '../../support/processes.js';
import { Tmpfs } from '../../support/tmpfs.js';
import { until } from '../../support/until.js';
import { Console, MIB, expectCode, firstEvent } from '../support.js';
import { PATIENCE_MS, PrimaryOf, SecondaryOf, expectContinuation } from './pair.js';
import { StrangeQemu } from './stranger.js';
import { Replicator, TEST_NAME, canTrack, needQemu, ramOf, tickGuest } from './support.js';

const WAYS: readonly DirtyWay[] = ['fuse', 'compare'];

describe('qemu: promised memory', function () {
  const cleanup = new Cleanup();
  let hasFuse = false;
  before(async function () {
    await needQemu(this);
    hasFuse = await canTrack('fuse');
  });
  afterEach(async () => {
    await cleanup.run();
    await until('no process is left', () => !processesWith(TEST_NAME).some(isAlive));
  });

  /** What it holds is checked to be gone at the end. */
  async function tmpfs(context: Mocha.Context, size: string): Promise<Tmpfs> {
    const made = (await Tmpfs.open(size)) ?? context.skip();
    const { freeBytes } = made;
    cleanup.add(async () => {
      await until('nothing is left in the file system', () => made.freeBytes === freeBytes);
      await made.close();
    });
    return made;
  }

  async function source(changes: Partial<QemuConfig>): Promise<QemuSource> {
    const domain = await openQemuSource(tickGuest(changes));
    cleanup.add(() => domain.destroy());
    return domain;
  }

  async function target(changes: Partial<QemuConfig>): Promise<QemuTarget> {
    const domain = await openQemuTarget(tickGuest(changes));
    cleanup.add(() => domain.destroy());
    return domain;
  }

  for (const way of WAYS) {
    const needs = (context: Mocha.Context): void => {
      if (way === 'fuse' && !hasFuse) context.skip();
    };

    it(`is refused on both sides where it has no room, with both sizes: ${way}`, async function () {
      needs(this);
      const { directory } = await tmpfs(this, '64m');
      const config = tickGuest({ memoryBytes: 128 * MIB, memoryDirectory: directory, dirty: way });
      for (const open of [openQemuSource, openQemuTarget]) {
        const error = await expectCode(open(config), 'OUT_OF_MEMORY', '128 MiB');
        expect(error.message).to.include('64 MiB are free').and.include(`remount,size=SIZE ${directory}`);
        expect(error.facts).to.deep.include({ directory, needed: 128 * MIB, free: 64 * MIB });
      }
    });

    it(`is refused where others have filled its place: ${way}`, async function () {
      needs(this);
      const place = await tmpfs(this, '20m');
      const changes: Partial<QemuConfig> = { memoryDirectory: place.directory, dirty: way };
      const restore = place.fill();
      cleanup.add(restore);
      await expectCode(target(changes), 'OUT_OF_MEMORY', 'where 0 MiB are free');
    });

    it(`is kept when others fill its place later, and taken over to: ${way}`, async function () {
      needs(this);
      const place = await tmpfs(this, '20m');
      const standby = await target({ memoryDirectory: place.directory, dirty: way });
      cleanup.add(place.fill());
      const domain = await source({ dirty: way });
      const before = new Console(domain);
      const after = new Console(standby);
      await domain.start();
      await before.until(() => before.ticks().length >= 2);
      const replicator = new Replicator(domain, standby);
      await replicator.begin();
      let ram = Buffer.alloc(0) as Buffer;
      await replicator.checkpoint(() => (ram = ramOf(domain)));
      await standby.machine.tracking.check();
      expect(ramOf(standby).equals(ram)).to.equal(true);
      await domain.destroy();
      await standby.start();
      await after.until(() => after.ticks().length >= 3);
      expect(before.text + after.text).to.not.include('BAD');
    });

    it(`is given up while it is reserved: ${way}`, async function () {
      needs(this);
      const { directory } = await tmpfs(this, '600m');
      const config = tickGuest({ memoryBytes: 512 * MIB, memoryDirectory: directory, dirty: way });
      const interruption = new AbortController();
      const opening = openQemuTarget(config, interruption.signal);
      setImmediate(() => interruption.abort());
      await expectCode(opening, 'FAILED', 'interrupted');
    });
  }

  it('is refused where the file system is larger than the host’s memory', async function () {
    const { directory } = await tmpfs(this, '2t');
    const opening = openTracking(
      { name: TEST_NAME, memoryBytes: 2 ** 40, memoryDirectory: directory, dirty: 'compare' },
      { standby: true },
    );
    await expectCode(opening, 'OUT_OF_MEMORY', 'needs 1048576 MiB of memory, and this host has');
  });

  it('is asked for of a QEMU that was started by others', async function () {
    const place = await tmpfs(this, '20m');
    const folder = join(await cleanup.directory(), 'memory'); // a file below /proc is refused
    symlinkSync(place.directory, folder);
    const qemu = await StrangeQemu.start([], 'shared', folder);
    cleanup.add(() => qemu.kill());
    const attach = () => attachQemuSource({ name: 'test', monitor: qemu.monitor, serial: qemu.serial });
    const domain = await attach();
    const screen = new Console(domain);
    await screen.until(() => screen.ticks().length >= 3); // it has touched all that it will
    await domain.destroy();
    const release = place.fill();
    cleanup.add(release);
    const error = await expectCode(attach(), 'OUT_OF_MEMORY', 'prealloc=on');
    expect(error.facts['free']).to.equal(0);
    expect(error.facts['needed']).to.be.greaterThan(0);
    release();
    await (await attach()).destroy();
    expect(await qemu.isRunning()).to.equal(true);
  });

  it('is lost with who serves it: the standby knows, and for ever', async function () {
    if (!hasFuse) return this.skip();
    const place = await tmpfs(this, '20m');
    const standby = await target({ memoryDirectory: place.directory, dirty: 'fuse' });
    const ended = firstEvent(standby);
    await replicateInto(standby);
    process.kill(serverIn(place), 'SIGKILL');
    const { kind, ...rest } = await ended;
    expect([kind, 'reason' in rest && rest.reason]).to.deep.equal([
      'crashed',
      'guest RAM is lost: the process that serves it has ended',
    ]);
    await expectLost(standby.machine.tracking, 'has ended');
  });

  it('is lost when a page cannot be kept: who writes it is told why, and who asks, for ever', async function () {
    if (!hasFuse) return this.skip();
    const place = await tmpfs(this, '20m');
    const standby = await target({ memoryDirectory: place.directory, dirty: 'fuse' });
    const ended = firstEvent(standby);
    takePagesAway(place);
    await expectCode(replicateInto(standby), 'FAILED', 'ENOSPC');
    await expectLost(standby.machine.tracking, 'ENOSPC');
    expect(await ended)
      .to.have.property('reason')
      .that.includes('ENOSPC');
  });

  it('is lost on a primary: no later capture succeeds', async function () {
    if (!hasFuse) return this.skip();
    const place = await tmpfs(this, '20m');
    const source = await openQemuSource(
      tickGuest({ memoryDirectory: place.directory, dirty: 'fuse' }, 'pages=1024 dirty=1000 tick_ms=10'),
    );
    cleanup.add(() => source.destroy());
    const screen = new Console(source);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    const { tracking } = source.machine;
    await tracking.begin();
    takePagesAway(place);
    // So many pages that they are flushed before the pause. They are in the page cache: nobody is told yet.
    const ticks = screen.ticks().length;
    await screen.until(() => screen.ticks().length > ticks + 2);
    await expectCode(tracking.prepare(), 'FAILED', 'ENOSPC');
    // The kernel has told it, and tells nobody again.
    await expectCode(tracking.capture(), 'FAILED', 'ENOSPC');
    await expectCode(tracking.begin(), 'FAILED', 'ENOSPC');
    await expectLost(tracking, 'ENOSPC');
  });

  it('does not count as lost when it is given back', async function () {
    if (!hasFuse) return this.skip();
    const tracking = await FuseTracking.open(MIB, TEST_NAME);
    let lost: HypervisorError | null = null;
    void tracking.lost.then((error) => (lost = error));
    await tracking.check();
    await tracking.close();
    await new Promise((resolve) => setImmediate(resolve));
    expect(lost).to.equal(null);
  });

  it('of a standby is lost: another one is filled, and the guest is protected again', async function () {
    if (!hasFuse) return this.skip();
    const place = await tmpfs(this, '40m'); // for the one that is there, and for the next
    const { primary, secondary } = await pair({}, { memoryDirectory: place.directory });
    await primary.progress(3);
    process.kill(serverIn(place), 'SIGKILL');
    await until('noticed', () => secondary.losses.length === 1, PATIENCE_MS);
    expect(secondary.losses[0]?.reason).to.include('guest RAM is lost');
    await until('the next one', () => secondary.targets.length === 2, PATIENCE_MS);
    await until('protected', () => secondary.status().link === 'replicating', PATIENCE_MS);
    await primary.progress(3);
    expect(secondary.failovers).to.deep.equal([]);
  });

  it('of a primary is lost: its stream ends, and the standby takes over', async function () {
    if (!hasFuse) return this.skip();
    const place = await tmpfs(this, '20m');
    const { primary, secondary } = await pair({ memoryDirectory: place.directory }, {});
    await primary.progress(3);
    takePagesAway(place);
    await secondary.active();
    expect(primary.was('failed') || primary.was('fenced')).to.equal(true);
    await expectContinuation(primary, secondary);
  });

  async function replicateInto(standby: QemuTarget): Promise<void> {
    const frames = Uint32Array.from({ length: 64 }, (_, pfn) => pfn);
    await standby.populate(frames, frames.length, new Uint32Array(frames.length));
    await standby.writePages(frames, frames.length, Buffer.alloc(frames.length * PAGE_SIZE, 1));
  }

  async function expectLost(tracking: DirtyTracking, text: string): Promise<void> {
    await expectCode(tracking.check(), 'FAILED', text);
    await expectCode(tracking.check(), 'FAILED', text);
    expect((await tracking.lost).message).to.include(text);
  }

  async function pair(
    onPrimary: Partial<QemuConfig>,
    onSecondary: Partial<QemuConfig>,
  ): Promise<{ primary: PrimaryOf; secondary: SecondaryOf }> {
    const primary = new PrimaryOf(tickGuest({ dirty: 'fuse', ...onPrimary }));
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const secondary = new SecondaryOf(primary, tickGuest({ dirty: 'fuse', ...onSecondary }));
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    return { primary, secondary };
  }

  /** The process that serves the RAM that lies there. */
  function serverIn({ directory }: Tmpfs): number {
    const { dev } = statSync(directory);
    const servers = processesWith('fuse/process.js').filter(
      (pid) => statSync(`/proc/${pid}/fd/4`).dev === dev,
    );
    const [pid] = servers;
    if (pid === undefined || servers.length > 1) throw new Error(`not one server: ${servers.join(', ')}`);
    return pid;
  }

  /** What was reserved is taken away, and others fill the place. */
  function takePagesAway(place: Tmpfs): void {
    const image = `/proc/${serverIn(place)}/fd/4`;
    execFileSync('fallocate', ['--punch-hole', '--offset', '0', '--length', String(16 * MIB), image]);
    cleanup.add(place.fill());
  }
});
