// The thread that serves: it waits in read(2) on /dev/fuse, and so takes no messages; all that it shares with the rest
// is the image and the marks. It ends when the file system is gone (ENODEV), which is when nobody holds the file any
// more; it closes the device, so that nobody waits for an answer that will not come.

import { closeSync, readSync, writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { codeOf } from '../../../errors.js';
import { Marks } from '../dirty.js';
import { RamImage } from '../image.js';
import { RamFileServer } from './server.js';

export interface FuseStart {
  readonly deviceFd: number;
  readonly image: readonly SharedArrayBuffer[];
  readonly marks: SharedArrayBuffer;
}

/** What a read or a write on the device may fail with, and it goes on: the request was given up by who made it. */
const PASSING = new Set(['EINTR', 'EAGAIN', 'ENOENT']);

function serve({ deviceFd, image: memory, marks }: FuseStart): void {
  const image = new RamImage(memory);
  const server = new RamFileServer(image, new Marks(image.bytes / 4096, marks));
  for (;;) {
    try {
      const length = readSync(deviceFd, server.request, 0, server.request.length, null);
      const answer = server.serve(length);
      if (answer > 0) writeSync(deviceFd, server.answer, 0, answer, null);
    } catch (error) {
      const code = codeOf(error);
      if (code === 'ENODEV') return;
      if (!PASSING.has(code)) throw error;
    }
  }
}

const start = workerData as FuseStart;
try {
  serve(start);
} finally {
  closeSync(start.deviceFd);
}
