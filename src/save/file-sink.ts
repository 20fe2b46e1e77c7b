// A stream into a regular file: written beside its place under a temporary name, and put in its place when it is whole
// and on the disk. A file that it replaces gives it its permissions and its owner; other hard links to that file keep
// the old content, since it is the name that is replaced.
//
//   create ─▶ FILE.tmp-… ─ write … ─┬─ commit ──▶ fsync, rename to FILE
//                                   └─ discard ─▶ nothing is left

import { randomBytes } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { access, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ImageSink } from './image-sink.js';

const PERMISSIONS = 0o7777;
/** An image is a machine's memory: what it holds is nobody else's business. */
const NEW_FILE_MODE = 0o600;

export class FileSink extends ImageSink {
  readonly path: string;
  readonly through = false;
  readonly #temporaryPath: string;
  readonly #file: FileHandle;

  private constructor(path: string, temporaryPath: string, file: FileHandle) {
    super({
      write: async (memory, start, length) => (await file.write(memory, start, length)).bytesWritten,
      sync: () => file.sync(),
      close: () => file.close(),
    });
    this.path = path;
    this.#temporaryPath = temporaryPath;
    this.#file = file;
  }

  /**
   * @param path a name that is free, or a regular file's; openImageSink() sees to that
   * @throws Node's system error, if the folder cannot be written to, or the file that it replaces
   */
  static async create(path: string, replaced: Stats | null = null): Promise<FileSink> {
    if (replaced !== null) await access(path, constants.W_OK);
    const temporaryPath = `${path}.tmp-${randomBytes(4).toString('hex')}`;
    const sink = new FileSink(path, temporaryPath, await open(temporaryPath, 'wx', NEW_FILE_MODE));
    try {
      if (replaced !== null) await sink.#takeAfter(replaced);
    } catch (error) {
      await sink.discard();
      throw error;
    }
    return sink;
  }

  /** The file is whole: it takes its name. What goes wrong here leaves nothing behind. */
  async commit(): Promise<void> {
    try {
      await this.sync();
      await this.close();
      await rename(this.#temporaryPath, this.path);
      await syncFolder(dirname(this.path));
    } catch (error) {
      await this.discard();
      throw error;
    }
  }

  async discard(): Promise<void> {
    await this.close();
    await rm(this.#temporaryPath, { force: true });
  }

  /** The owner first: a change of owner takes the set-id bits. */
  async #takeAfter({ uid, gid, mode }: Stats): Promise<void> {
    const own = await this.#file.stat();
    if (own.uid !== uid || own.gid !== gid) await this.#file.chown(uid, gid);
    await this.#file.chmod(mode & PERMISSIONS);
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
