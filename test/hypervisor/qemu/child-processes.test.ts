// We start a process while guest RAM is served by one that hangs: a child has copies of our descriptors until it runs its
// program, and what their closing waits for we would wait for, too.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { openQemuSource } from '../../../src/hypervisor/qemu/index.js';
import type { DirtyTracking } from '../../../src/hypervisor/qemu/memory/dirty.js';
import { FuseTracking } from '../../../src/hypervisor/qemu/memory/fuse/tracking.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { until } from '../../support/until.js';
import { Console, MIB } from '../support.js';
import { TEST_NAME, canTrack, needQemu, tickGuest } from './support.js';

/** Longer than a loaded machine takes to start a process, and far shorter than what hangs. */
const START_MS_MAX = 2000;
/** After it whoever hangs goes on, and a loop that waits for him; then the test fails. */
const RESCUE_SECONDS = 10;

describe('qemu: processes that are started while who serves guest RAM hangs', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    if (!(await canTrack('fuse'))) this.skip();
  });
  afterEach(async () => {
    await cleanup.run();
    await until('nothing is left', () => processesWith(TEST_NAME).length === 0, 10_000);
  });

  /** Somebody else lets it go on in the end, however we hang. Begun before: his start would hang, too. */
  function rescue(pid: number): void {
    const script = `sleep ${RESCUE_SECONDS}; kill -CONT ${pid}; sleep 5; kill -9 ${pid}`;
    const rescuer = spawn('sh', ['-c', script], { detached: true, stdio: 'ignore' });
    cleanup.add(() => {
      if (rescuer.exitCode === null && rescuer.pid !== undefined) process.kill(-rescuer.pid, 'SIGKILL');
    });
  }

  function serverOf(): number {
    const servers = processesWith(TEST_NAME).filter((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('fuse/process.js'),
    );
    expect(servers).to.have.length(1);
    return servers[0] ?? 0;
  }

  async function startMs(): Promise<number> {
    const before = performance.now();
    expect(await once(spawn('true', { stdio: 'ignore' }), 'exit')).to.deep.equal([0, null]);
    return performance.now() - before;
  }

  /** Its server is stopped, and `work` begun, which waits for it: a process starts and ends nevertheless. */
  async function startsMeanwhile(server: number, work: () => Promise<unknown>): Promise<void> {
    let worked = false;
    process.kill(server, 'SIGSTOP');
    try {
      const first = await startMs();
      const working = work().then(() => (worked = true));
      await sleep(100);
      const second = await startMs();
      expect(first).to.be.below(START_MS_MAX);
      expect(second).to.be.below(START_MS_MAX);
      // Somebody did have to wait: there was something to be flushed, and nobody to take it.
      expect(worked).to.equal(false);
      process.kill(server, 'SIGCONT');
      await working;
    } finally {
      process.kill(server, 'SIGCONT');
    }
  }

  it('a guest has written to it', async () => {
    const source = await openQemuSource(tickGuest({ dirty: 'fuse' }));
    cleanup.add(() => source.destroy());
    const screen = new Console(source);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    const server = serverOf();
    rescue(server);
    const { tracking }: { readonly tracking: DirtyTracking } = source.machine;
    await startsMeanwhile(server, () => tracking.check());
  });

  it('we write to it', async () => {
    const tracking = await FuseTracking.open(MIB, TEST_NAME);
    cleanup.add(() => tracking.close());
    const frames = Uint32Array.of(3, 4, 200);
    const write = (): Promise<void> =>
      tracking.ram.write(frames, frames.length, Buffer.alloc(frames.length * PAGE_SIZE, 7));
    await write();
    const server = serverOf();
    rescue(server);
    await startsMeanwhile(server, async () => {
      await write();
      await tracking.check();
    });
  });
});
