// Where an image goes, by what stands at its place: a regular file, or a name that is free, is replaced when the image
// is whole; everything else is written through, for better or worse: nothing can be taken back, so what can be refused is
// refused before the first octet.
//
//   free, file                              FileSink       nothing under the name before the image is whole
//   fifo, socket                            ThroughSink    stream-outlet.ts   ┐ what is written
//   block, character device, descriptor     ThroughSink    write(2)           ┘ is written
//   folder, terminal                        refused

import { constants, fsync, write, type Stats } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { isatty } from 'node:tty';
import { promisify } from 'node:util';
import { codeOf } from '../errors.js';
import { SaveError } from './error.js';
import { FileSink } from './file-sink.js';
import { ImageSink, type Outlet } from './image-sink.js';
import { type Place, blockDeviceBytes } from './place.js';
import { openStreamOutlet } from './stream-outlet.js';

/**
 * @param signal ends the waiting for a FIFO's reader, and for a reader that stalls
 * @throws SaveError BAD_PLACE, PLACE_IN_USE; Node's system errors
 */
export async function openImageSink(place: Place, signal?: AbortSignal): Promise<ImageSink> {
  const { kind, path, fd, stat } = place;
  switch (kind) {
    case 'folder':
      throw new SaveError('BAD_PLACE', `${path} is a folder`, { path });
    case 'terminal':
      throw terminal(path);
    case 'free':
      return FileSink.create(path);
    case 'file':
      return fd === null ? FileSink.create(path, stat) : ThroughSink.open(place, signal);
    case 'fifo':
    case 'socket':
    case 'block':
    case 'character':
      return ThroughSink.open(place, signal);
  }
}

class ThroughSink extends ImageSink {
  override readonly room: number | null;
  readonly through = true;
  readonly #path: string;

  private constructor(path: string, outlet: Outlet, room: number | null) {
    super(outlet);
    this.#path = path;
    this.room = room;
  }

  static async open(place: Place, signal?: AbortSignal): Promise<ThroughSink> {
    const { kind, path, stat } = place;
    if (kind === 'fifo' || kind === 'socket') {
      return new ThroughSink(path, await openStreamOutlet(place, signal), null);
    }
    const room = kind === 'block' && stat !== null ? await blockDeviceBytes(path, stat) : null;
    return new ThroughSink(path, await openWriteOutlet(place), room);
  }

  async commit(): Promise<void> {
    try {
      await this.sync();
    } finally {
      await this.close();
    }
  }

  discard(): Promise<void> {
    return this.close();
  }

  protected override named(cause: unknown, left: number): unknown {
    const { bytes } = this;
    const code = codeOf(cause);
    if (code === 'EPIPE' || code === 'ECONNRESET') {
      const message = `whoever read ${this.#path} went away after ${bytes} octets: the image is not whole`;
      return new SaveError('READER_GONE', message, { path: this.#path, written: bytes }, { cause });
    }
    if (code !== 'ENOSPC' || this.room === null) return cause;
    return tooSmall(this.#path, this.room, bytes + left, 'at least ', { cause });
  }
}

function terminal(path: string): SaveError {
  return new SaveError('BAD_PLACE', `${path} is a terminal: an image is no text`, { path });
}

export function tooSmall(
  path: string,
  room: number,
  bytes: number,
  atLeast = '',
  options?: ErrorOptions,
): SaveError {
  const message = `${path} has room for ${room} octets, the image takes ${atLeast}${bytes}`;
  return new SaveError('PLACE_TOO_SMALL', message, { path, room, bytes }, options);
}

/** A descriptor of this process is written where it stands, and left open for whoever shares it. */
async function openWriteOutlet(place: Place): Promise<Outlet> {
  if (place.fd !== null) return writeOutlet(place.fd, place.stat, () => Promise.resolve());
  const file = await openDevice(place);
  if (isatty(file.fd)) {
    await file.close();
    throw terminal(place.path);
  }
  return writeOutlet(file.fd, place.stat, () => file.close());
}

/** O_EXCL of a block device: the kernel gives it to one holder only, and to none while it is mounted. */
async function openDevice({ kind, path }: Place): Promise<FileHandle> {
  const exclusive = kind === 'block' ? constants.O_EXCL : 0;
  try {
    return await open(path, constants.O_WRONLY | constants.O_NOCTTY | exclusive);
  } catch (cause) {
    if (kind !== 'block' || codeOf(cause) !== 'EBUSY') throw cause;
    throw new SaveError('PLACE_IN_USE', `${path} is mounted, or in use otherwise`, { path }, { cause });
  }
}

function writeOutlet(fd: number, stat: Stats | null, close: () => Promise<void>): Outlet {
  return {
    write: async (memory, start, length) => (await promisify(write)(fd, memory, start, length)).bytesWritten,
    // A character device has nothing to be synced.
    sync: () => (stat?.isCharacterDevice() === true ? Promise.resolve() : promisify(fsync)(fd)),
    close,
  };
}
