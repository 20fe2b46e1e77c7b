// An agent to be killed: a process that has a QEMU and says when it is where it should be. One that ends by itself waits for a
// word before.
//
//   agent.js running | suspended | loop | exit | throw  NAME WAY      agent.js attach-suspended | attach-stopped  MONITOR

import { once } from 'node:events';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import { attachQemuSource, openQemuSource, type DirtyWay } from '../../../src/hypervisor/qemu/index.js';
import { tickGuest } from './support.js';

const [, , mode = '', argument = '', way = ''] = process.argv;

if (mode.startsWith('attach')) {
  const domain = await attachQemuSource({ name: 'agent', monitor: argument });
  if (mode === 'attach-suspended') await domain.suspend();
  else await domain.machine.qmp.execute('stop');
  process.stdout.write('there\n');
} else {
  const domain = await openQemuSource(
    tickGuest({ name: argument, dirty: way as DirtyWay }, 'pages=2048 dirty=2000 tick_ms=1'),
  );
  await domain.start();
  await domain.enableLogDirty();
  await domain.suspend();
  if (mode !== 'suspended') {
    await domain.cleanLogDirty(new Bitmap(4096));
    await domain.resume();
  }
  process.stdout.write('there\n');
  while (mode === 'loop') {
    await domain.prepareSuspend();
    await domain.suspend();
    await domain.cleanLogDirty(new Bitmap(4096));
    await domain.resume();
  }
  if (mode === 'exit' || mode === 'throw') await once(process.stdin, 'data');
  if (mode === 'exit') process.exit(3);
  if (mode === 'throw') {
    setImmediate(() => {
      throw new Error('thrown on purpose');
    });
  }
}
