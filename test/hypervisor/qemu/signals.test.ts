// Signals to the processes that an agent has: whoever ends a whole group of them (a terminal, a service manager) sends
// them to those, too. They end with what they serve, not before.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { openQemuSource } from '../../../src/hypervisor/qemu/index.js';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Cleanup } from '../../support/cleanup.js';
import { isAlive, processesWith } from '../../support/processes.js';
import { until } from '../../support/until.js';
import { Console } from '../support.js';
import { StrangeQemu } from './stranger.js';
import { TEST_NAME, canTrack, needQemu, tickGuest } from './support.js';

const AGENT = fileURLToPath(new URL('./agent.js', import.meta.url));
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

describe('qemu: signals to what an agent has started', function () {
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(() => cleanup.run());

  it('leave the server of guest RAM alone, and so the guest', async function () {
    if (!(await canTrack('fuse'))) return this.skip();
    const domain = await openQemuSource(tickGuest({ dirty: 'fuse' }));
    cleanup.add(() => domain.destroy());
    const screen = new Console(domain);
    const [server = 0, ...more] = processesWith('fuse/process.js').filter((pid) =>
      processesWith(TEST_NAME).includes(pid),
    );
    expect(more).to.deep.equal([]);
    await domain.start();
    await domain.enableLogDirty();
    for (const signal of SIGNALS) {
      process.kill(server, signal);
      const ticks = screen.ticks().length;
      await screen.until(() => screen.ticks().length > ticks + 2);
    }
    await domain.suspend();
    const { dirtyCount } = await domain.cleanLogDirty(new Bitmap(domain.machine.memoryBytes / PAGE_SIZE));
    expect(dirtyCount).to.be.greaterThan(0);
    expect(isAlive(server)).to.equal(true);
    await domain.destroy();
    await until('the server ends with the guest', () => !isAlive(server));
  });

  it('leave the guard of an attached guest alone: it does its work when the agent is killed', async () => {
    const qemu = await StrangeQemu.start();
    cleanup.add(() => qemu.kill());
    const agent = spawn(process.execPath, [AGENT, 'attach-suspended', qemu.monitor], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(agent.stdout, 'data');
    const ours = processesWith(qemu.monitor);
    const guards = processesWith('guard.js').filter((pid) => ours.includes(pid));
    expect(guards).to.have.length(1);
    for (const signal of SIGNALS) for (const guard of guards) process.kill(guard, signal);
    agent.kill('SIGKILL');
    await once(agent, 'close');
    await until('the guard has done its work', () => !qemu.isGuarded());
    expect(await qemu.isRunning()).to.equal(true);
  });
});
