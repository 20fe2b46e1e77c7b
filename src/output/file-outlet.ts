// Files as outlets: regular files, FIFOs, terminals by their path, and standard streams that are files. No call for them
// is made on a thread of this process: one that hangs could stall the event loop, or libuv's few threads, and, as no
// thread can be taken out of a system call, keep this process from ending. A process of our own makes the calls, on a
// thread for each file.
//
//   outlet ─┬─request──▶ writing process ──▶ file, …
//   outlet ─┘◀──reply───

import { codeOf } from '../errors.js';
import { OutputError } from './error.js';
import type { FileTarget } from './file-messages.js';
import type { Outlet } from './outlet.js';
import { openInWritingProcess, type OpenFile } from './writing-process.js';

/** Octets that an eager outlet has on their way. */
const EAGER_BYTES = 1024 * 1024;
const OPEN_TIMEOUT_MS = 2000;
/** For what is on its way to a file that is about to be replaced. */
const LEAVE_TIMEOUT_MS = 2000;

/** These pass by themselves, or by somebody's doing: the file is tried again. ENXIO: a FIFO that nobody reads. */
const PASSING: ReadonlySet<string> = new Set([
  ...['ENXIO', 'ENOSPC', 'EDQUOT', 'EIO', 'EAGAIN', 'EBUSY', 'EINTR', 'EMFILE', 'ENFILE', 'ENOMEM'],
  ...['ESTALE', 'ETIMEDOUT', 'OPEN_TIMEOUT', 'WRITER_ENDED'],
]);

export interface FileOutletOptions {
  /**
   * Octets count as taken when they are on their way to the writing process, which writes them even if this one is
   * killed now. For what need not be whole: what cannot be written after all is lost.
   */
  readonly eager?: boolean;
  /** Of an eager outlet. */
  readonly lost?: (bytes: Uint8Array, why: Error | null) => void;
}

export class FileOutlet implements Outlet {
  readonly #target: FileTarget;
  readonly #options: FileOutletOptions;
  #file: OpenFile | null = null;
  readonly #underWay = new Set<Promise<void>>();
  #onTheWay = 0;
  #leaving = false;
  #closed = false;

  constructor(target: FileTarget, options: FileOutletOptions = {}) {
    this.#target = target;
    this.#options = options;
  }

  /**
   * To know at the start what is wrong.
   * @throws Node's system error, unless it may pass: then the file is opened when it can be
   */
  async open(): Promise<void> {
    try {
      await inTime(this.#opened().open(this.#target));
    } catch (error) {
      if (!PASSING.has(codeOf(error))) throw error;
    }
  }

  write(bytes: Uint8Array, untilMs = Infinity): number | Promise<number> {
    if (this.#closed) return bytes.length;
    if (this.#options.eager !== true) return this.#write(bytes, untilMs);
    if (this.#leaving) return 0;
    if (this.#onTheWay > 0 && this.#onTheWay + bytes.length > EAGER_BYTES) return 0;
    const write = this.#writeEagerly(bytes);
    this.#underWay.add(write);
    void write.then(() => this.#underWay.delete(write));
    return bytes.length;
  }

  /** Resolves when nothing of an eager outlet is on its way. */
  async settled(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  async reopen(): Promise<void> {
    if (this.#closed) return;
    const anew = openInWritingProcess();
    try {
      await inTime(anew.open(this.#target));
    } catch (error) {
      anew.close();
      throw error;
    }
    await this.#leave();
    const before = this.#file;
    this.#file = anew;
    before?.close();
    this.#endIfClosed();
  }

  close(): void {
    this.#closed = true;
    this.#endIfClosed();
  }

  /**
   * What is on its way belongs to the file that it was written to, and before all that follows: both names may lead to
   * one file. A file that hangs, or that nobody reads, does not keep us from the next.
   */
  async #leave(): Promise<void> {
    this.#leaving = true;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, LEAVE_TIMEOUT_MS)));
    await Promise.race([this.settled(), late]);
    clearTimeout(timer);
    this.#leaving = false;
  }

  #endIfClosed(): void {
    if (!this.#closed) return;
    this.#file?.close();
    this.#file = null;
  }

  async #write(bytes: Uint8Array, untilMs: number): Promise<number> {
    const { taken, error } = await this.#opened().write(this.#target, bytes, false, untilMs);
    if (error && taken === 0) throw error;
    return taken;
  }

  async #writeEagerly(bytes: Uint8Array): Promise<void> {
    this.#onTheWay += bytes.length;
    const { taken, error } = await this.#opened().write(this.#target, bytes, true, Infinity);
    this.#onTheWay -= bytes.length;
    if (taken < bytes.length) this.#options.lost?.(bytes.subarray(taken), error);
  }

  #opened(): OpenFile {
    if (this.#file?.isGone === true) this.#file = null;
    return (this.#file ??= openInWritingProcess());
  }
}

async function inTime(opened: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const error = new OutputError('OPEN_TIMEOUT', 'the file does not open');
    timer = setTimeout(() => reject(error), OPEN_TIMEOUT_MS);
  });
  try {
    await Promise.race([opened, late]);
  } finally {
    clearTimeout(timer);
  }
}
