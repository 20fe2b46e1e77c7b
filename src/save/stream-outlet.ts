// Octets into a FIFO, a pipe or a socket, without blocking a thread: a reader that stalls, or a FIFO that nobody reads
// yet, must not keep Ctrl-C from working (a thread that is blocked in open or write keeps even process.exit waiting).

import { constants, open } from 'node:fs';
import { Socket, connect } from 'node:net';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { codeOf } from '../errors.js';
import type { Outlet } from './image-sink.js';
import type { Place } from './place.js';

/** Between two looks whether a FIFO is read. */
const READER_POLL_MS = 20;

/** @param signal ends the waiting, here and in each write */
export async function openStreamOutlet(place: Place, signal?: AbortSignal): Promise<Outlet> {
  const socket = await openSocket(place, signal);
  let failed: Error | null = null;
  socket.on('error', (error) => (failed ??= error));
  // What a reader says is not listened to.
  socket.resume();
  const onAbort = () => socket.destroy(signal?.reason as Error);
  signal?.addEventListener('abort', onAbort);
  return {
    write: (memory, start, length) =>
      new Promise((resolve, reject) => {
        if (failed !== null) {
          reject(failed);
          return;
        }
        socket.write(memory.subarray(start, start + length), (error) => {
          if (error) reject(signal?.aborted === true ? (signal.reason as Error) : (failed ?? error));
          else resolve(length);
        });
      }),
    // The last write was told when it had left; nobody says when it has been read.
    sync: () => Promise.resolve(),
    close: async () => {
      signal?.removeEventListener('abort', onAbort);
      if (place.fd !== null) {
        // Not ours to close; the process does when it ends.
        socket.pause();
        socket.unref();
      } else if (!socket.destroyed) {
        await new Promise<void>((resolve) => {
          socket.once('close', () => resolve());
          socket.end(() => socket.destroy());
        });
      }
    },
  };
}

async function openSocket({ kind, path, fd }: Place, signal?: AbortSignal): Promise<Socket> {
  if (fd !== null) return new Socket({ fd, readable: false, writable: true });
  if (kind === 'socket') {
    const socket = connect({ path });
    await once(socket, 'connect', signal === undefined ? {} : { signal });
    return socket;
  }
  return new Socket({ fd: await openFifo(path, signal), readable: false, writable: true });
}

/** A FIFO that nobody reads cannot be opened to be written without blocking: looked at again until somebody does. */
async function openFifo(path: string, signal?: AbortSignal): Promise<number> {
  for (;;) {
    signal?.throwIfAborted();
    try {
      // No FileHandle: the socket owns the descriptor.
      return await promisify(open)(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      if (codeOf(error) !== 'ENXIO') throw error;
    }
    await sleep(READER_POLL_MS);
  }
}
