// Where the octets of a stream file come from, by what stands at its place. Pipes and sockets are read without blocking
// a thread, so that Ctrl-C works while a FIFO waits for its writer.
//
//   file, block device    read at any position
//   fifo, socket          the next ones, once;  twice ──▶ kept in a temporary file without a name
//   character device      the next ones, once

import { randomBytes } from 'node:crypto';
import { constants, open as openDescriptor, read } from 'node:fs';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { RomulusError, codeOf } from '../../errors.js';
import { type Place, blockDeviceBytes } from '../../save/place.js';
import { UsageError } from '../exit-codes.js';

export interface OpenOptions {
  /** The file is read more than once: what cannot be is kept. */
  readonly twice?: boolean;
  /** Ends the reading of a pipe. */
  readonly signal?: AbortSignal;
}

export interface Octets {
  /** null: nobody knows, and only the next octets can be read. */
  readonly size: number | null;
  /** Reads some, at least one where there are any; `position` counts where there is a size. */
  read(target: Uint8Array, start: number, length: number, position: number): Promise<number>;
  close(): Promise<void>;
}

/** For people. */
export function nameOf(path: string): string {
  return path === '-' ? 'standard input' : path;
}

/** @throws Node's system error; UsageError for what no stream can come from */
export async function openOctets(place: Place, options: OpenOptions): Promise<Octets> {
  const { kind, path } = place;
  switch (kind) {
    case 'folder':
      throw new UsageError(`${path} is a folder`);
    case 'terminal':
      throw new UsageError(`${nameOf(path)} is a terminal: no stream comes from it`);
    case 'free':
    case 'file':
    case 'block':
      return openSeekable(place);
    case 'character':
      if (options.twice === true) throw new UsageError(`${path} is a device that cannot be read twice`);
      return openNext(place);
    case 'fifo':
    case 'socket': {
      const pipe = await openPipe(place, options.signal);
      return options.twice === true ? keep(pipe, path) : pipe;
    }
  }
}

async function openSeekable(place: Place): Promise<Octets> {
  const { kind, path, fd, stat } = place;
  const size = kind === 'block' && stat !== null ? await blockDeviceBytes(path, stat) : null;
  if (fd !== null && stat !== null) return readable(fd, size ?? stat.size, () => Promise.resolve());
  const file = await open(path, 'r');
  return readable(file.fd, size ?? (await file.stat()).size, () => file.close());
}

async function openNext({ path, fd }: Place): Promise<Octets> {
  if (fd !== null) return readable(fd, null, () => Promise.resolve());
  const file = await open(path, constants.O_RDONLY | constants.O_NOCTTY);
  return readable(file.fd, null, () => file.close());
}

function readable(fd: number, size: number | null, close: () => Promise<void>): Octets {
  return {
    size,
    read: async (target, start, length, position) => {
      const at = size === null ? null : position;
      return (await promisify(read)(fd, target, start, length, at)).bytesRead;
    },
    close,
  };
}

async function openPipe({ kind, path, fd }: Place, signal?: AbortSignal): Promise<Octets> {
  const socket =
    kind === 'socket' && fd === null
      ? connect({ path })
      : new Socket({
          fd: fd ?? (await promisify(openDescriptor)(path, constants.O_RDONLY | constants.O_NONBLOCK)),
          readable: true,
          writable: false,
        });
  const onAbort = (): void => {
    socket.destroy(signal?.reason as Error);
  };
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted === true) onAbort();
  const chunks: AsyncIterator<Buffer> = socket.iterator({ destroyOnReturn: true });
  let chunk: Uint8Array = new Uint8Array(0);
  return {
    size: null,
    read: async (target, start, length) => {
      if (chunk.length === 0) {
        const next = await chunks.next();
        if (next.done === true) return 0;
        chunk = next.value;
      }
      const count = Math.min(length, chunk.length);
      target.set(chunk.subarray(0, count), start);
      chunk = chunk.subarray(count);
      return count;
    },
    close: () => {
      signal?.removeEventListener('abort', onAbort);
      socket.destroy();
      return Promise.resolve();
    },
  };
}

/** All that comes out of a pipe, in a file that goes when it is closed, however this process ends. */
async function keep(pipe: Octets, path: string): Promise<Octets> {
  const name = join(tmpdir(), `romulus-${randomBytes(8).toString('hex')}`);
  const file = await open(name, 'wx+', 0o600);
  try {
    await rm(name);
    const size = await copyAll(pipe, file);
    return readable(file.fd, size, () => file.close());
  } catch (error) {
    await file.close();
    if (codeOf(error) !== 'ENOSPC') throw error;
    const message = `${tmpdir()} has no room for what comes from ${path}, which is read twice: name another folder in TMPDIR`;
    throw new RomulusError('ENOSPC', message, {}, { cause: error });
  } finally {
    await pipe.close();
  }
}

async function copyAll(pipe: Octets, file: FileHandle): Promise<number> {
  const buffer = new Uint8Array(1024 * 1024);
  let size = 0;
  for (;;) {
    const count = await pipe.read(buffer, 0, buffer.length, size);
    if (count === 0) return size;
    for (let done = 0; done < count;) {
      const { bytesWritten } = await file.write(buffer, done, count - done, size + done);
      done += bytesWritten;
    }
    size += count;
  }
}
