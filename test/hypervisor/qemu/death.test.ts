// However the process that has a QEMU ends, nothing of it is left: no QEMU, no mount, no file, and it ends at once.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { FuseTracking } from '../../../src/hypervisor/qemu/fuse/tracking.js';
import { MIB, needQemu, processesWith } from './support.js';

const AGENT = fileURLToPath(new URL('./agent.js', import.meta.url));
const END_LIMIT_MS = 5000;

function leftovers(): string[] {
  const files = ['/dev/shm', '/tmp'].flatMap((folder) =>
    readdirSync(folder).filter((name) => /^romulus-[0-9a-f]{8}-/.test(name)),
  );
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes('- fuse romulus'));
  return [...files, ...mounts, ...processesWith('romulus-ram').map((pid) => `process ${pid}`)];
}

describe('qemu: the end of an agent', function () {
  let hasFuse = false;
  before(async function () {
    await needQemu(this);
    try {
      await (await FuseTracking.open(MIB)).close();
      hasFuse = true;
    } catch (error) {
      if (!(error instanceof HypervisorError) || error.code !== 'UNSUPPORTED') throw error;
      console.log(`\n    SKIPPED: ${error.message}\n`);
    }
  });

  const ends: [mode: string, signal: NodeJS.Signals | null][] = [
    ['running', 'SIGKILL'],
    ['suspended', 'SIGKILL'],
    ['running', 'SIGTERM'],
    ['exit', null],
    ['throw', null],
  ];
  for (const way of ['fuse', 'compare']) {
    for (const [mode, signal] of way === 'fuse' ? ends : ends.slice(1, 4)) {
      it(`leaves nothing: ${way}, ${mode}${signal === null ? '' : `, ${signal}`}`, async function () {
        if (way === 'fuse' && !hasFuse) return this.skip();
        const agent = spawn(process.execPath, [AGENT, mode, way], { stdio: ['ignore', 'pipe', 'ignore'] });
        const closed = once(agent, 'close');
        await once(agent.stdout, 'data');
        expect(processesWith('romulus-ram').length).to.equal(1);
        const began = performance.now();
        if (signal !== null) agent.kill(signal);
        await closed;
        expect(performance.now() - began).to.be.below(END_LIMIT_MS);
        if (mode === 'exit') expect(agent.exitCode).to.equal(3);
        while (leftovers().length > 0 && performance.now() - began < END_LIMIT_MS) await sleep(10);
        expect(leftovers()).to.deep.equal([]);
      });
    }
  }

  it('takes the file system down with its last holder, and does not wait for it', async function () {
    if (!hasFuse) return this.skip();
    for (let k = 0; k < 5; k++) {
      const tracking = await FuseTracking.open(16 * MIB);
      await tracking.begin();
      await tracking.close();
      await tracking.close();
    }
    expect(leftovers()).to.deep.equal([]);
  });
});
