// Whoever serves the memory of a standby hangs: this process goes on with all else, and the standby is lost when its
// limit is over.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { expect } from 'chai';
import { codeOf } from '../../../src/errors.js';
import { FuseTracking } from '../../../src/hypervisor/qemu/memory/fuse/tracking.js';
import { ResetFrames } from '../../../src/hypervisor/qemu/memory/reset-frames.js';
import { Undo } from '../../../src/hypervisor/qemu/memory/undo.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { until } from '../../support/until.js';
import { MIB } from '../support.js';
import { PrimaryOf, SecondaryOf, PATIENCE_MS } from './pair.js';
import { TEST_NAME, canTrack, needQemu, tickGuest } from './support.js';

/** Longer than a loaded machine keeps us waiting, and far shorter than what hangs. */
const STALL_MS_MAX = 2000;
/** After it a test that is stalled goes on, to fail. */
const RESCUE_SECONDS = 30;

describe('qemu: the memory of a standby does not answer', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    if (!(await canTrack('fuse'))) this.skip();
  });
  afterEach(async () => {
    await cleanup.run();
    await until('nothing is left', () => processesWith(TEST_NAME).length === 0, 10_000);
  });

  function serverOf(): number {
    const servers = processesWith(TEST_NAME).filter((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('fuse/process.js'),
    );
    expect(servers).to.have.length(1);
    return servers[0] ?? 0;
  }

  /** Somebody else ends it in the end. Begun before: who starts a process has its files flushed. */
  function rescue(pid: number): void {
    const rescuer = spawn('sh', ['-c', `sleep ${RESCUE_SECONDS}; kill -9 ${pid}`], {
      detached: true,
      stdio: 'ignore',
    });
    cleanup.add(() => {
      if (rescuer.exitCode === null && rescuer.pid !== undefined) process.kill(-rescuer.pid, 'SIGKILL');
    });
  }

  /** The longest time for which nothing was done. */
  function watchStalls(): () => number {
    let longestMs = 0;
    let before = performance.now();
    const timer = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - before);
      before = performance.now();
    }, 20);
    cleanup.add(() => clearInterval(timer));
    return () => Math.max(longestMs, performance.now() - before);
  }

  const FRAMES = Uint32Array.of(3, 4, 200);

  const accesses: [string, (tracking: FuseTracking) => Promise<unknown>][] = [
    ['pages are kept to go back', ({ ram }) => new Undo(ram, 256, MIB).keep(FRAMES, FRAMES.length)],
    [
      'what a reset would write is kept',
      ({ ram }) => {
        const frames = new ResetFrames(ram);
        frames.learn(FRAMES);
        return frames.keep();
      },
    ],
    [
      'pages are written while it is asked whether they arrive',
      async (tracking) => {
        const write = (): Promise<void> =>
          tracking.ram.write(FRAMES, FRAMES.length, Buffer.alloc(FRAMES.length * PAGE_SIZE, 7));
        await write();
        tracking.check().catch(() => undefined); // told by `lost`
        await write();
        await tracking.check();
      },
    ],
  ];
  for (const [what, access] of accesses) {
    it(`${what}: waited for by nobody else, and an error once it is given up`, async () => {
      const tracking = await FuseTracking.open(MIB, TEST_NAME);
      cleanup.add(() => tracking.close());
      const server = serverOf();
      rescue(server);
      const longestStallMs = watchStalls();
      process.kill(server, 'SIGSTOP');
      let outcome: unknown = null;
      access(tracking).then(
        () => (outcome = 'done'),
        (error: unknown) => (outcome = error),
      );
      for (const end = performance.now() + 500; performance.now() < end;) await turn();
      expect(outcome).to.equal(null);
      expect(longestStallMs()).to.be.below(STALL_MS_MAX);
      tracking.abandon();
      await until('an error', () => outcome !== null, 10_000);
      expect(codeOf(outcome)).to.equal('FAILED');
    });
  }

  it('while it replicates: both sides hear one another, and another standby is filled in the end', async () => {
    const primary = new PrimaryOf(tickGuest({ dirty: 'compare' }));
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const secondary = new SecondaryOf(primary, tickGuest({ dirty: 'fuse' }));
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await primary.progress(10);
    const server = serverOf();
    rescue(server);
    const longestStallMs = watchStalls();
    process.kill(server, 'SIGSTOP');
    await until('the standby is lost', () => secondary.losses.length > 0, 20_000);
    expect(longestStallMs()).to.be.below(STALL_MS_MAX);
    expect(secondary.losses[0]).to.deep.include({ was: 'held', reason: 'its memory does not answer' });
    const downs = primary.transitions.filter(({ link }) => link === 'down').map(({ reason }) => reason);
    // Nothing is acknowledged meanwhile, but both sides hear one another.
    expect(downs).to.not.include('HEARTBEAT_TIMEOUT');
    await until('another one', () => secondary.targets.length === 2, PATIENCE_MS);
    await primary.progress(5);
    expect(secondary.failovers).to.deep.equal([]);
  });
});
