// Files that somebody else writes: they are looked at again when one of them changes, or when somebody asks for it. What
// cannot be used is said once, and looked at again at each poll.
//
//   poll ─▶ changed? ─┐
//   reload() ─────────┴─▶ read ─┬─▶ taken
//                               └─▶ a complaint, unless it is the one from before

import { stat } from 'node:fs/promises';
import { asError } from '../../errors.js';

export const POLL_MS = 5_000;

export interface WatchedFilesOptions {
  readonly files: readonly string[];
  /** Reads them, and takes what they hold. One call at a time. @throws Error if that is of no use */
  readonly read: () => Promise<void>;
  readonly complain: (error: Error) => void;
  readonly pollMs: number;
}

export class WatchedFiles {
  readonly #options: WatchedFilesOptions;
  readonly #timer: NodeJS.Timeout;
  /** Of the files that were read last: when they were written, and which they are. */
  #stamp: string | null = null;
  #reading: Promise<Error | null> | null = null;
  #problem: string | null = null;
  #closed = false;

  constructor(options: WatchedFilesOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.#look(false), options.pollMs).unref();
  }

  /** Reads the files now. Resolves when that is done: to null, or to why they are not taken. */
  async reload(): Promise<Error | null> {
    // One that is under way may have begun before they were written.
    await this.#reading;
    return this.#look(true);
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  /** One at a time: a file system that hangs costs one read, not one for each poll. */
  #look(always: boolean): Promise<Error | null> {
    this.#reading ??= this.#read(always).finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  async #read(always: boolean): Promise<Error | null> {
    const { files, read, complain } = this.#options;
    try {
      // Before the files are read: what is written meanwhile is another change.
      const stamp = (await Promise.all(files.map(stampOf))).join(' ');
      if (!always && stamp === this.#stamp && this.#problem === null) return null;
      await read();
      this.#stamp = stamp;
      this.#problem = null;
      return null;
    } catch (thrown) {
      const error = asError(thrown);
      if (!this.#closed && error.message !== this.#problem) {
        this.#problem = error.message;
        complain(error);
      }
      return error;
    }
  }
}

async function stampOf(file: string): Promise<string> {
  const { ino, size, mtimeMs, ctimeMs } = await stat(file);
  return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}
