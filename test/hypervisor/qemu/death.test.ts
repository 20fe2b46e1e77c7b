// However the process that has a QEMU ends, nothing of it is left: no QEMU, no mount, no file, and it ends at once.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { FuseTracking } from '../../../src/hypervisor/qemu/memory/fuse/tracking.js';
import { openQemuSource } from '../../../src/hypervisor/qemu/index.js';
import { processesWith } from '../../support/processes.js';
import { MIB, expectCode } from '../support.js';
import { canTrack, needQemu, tickGuest } from './support.js';

const AGENT = fileURLToPath(new URL('./agent.js', import.meta.url));
const END_LIMIT_MS = 5000;
const NAME = `agent-${process.pid}`;

function leftovers(): string[] {
  const files = ['/dev/shm', '/tmp'].flatMap((folder) =>
    readdirSync(folder).filter((name) => /^romulus-[0-9a-f]{8}-/.test(name)),
  );
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes('- fuse romulus'));
  return [...files, ...mounts, ...processesWith(NAME).map((pid) => `process ${pid}`)];
}

function isServer(pid: number): boolean {
  return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('fuse/process.js');
}

/** The third field after the name (which may hold anything) in brackets. */
function groupOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]);
}

describe('qemu: the end of an agent', function () {
  let hasFuse = false;
  before(async function () {
    await needQemu(this);
    hasFuse = await canTrack('fuse');
  });

  const ends: [mode: string, signal: NodeJS.Signals | null][] = [
    ['running', 'SIGKILL'],
    ['suspended', 'SIGKILL'],
    ['loop', 'SIGKILL'],
    ['loop', 'SIGKILL'],
    ['loop', 'SIGKILL'],
    ['running', 'SIGTERM'],
    ['exit', null],
    ['throw', null],
  ];
  for (const way of ['fuse', 'compare']) {
    for (const [mode, signal] of way === 'fuse' ? ends : ends.slice(4, 7)) {
      it(`leaves nothing: ${way}, ${mode}${signal === null ? '' : `, ${signal}`}`, async function () {
        if (way === 'fuse' && !hasFuse) return this.skip();
        const agent = spawn(process.execPath, [AGENT, mode, NAME, way], {
          stdio: ['pipe', 'pipe', 'ignore'],
        });
        const closed = once(agent, 'close');
        await once(agent.stdout, 'data');
        // The agent, QEMU, and who serves its RAM.
        expect(processesWith(NAME).length).to.equal(way === 'fuse' ? 3 : 2);
        if (mode === 'loop') await sleep(Math.random() * 100); // any moment will do: mid-flush, mid-pause
        const began = performance.now();
        if (signal === null) agent.stdin.write('now');
        else agent.kill(signal);
        await closed;
        expect(performance.now() - began).to.be.below(END_LIMIT_MS);
        if (mode === 'exit') expect(agent.exitCode).to.equal(3);
        while (leftovers().length > 0 && performance.now() - began < END_LIMIT_MS) await sleep(10);
        expect(leftovers()).to.deep.equal([]);
      });
    }
  }

  it('is not what a terminal asks QEMU for: a Ctrl-C is for the agent alone', async () => {
    const agent = spawn(process.execPath, [AGENT, 'running', NAME, 'compare'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true, // a process group of its own, as a shell makes one
    });
    const closed = once(agent, 'close');
    try {
      await once(agent.stdout, 'data');
      expect(processesWith(NAME).length).to.equal(2);
      expect(processesWith(NAME).filter((pid) => groupOf(pid) === agent.pid)).to.deep.equal([agent.pid]);
    } finally {
      agent.kill('SIGKILL');
      await closed;
    }
    while (leftovers().length > 0) await sleep(10);
  });

  it('says so when who serves the RAM is killed, and ends as usual', async function () {
    if (!hasFuse) return this.skip();
    const domain = await openQemuSource(tickGuest({ name: NAME, dirty: 'fuse' }));
    try {
      await domain.start();
      await domain.enableLogDirty();
      for (const pid of processesWith(NAME).filter(isServer)) process.kill(pid, 'SIGKILL');
      const failed = (async () => {
        for (;;) {
          await domain.suspend();
          await domain.cleanLogDirty(new Bitmap(4096));
          await domain.resume();
        }
      })();
      // QEMU may end over it first.
      const error = await failed.catch((thrown: unknown) => thrown);
      expect(error)
        .to.be.instanceOf(HypervisorError)
        .with.property('code')
        .that.is.oneOf(['FAILED', 'DOMAIN_GONE']);
    } finally {
      await domain.destroy();
    }
    expect(leftovers()).to.deep.equal([]);
  });

  it('fails, and does not wait for ever, if who is to serve the RAM does not live to do it', async () => {
    if (!hasFuse) return;
    const before = process.env['NODE_OPTIONS'];
    process.env['NODE_OPTIONS'] = '--no-such-option';
    try {
      await expectCode(FuseTracking.open(MIB, NAME), 'FAILED', 'no-such-option');
    } finally {
      if (before === undefined) delete process.env['NODE_OPTIONS'];
      else process.env['NODE_OPTIONS'] = before;
    }
    expect(leftovers()).to.deep.equal([]);
  });

  it('takes the file system down with its last holder, and does not wait for it', async function () {
    if (!hasFuse) return this.skip();
    for (let k = 0; k < 5; k++) {
      const tracking = await FuseTracking.open(16 * MIB, NAME);
      await tracking.begin();
      await tracking.close();
      await tracking.close();
    }
    expect(leftovers()).to.deep.equal([]);
  });
});
