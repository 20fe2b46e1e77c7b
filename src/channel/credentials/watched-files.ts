// Files that somebody else writes: they are looked at again when one of them changes, or when somebody asks for it. What
// cannot be used is said once, and looked at again at each poll.
//
//   poll ─▶ changed? ─┐
//   reload() ─────────┴─▶ read ─┬─▶ taken
//                               └─▶ a complaint, unless it is the one from before

import { stat } from 'node:fs/promises';
import type { Logger } from 'pino';
import { asError } from '../../errors.js';
import type { Reloaded } from '../../flow/reloaded.js';

const POLL_MS = 5_000;

export abstract class WatchedFiles {
  protected readonly log: Logger;
  protected closed = false;
  readonly #what: string;
  readonly #files: readonly [string, ...string[]];
  readonly #timer: NodeJS.Timeout;
  /** Of the files that were read last: when they were written, and which they are. */
  #stamp: string | null = null;
  #reading: Promise<Error | null> | null = null;
  #problem: string | null = null;

  /** @param what of which there is one in them. They hold a good one now. */
  constructor(what: string, files: readonly [string, ...string[]], log: Logger, pollMs = POLL_MS) {
    this.#what = what;
    this.#files = files;
    this.log = log;
    this.#timer = setInterval(() => this.poll(), pollMs).unref();
  }

  /** Reads them, and takes what they hold. One call at a time. @throws Error if that is of no use */
  protected abstract read(): Promise<void>;

  /** Reads the files now. Resolves when that is done: with why they are not taken, too, which is in the log. */
  async reload(): Promise<Reloaded> {
    // One that is under way may have begun before they were written.
    await this.#reading;
    return { file: this.#files[0], error: await this.#look(true) };
  }

  close(): void {
    this.closed = true;
    clearInterval(this.#timer);
  }

  protected poll(): void {
    void this.#look(false);
  }

  /** One at a time: a file system that hangs costs one read, not one for each poll. */
  #look(always: boolean): Promise<Error | null> {
    this.#reading ??= this.#read(always).finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  async #read(always: boolean): Promise<Error | null> {
    try {
      // Before the files are read: what is written meanwhile is another change.
      const stamp = (await Promise.all(this.#files.map(stampOf))).join(' ');
      if (!always && stamp === this.#stamp && this.#problem === null) return null;
      await this.read();
      this.#stamp = stamp;
      this.#problem = null;
      return null;
    } catch (thrown) {
      const error = asError(thrown);
      if (!this.closed && error.message !== this.#problem) {
        this.#problem = error.message;
        const message = `the ${this.#what} in use stays, the new one is not taken: ${error.message}`;
        this.log.warn({ err: error }, message);
      }
      return error;
    }
  }
}

async function stampOf(file: string): Promise<string> {
  const { ino, size, mtimeMs, ctimeMs } = await stat(file);
  return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}
