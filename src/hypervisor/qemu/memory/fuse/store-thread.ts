// The second thread of the process that serves guest RAM (process.ts): it stores what is ordered (store.ts), until whoever
// orders is gone. It uses nothing of what is served either.

import { readSync, writeSync } from 'node:fs';
import { asError, codeOf } from '../../../../errors.js';
import { readAt, writeAt } from '../positioned.js';
import { DEVICE_FD, IMAGE_FD, ORDERS_FD, SLAB_FD } from './descriptors.js';
import { ORDER_BYTES, PageStore } from './store.js';

function serve(): void {
  const store = new PageStore({
    image: (data, offset, length, position) => writeAt(IMAGE_FD, data, offset, length, position),
    device: (message, length) => writeSync(DEVICE_FD, message, 0, length, null),
  });
  const order = Buffer.alloc(ORDER_BYTES);
  for (;;) {
    if (readSync(ORDERS_FD, order) === 0) return;
    store.apply(order.readUInt32LE(), (into, offset, length, position) =>
      readAt(SLAB_FD, into, offset, length, position),
    );
    writeSync(ORDERS_FD, order, 0, 1);
  }
}

try {
  serve();
} catch (error) {
  // The file system is gone, or who ordered: nobody waits.
  if (!['ENODEV', 'EPIPE', 'ECONNRESET'].includes(codeOf(error))) {
    writeSync(2, `it cannot be served any more: ${asError(error).message}\n`);
    process.kill(process.pid, 'SIGKILL'); // the other thread waits for requests, and hears nothing
  }
}
