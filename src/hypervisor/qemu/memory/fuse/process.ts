// The process that serves guest RAM. It is a process and not a thread of ours because the kernel must be able to end us:
// somebody who is killed while he waits for a file system is only gone when the file system has answered, and a process
// that serves what it waits for would wait for ever. This one uses nothing of what it serves.
//
//   fd 0  a line: the file system is mounted, begin     fd 3  /dev/fuse     fd 4  the image     fd 5  the log of writes
//
// A page that cannot be written ends it: nobody would believe its answer, and everybody sees its end.
//
// It ends when the file system is gone (ENODEV), which is when nobody holds its files any more: after QEMU and we have
// ended, however that was.

import { readSync, writeSync } from 'node:fs';
import { asError, codeOf } from '../../../../errors.js';
import { heedNoSignals } from '../../process/exit-hooks.js';
import { RamFileServer, type ImageStore } from './server.js';
import { WriteLogWriter } from './write-log.js';

const DEVICE_FD = 3;
const IMAGE_FD = 4;
const LOG_FD = 5;

/** What a read or a write on the device may fail with, and it goes on: the request was given up by who made it. */
const PASSING = new Set(['EINTR', 'EAGAIN', 'ENOENT']);

class FileStore implements ImageStore {
  constructor(readonly bytes: number) {}

  get(at: number, to: Uint8Array): void {
    for (let done = 0; done < to.length;) {
      const count = readSync(IMAGE_FD, to, done, to.length - done, at + done);
      if (count === 0) throw new Error('the image ends too early');
      done += count;
    }
  }

  set(data: Uint8Array, at: number): void {
    for (let done = 0; done < data.length;) {
      done += writeSync(IMAGE_FD, data, done, data.length - done, at + done);
    }
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
    serve(Number(process.argv[2]));
  } catch (error) {
    writeSync(2, `it cannot be served any more: ${asError(error).message}\n`);
    process.exitCode = 1;
  }
}
