// A file that nobody else sees, for what does not fit into memory: written to its end, read from its beginning, and gone
// with its descriptor, whatever becomes of this process.

import { randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import path from 'node:path';
import { asError, codeOf } from '../errors.js';
import { RestoreError } from './error.js';

export class SpillFile {
  readonly #directory: string;
  #file: FileHandle | null = null;
  #bytes = 0;

  /** Nothing is made before the first append(). */
  constructor(directory: string) {
    this.#directory = directory;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @throws RestoreError SPILL_FAILED; what is in the file is as it was */
  append(parts: readonly Uint8Array[]): Promise<void> {
    return this.#told('written', async () => {
      const file = (this.#file ??= await this.#open());
      let at = this.#bytes;
      for (const part of parts) {
        for (let done = 0; done < part.length;) {
          const { bytesWritten } = await file.write(part, done, part.length - done, at + done);
          done += bytesWritten;
        }
        at += part.length;
      }
      this.#bytes = at;
    });
  }

  /** Fills `into` from the octet `at` on. @throws RestoreError SPILL_FAILED */
  read(at: number, into: Uint8Array): Promise<void> {
    return this.#told('read', async () => {
      for (let done = 0; done < into.length;) {
        const read = await this.#file?.read(into, done, into.length - done, at + done);
        if (read === undefined || read.bytesRead === 0) throw new RangeError(`it ends at ${at + done}`);
        done += read.bytesRead;
      }
    });
  }

  /** Ends it; append() begins anew. Never rejects. */
  async clear(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    this.#bytes = 0;
    // Nobody wants what was in it: that it may not have been written is no failure.
    await file?.close().catch(() => undefined);
  }

  async #open(): Promise<FileHandle> {
    const name = path.join(this.#directory, `romulus-${randomUUID()}`);
    const file = await open(name, 'wx+', 0o600);
    try {
      await unlink(name);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #told<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      const cause = asError(thrown);
      const message = `what does not fit into memory cannot be ${what} in ${this.#directory}: ${cause.message}`;
      const facts = { directory: this.#directory, code: codeOf(cause), bytes: this.#bytes };
      throw new RestoreError('SPILL_FAILED', message, facts, { cause });
    }
  }
}
