// The process that serves guest RAM. It is a process and not a thread of ours because the kernel must be able to end us:
// somebody who is killed while he waits for a file system is only gone when the file system has answered, and a process
// that serves what it waits for would wait for ever. This one uses nothing of what it serves.
//
// A second thread stores pages that it is ordered to (store.ts).
//
// A page that cannot be written ends it: nobody would believe its answer, and everybody sees its end.
//
// It ends when the file system is gone (ENODEV), which is when nobody holds its files any more: after QEMU and we have
// ended, however that was.

import { readSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { asError, codeOf } from '../../../../errors.js';
import { heedNoSignals } from '../../process/exit-hooks.js';
import { readAt, writeAt } from '../positioned.js';
import { DEVICE_FD, IMAGE_FD, LOG_FD } from './descriptors.js';
import { RamFileServer, type ImageStore } from './server.js';
import { WriteLogWriter } from './write-log.js';

/** What a read or a write on the device may fail with, and it goes on: the request was given up by who made it. */
const PASSING = new Set(['EINTR', 'EAGAIN', 'ENOENT']);

class FileStore implements ImageStore {
  constructor(readonly bytes: number) {}

  get(at: number, to: Uint8Array): void {
    readAt(IMAGE_FD, to, 0, to.length, at);
  }

  set(data: Uint8Array, at: number): void {
    writeAt(IMAGE_FD, data, 0, data.length, at);
  }
}

function serve(bytes: number): void {
  const log = new WriteLogWriter(LOG_FD);
  const server = new RamFileServer(new FileStore(bytes), (page, pages) => log.append(page, pages));
  for (;;) {
    try {
      const length = readSync(DEVICE_FD, server.request, 0, server.request.length, null);
      const answer = server.serve(length);
      if (answer > 0) writeSync(DEVICE_FD, server.answer, 0, answer, null);
    } catch (error) {
      const code = codeOf(error);
      if (code === 'ENODEV') return;
      if (!PASSING.has(code)) throw error;
    }
  }
}

heedNoSignals();
/** Nobody said that the file system is mounted: it will not be. */
if (readSync(0, Buffer.alloc(1)) === 1) {
  try {
    new Worker(new URL('./store-thread.js', import.meta.url), { name: 'page store' });
    serve(Number(process.argv[2]));
  } catch (error) {
    writeSync(2, `it cannot be served any more: ${asError(error).message}\n`);
  }
  // At once: an exit waits for the other thread, which waits for orders.
  process.kill(process.pid, 'SIGKILL');
}
