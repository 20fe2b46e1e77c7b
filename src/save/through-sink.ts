// A stream into what cannot be replaced: a FIFO, a socket, a device, or a descriptor that whoever started us has opened.
// Nothing can be taken back, so what can be refused is refused before the first octet.
//
//   fifo, socket ── stream-outlet.ts ──┐
//                                      ├──▶ ThroughSink: pieces in order, octets counted, errors named
//   block, character, file ── write(2) ┘

import { constants, fsync, write, type Stats } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { isatty } from 'node:tty';
import { promisify } from 'node:util';
import { codeOf } from '../errors.js';
import { SaveError } from './error.js';
import { ImageSink, type Outlet } from './image-sink.js';
import { type Place, blockDeviceBytes } from './place.js';
import { openStreamOutlet } from './stream-outlet.js';

export class ThroughSink extends ImageSink {
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
    const facts = { path: this.#path, written: bytes };
    switch (codeOf(cause)) {
      case 'EPIPE':
      case 'ECONNRESET': {
        const message = `whoever read ${this.#path} went away after ${bytes} octets: the image is not whole`;
        return new SaveError('READER_GONE', message, facts, { cause });
      }
      case 'ENOSPC':
        if (this.room === null) return cause;
        return tooSmall(this.#path, this.room, bytes + left, 'at least ', { cause });
      default:
        return cause;
    }
  }
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
    throw new SaveError('BAD_PLACE', `${place.path} is a terminal: an image is no text`, {
      path: place.path,
    });
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
