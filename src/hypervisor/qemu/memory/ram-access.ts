// Guest RAM, read and written by whoever must not wait for it: a file that a process serves may answer late, or never
// (reading a page that the kernel has evicted; writing any page while others are on their way to that process).
//
//   plain file      in memory: nothing to wait for, done at once
//   served file     read in a thread of its own, a slab at a time; written by its server, which is told what (fuse/store.ts)
//
//   caller ◀── frames, pages ── slab ◀── thread ◀── read ── the file
//
// Who waits too long is told by whoever checks the memory (DirtyTracking.check, abandon): then all that waits fails.

import { Worker } from 'node:worker_threads';
import { asError } from '../../../errors.js';
import { InOrder } from '../../../flow/in-order.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { failed, type HypervisorError } from '../../port.js';
import { SLAB_PAGES, type RamAnswer, type RamRequest, type RamThreadStart } from './ram-thread.js';
import { readFrames, writeFrames } from './ram-file.js';

export interface RamAccess {
  /** It will be read. Not there: nothing has to be made for that. */
  prepare?(): void;
  /** Copies `count` frames into `into` from `offset` on. @throws HypervisorError FAILED */
  read(gfns: Uint32Array, count: number, into: Uint8Array, offset: number): Promise<void>;
  /** Writes `count` pages, one after another in `data`, to the frames. @throws HypervisorError FAILED */
  write(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void>;
}

/** Of a file in memory, which answers at once. */
export class PlainAccess implements RamAccess {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  async read(gfns: Uint32Array, count: number, into: Uint8Array, offset: number): Promise<void> {
    readFrames(this.#fd, gfns, count, into, offset);
    return Promise.resolve();
  }

  async write(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    writeFrames(this.#fd, gfns, count, data);
    return Promise.resolve();
  }
}

/** Pages that are compared at a time. */
const COMPARE_PAGES = 256;

/**
 * The indices (into gfns) of the first `count` pages of `data` that differ from RAM's.
 * @throws HypervisorError FAILED
 */
export async function differingFrames(
  ram: RamAccess,
  gfns: Uint32Array,
  count: number,
  data: Uint8Array,
): Promise<number[]> {
  const differ: number[] = [];
  const held = Buffer.alloc(COMPARE_PAGES * PAGE_SIZE);
  for (let from = 0; from < count; from += COMPARE_PAGES) {
    const pages = Math.min(COMPARE_PAGES, count - from);
    await ram.read(gfns.subarray(from, from + pages), pages, held, 0);
    for (let k = 0; k < pages; k++) {
      const at = k * PAGE_SIZE;
      const dataAt = (from + k) * PAGE_SIZE;
      if (held.compare(data, dataAt, dataAt + PAGE_SIZE, at, at + PAGE_SIZE) !== 0) differ.push(from + k);
    }
  }
  return differ;
}

/** How a served file is written. */
export interface PageStoring {
  /** The most at a time. */
  readonly pages: number;
  /** Pages that lie in `data` one after another from `offset` on. @throws Error: it is served no more */
  write(gfns: Uint32Array, count: number, data: Uint8Array, offset: number): Promise<void>;
  close(): void;
}

const NONE = new Uint32Array(0);
const NOTHING = new Uint8Array(0);

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Of a file that a process serves. One after another; the thread begins with the first of them. */
export class ServedAccess implements RamAccess {
  readonly #fd: number;
  readonly #explain: (cause: Error) => HypervisorError;
  readonly #frames = new Uint32Array(new SharedArrayBuffer(SLAB_PAGES * Uint32Array.BYTES_PER_ELEMENT));
  readonly #order = new InOrder();
  readonly #store: PageStoring;
  #slab: Uint8Array = new Uint8Array(0);
  #thread: Worker | null = null;
  #waiting: Waiting | null = null;
  #closed = false;

  /** `explain` is told why the file could not be read or written, and says what its callers fail with. */
  constructor(fd: number, store: PageStoring, explain: (cause: Error) => HypervisorError = inaccessible) {
    this.#fd = fd;
    this.#store = store;
    this.#explain = explain;
  }

  prepare(): void {
    try {
      this.#start();
    } catch {
      // The first read finds the same, and says so.
    }
  }

  read(gfns: Uint32Array, count: number, into: Uint8Array, offset: number): Promise<void> {
    return this.#order.do(async () => {
      for (let from = 0; from < count; from += SLAB_PAGES) {
        const pages = Math.min(SLAB_PAGES, count - from);
        await this.#read(gfns.subarray(from, from + pages));
        into.set(this.#slab.subarray(0, pages * PAGE_SIZE), offset + from * PAGE_SIZE);
      }
    });
  }

  write(gfns: Uint32Array, count: number, data: Uint8Array): Promise<void> {
    return this.#order.do(async () => {
      for (let from = 0; from < count; from += this.#store.pages) {
        const pages = Math.min(this.#store.pages, count - from);
        await this.#write(gfns.subarray(from, from + pages), data, from * PAGE_SIZE);
      }
    });
  }

  /** Resolves when whoever serves the file has all that was written. @throws HypervisorError FAILED */
  written(): Promise<void> {
    return this.#order.do(() => this.#write(NONE, NOTHING, 0));
  }

  /** Whoever serves the file has been ended: a thread that waits for it could not end. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#store.close();
    await this.#thread?.terminate();
    this.#fail(inaccessible(new Error('it was given up')));
  }

  async #write(gfns: Uint32Array, data: Uint8Array, offset: number): Promise<void> {
    if (this.#closed) throw inaccessible(new Error('it was given up'));
    try {
      await this.#store.write(gfns, gfns.length, data, offset);
    } catch (error) {
      await new Promise((resolve) => setImmediate(resolve)); // what its server said before is read in this turn
      throw this.#explain(asError(error));
    }
  }

  #read(gfns: Uint32Array): Promise<void> {
    const thread = this.#start();
    this.#frames.set(gfns);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      thread.postMessage({ count: gfns.length } satisfies RamRequest);
    });
  }

  /** @throws HypervisorError FAILED */
  #start(): Worker {
    if (this.#closed) throw inaccessible(new Error('it was given up'));
    if (this.#thread !== null) return this.#thread;
    this.#slab = new Uint8Array(new SharedArrayBuffer(SLAB_PAGES * PAGE_SIZE));
    const start: RamThreadStart = { fd: this.#fd, frames: this.#frames, slab: this.#slab };
    const thread = new Worker(new URL('./ram-thread.js', import.meta.url), {
      name: 'qemu RAM access',
      workerData: start,
      execArgv: [], // the program's own (--input-type, --inspect, …) are not for this thread
    });
    this.#thread = thread;
    thread.on('message', ({ error }: RamAnswer) => {
      if (error !== null) {
        setImmediate(() => this.#fail(this.#explain(new Error(error))));
        return;
      }
      const waiting = this.#waiting;
      this.#waiting = null;
      waiting?.resolve();
    });
    thread.on('error', (error) => this.#fail(inaccessible(asError(error))));
    thread.on('exit', () => {
      this.#closed = true;
      this.#fail(inaccessible(new Error('the thread that accesses it has ended')));
    });
    return thread;
  }

  #fail(error: HypervisorError): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.reject(error);
  }
}

function inaccessible(cause: Error): HypervisorError {
  return failed(`guest RAM cannot be accessed: ${cause.message}`, {}, cause);
}
