// Dirty tracking by comparison: a thread reads the RAM file and compares it with the image. Between begin() and end()
// only; before and after there is no thread and no image.

import { Worker } from 'node:worker_threads';
import { closeSync, fdatasync } from 'node:fs';
import { promisify } from 'node:util';
import { asError } from '../../../errors.js';
import { InOrder } from '../../../flow/in-order.js';
import { valueAt } from '../../../stream/bounds.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { HypervisorError, failed } from '../../port.js';
import type { CompareAnswer, CompareStart } from './compare-worker.js';
import { Loss, Marks, type DirtyTracking } from './dirty.js';
import { PlainAccess } from './ram-access.js';
import { RamImage, allocateImage, requireImageMemory } from './image.js';

const datasync = promisify(fdatasync);

interface Scan {
  readonly resolve: () => void;
  readonly reject: (error: HypervisorError) => void;
}

export class CompareTracking implements DirtyTracking {
  readonly way = 'compare';
  readonly ramFd: number;
  readonly ram: PlainAccess;
  readonly marks: Marks;
  #image: RamImage | null = null;
  readonly #bytes: number;
  #worker: Worker | null = null;
  #scan: Scan | null = null;
  readonly #scans = new InOrder();
  #failure: HypervisorError | null = null;
  readonly #loss = new Loss();
  #checking: Promise<void> | null = null;
  #closed = false;

  /** Takes the descriptor over: close() closes it. */
  constructor(ramFd: number, bytes: number) {
    this.ramFd = ramFd;
    this.ram = new PlainAccess(ramFd);
    this.#bytes = bytes;
    this.marks = new Marks(bytes / PAGE_SIZE);
  }

  get lost(): Promise<HypervisorError> {
    return this.#loss.lost;
  }

  async begin(): Promise<void> {
    requireImageMemory(this.#bytes);
    const memory = allocateImage(this.#bytes);
    const start: CompareStart = { ramFd: this.ramFd, image: memory, marks: this.marks.memory };
    const worker = new Worker(new URL('./compare-worker.js', import.meta.url), {
      name: 'qemu RAM compare',
      workerData: start,
      execArgv: [], // the program's own (--input-type, --inspect, …) are not for this thread
    });
    this.#failure = null;
    this.#worker = worker;
    worker.on('message', (answer: CompareAnswer) => {
      if (answer.error === null) this.#settle(null);
      else this.#settle(failed('guest RAM cannot be read', { reason: answer.error }));
    });
    worker.on('error', (error) => this.#fail(worker, asError(error)));
    worker.on('exit', () => this.#fail(worker));
    this.#image = new RamImage(memory);
    try {
      await this.capture();
    } catch (error) {
      await this.end();
      throw error;
    }
    this.marks.clear();
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  capture(): Promise<void> {
    // The worker knows one scan at a time.
    return this.#scans.do(
      () =>
        new Promise<void>((resolve, reject) => {
          const worker = this.#worker;
          if (!worker || this.#failure) {
            reject(this.#failure ?? new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled'));
            return;
          }
          this.#scan = { resolve, reject };
          worker.postMessage('scan');
        }),
    );
  }

  abandon(): void {
    // A plain file: nobody waits for it.
  }

  async end(): Promise<void> {
    const worker = this.#worker;
    this.#worker = null;
    this.#image = null;
    this.#settle(new HypervisorError('LOG_DIRTY', 'log-dirty was disabled'));
    await worker?.terminate();
  }

  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): void {
    const image = this.#image;
    if (!image) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
    for (let k = 0; k < count; k++) image.copyPage(valueAt(gfns, k), slab, offset + k * PAGE_SIZE);
  }

  /** In a tmpfs there is nothing to wait for. */
  check(): Promise<void> {
    this.#checking ??= this.#check().finally(() => (this.#checking = null));
    return this.#checking;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.end();
    await this.#checking?.catch(() => undefined); // told by whoever asked
    closeSync(this.ramFd);
  }

  async #check(): Promise<void> {
    this.#loss.requireNone();
    if (this.#closed) return;
    try {
      await datasync(this.ramFd);
    } catch (error) {
      const cause = asError(error);
      throw this.#loss.report(failed(`guest RAM is lost: ${cause.message}`, {}, cause));
    }
  }

  #settle(error: HypervisorError | null): void {
    const scan = this.#scan;
    this.#scan = null;
    if (error) scan?.reject(error);
    else scan?.resolve();
  }

  #fail(worker: Worker, cause?: Error): void {
    if (worker !== this.#worker) return;
    const message = 'the thread that compares guest RAM has ended';
    this.#failure ??= failed(message, { reason: cause?.message }, cause);
    this.#settle(this.#failure);
  }
}
