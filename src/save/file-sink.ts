// A stream into a file: written beside its place under a temporary name, and put in its place when it is whole and
// on the disk.
//
//   create ─▶ FILE.tmp-… ─ write … ─┬─ commit ──▶ fsync, rename to FILE
//                                   └─ discard ─▶ nothing is left

import { randomBytes } from 'node:crypto';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { StreamPiece, StreamSink } from '../stream/flow.js';

export class FileSink implements StreamSink {
  readonly path: string;
  readonly #temporaryPath: string;
  readonly #file: FileHandle;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;
  #bytes = 0;

  private constructor(path: string, temporaryPath: string, file: FileHandle) {
    this.path = path;
    this.#temporaryPath = temporaryPath;
    this.#file = file;
  }

  /** Fails with Node's system error if the folder cannot be written to. */
  static async create(path: string): Promise<FileSink> {
    const temporaryPath = `${path}.tmp-${randomBytes(4).toString('hex')}`;
    return new FileSink(path, temporaryPath, await open(temporaryPath, 'wx', 0o600));
  }

  /** Octets written. */
  get bytes(): number {
    return this.#bytes;
  }

  write(piece: StreamPiece): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write(piece));
    return this.#writing;
  }

  boundary(): Promise<void> {
    return Promise.resolve();
  }

  drain(): Promise<void> {
    return this.#writing;
  }

  /** The file is whole: it takes its name. What goes wrong here leaves nothing behind. */
  async commit(): Promise<void> {
    try {
      await this.#writing;
      await this.#file.sync();
      await this.#close();
      await rename(this.#temporaryPath, this.path);
      await syncFolder(dirname(this.path));
    } catch (error) {
      await this.discard();
      throw error;
    }
  }

  /** Gives the file up. Safe to call twice, and after a failed write. */
  async discard(): Promise<void> {
    // What failed was told to whoever wrote it.
    await this.#writing.catch(() => undefined);
    await this.#close();
    await rm(this.#temporaryPath, { force: true });
  }

  async #write({ memory, start, end }: StreamPiece): Promise<void> {
    let at = start;
    while (at < end) {
      const { bytesWritten } = await this.#file.write(memory, at, end - at);
      at += bytesWritten;
      this.#bytes += bytesWritten;
    }
  }

  async #close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }
}

/** The new name is on the disk only when the folder is. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
