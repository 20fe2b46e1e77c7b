// What QEMU holds back when it ends in order is gone with it: a filter lets out what it holds when it is removed, but
// the guest is stopped by then, and nothing of a stopped guest is delivered.

import { openQemuSource, type QemuPrimary } from '../../../src/hypervisor/qemu/index.js';
import { until } from '../../support/until.js';
import { processesWith } from '../../support/processes.js';
import { World, announce } from './outside.js';
import { firstEvent } from '../support.js';
import { TEST_NAME, needQemu, tickGuest } from './support.js';

const ends: [how: string, end: (domain: QemuPrimary) => unknown][] = [
  ['SIGTERM', () => signal('SIGTERM')],
  ['SIGINT', () => signal('SIGINT')],
  ['quit', (domain) => domain.machine.qmp.execute('quit').catch(() => undefined)],
];

function signal(name: NodeJS.Signals): void {
  for (const pid of processesWith(TEST_NAME)) process.kill(pid, name);
}

describe('qemu: what is held when QEMU ends', function () {
  before(function () {
    return needQemu(this);
  });

  for (const [how, end] of ends) {
    it(`is not let out: ${how}`, async () => {
      const world = await World.open();
      const domain = await openQemuSource(tickGuest({ dirty: 'compare', network: [world.card] }));
      try {
        const [gate] = domain.gates;
        await domain.start(); // with the gate's own test
        await until('the frame of the test', () => world.frames === 1);
        await announce(domain.machine.qmp);
        await domain.suspend();
        await gate?.seal(0);
        await domain.resume();
        await announce(domain.machine.qmp);
        const ended = firstEvent(domain);
        await end(domain);
        await ended;
        await domain.machine.gone;
        await world.heard(1);
      } finally {
        await domain.destroy();
        await world.close();
      }
    });
  }
});
