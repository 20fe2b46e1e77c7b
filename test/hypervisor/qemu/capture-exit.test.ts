// What QEMU holds back when it ends in order is gone with it: a filter lets out what it holds when it is removed, but
// the guest is stopped by then, and nothing of a stopped guest is delivered.

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { expect } from 'chai';
import { openQemuSource, type QemuPrimary } from '../../../src/hypervisor/qemu/index.js';
import { until } from '../../service/world.js';
import { firstEvent, needQemu, processesWith, tickGuest } from './support.js';

const ends: [how: string, end: (domain: QemuPrimary) => unknown][] = [
  ['SIGTERM', () => signal('SIGTERM')],
  ['SIGINT', () => signal('SIGINT')],
  ['quit', (domain) => domain.machine.qmp.execute('quit').catch(() => undefined)],
];
const NAME = `exit-${process.pid}`;

function signal(name: NodeJS.Signals): void {
  for (const pid of processesWith(NAME)) process.kill(pid, name);
}

describe('qemu: what is held when QEMU ends', function () {
  before(function () {
    return needQemu(this);
  });

  for (const [how, end] of ends) {
    it(`is not let out: ${how}`, async () => {
      const world = createSocket('udp4');
      let frames = 0;
      world.on('message', () => frames++);
      world.bind(0, '127.0.0.1');
      await once(world, 'listening');
      const network = [
        {
          id: 'lan',
          backend: { kind: 'socket', options: `udp=127.0.0.1:${world.address().port},localaddr=127.0.0.1:0` },
        },
      ] as const;
      const domain = await openQemuSource(tickGuest({ name: NAME, dirty: 'compare', network }));
      try {
        const [gate] = domain.gates;
        await domain.start(); // with the gate's own test
        await until('the frame of the test', () => frames === 1);
        const speak = () =>
          domain.machine.qmp.execute('announce-self', { initial: 1, max: 1, rounds: 1, step: 1 });
        await speak();
        await domain.suspend();
        await gate?.seal(0);
        await domain.resume();
        await speak();
        const ended = firstEvent(domain);
        await end(domain);
        await ended;
        await domain.machine.gone;
        await new Promise((resolve) => setTimeout(resolve, 20)); // what was sent is here by then
        expect(frames).to.equal(1);
      } finally {
        await domain.destroy();
        world.close();
        await once(world, 'close');
      }
    });
  }
});
