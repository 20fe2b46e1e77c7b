// A file that nobody else sees, for what does not fit into memory: written to its end, read from its beginning, and gone
// with its descriptor, whatever becomes of this process. One that hangs is an error, and left to hang by itself.

import { randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import path from 'node:path';
import { asError, codeOf } from '../errors.js';
import { withinAwake } from '../flow/awake.js';
import { RestoreError } from './error.js';

export interface SpillFileOptions {
  /** For all that append() or read() are given. */
  readonly limitMs: number;
  /** What a test does otherwise. Default: that of the system. */
  readonly open?: (name: string) => Promise<FileHandle>;
}

export class SpillFile {
  readonly #directory: string;
  readonly #options: SpillFileOptions;
  #file: FileHandle | null = null;
  #bytes = 0;
  #hangs = false;
  /** Calls of clear(): what comes to its end after the next one is none of its business. */
  #round = 0;

  /** Nothing is made before the first append(). */
  constructor(directory: string, options: SpillFileOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @throws RestoreError SPILL_FAILED; what is in the file is as it was */
  append(parts: readonly Uint8Array[]): Promise<void> {
    return this.#told('written', async () => {
      const round = this.#round;
      const file = this.#file ?? (await this.#opened(round));
      let at = this.#bytes;
      for (const part of parts) {
        for (let done = 0; done < part.length;) {
          const { bytesWritten } = await file.write(part, done, part.length - done, at + done);
          done += bytesWritten;
        }
        at += part.length;
      }
      if (this.#round === round) this.#bytes = at;
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
    this.#round++;
    // Nobody wants what was in it: that it may not have been written is no failure.
    const closed = file?.close().catch(() => undefined);
    if (!this.#hangs) await closed; // it waits for what is under way
    this.#hangs = false;
  }

  async #opened(round: number): Promise<FileHandle> {
    const file = await this.#open();
    if (this.#round === round) return (this.#file = file);
    await file.close();
    throw new Error('nobody waits for it any more');
  }

  async #open(): Promise<FileHandle> {
    const name = path.join(this.#directory, `romulus-${randomUUID()}`);
    const file = await (this.#options.open?.(name) ?? open(name, 'wx+', 0o600));
    try {
      await unlink(name);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #told<T>(what: string, work: () => Promise<T>): Promise<T> {
    const { limitMs } = this.#options;
    const late = (): Error => {
      this.#hangs = true;
      return new Error(`it hangs, for ${limitMs} ms by now`);
    };
    try {
      return await withinAwake(limitMs, work(), late);
    } catch (thrown) {
      const cause = asError(thrown);
      const message = `what does not fit into memory cannot be ${what} in ${this.#directory}: ${cause.message}`;
      const facts = { directory: this.#directory, code: codeOf(cause), bytes: this.#bytes };
      throw new RestoreError('SPILL_FAILED', message, facts, { cause });
    }
  }
}
