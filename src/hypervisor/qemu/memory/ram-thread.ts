// The thread that waits for guest RAM (see ram-access.ts): it reads frames into the slab.

import { parentPort, workerData } from 'node:worker_threads';
import { asError } from '../../../errors.js';
import { readFrames } from './ram-file.js';

/** Pages that are read at a time. */
export const SLAB_PAGES = 256;

/** Both arrays are shared. */
export interface RamThreadStart {
  readonly fd: number;
  readonly frames: Uint32Array;
  readonly slab: Uint8Array;
}

export interface RamRequest {
  readonly count: number;
}

export interface RamAnswer {
  readonly error: string | null;
}

function access({ fd, frames, slab }: RamThreadStart, { count }: RamRequest): RamAnswer {
  try {
    readFrames(fd, frames, count, slab, 0);
    return { error: null };
  } catch (thrown) {
    const error = asError(thrown);
    return { error: error.cause instanceof Error ? error.cause.message : error.message };
  }
}

if (parentPort) {
  const port = parentPort;
  const start = workerData as RamThreadStart;
  port.on('message', (request: RamRequest) => port.postMessage(access(start, request)));
}
