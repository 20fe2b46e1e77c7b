// The disks of a guest, exported to its QEMU: what QEMU mirrors to us, epoch by epoch. The server is in a thread of its
// own (worker.ts); this is what the rest of the agent holds of it.
//
//   QEMU ── blockdev-mirror, write-blocking ──▶ socket ─▶ thread: journals ── seal() ──▶ extents, slabs, dirty chunks
//                                                                ◀── release(slabs) ──┘
//
// The slabs are the memory that all data are in, those of the present epoch and those that were sealed. Whoever takes
// them gives them back; where there is none left, data become dirty chunks, or wait (see ExportMode).

import { rm } from 'node:fs/promises';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { Subject, type Observable } from 'rxjs';
import { DirtyMap } from '../../../../disk/dirty-map.js';
import type { Slab } from '../../../../disk/extents.js';
import type { SealedJournal } from '../../../../disk/journal.js';
import { asError } from '../../../../errors.js';
import type { CopyBatch, CopyProgress } from './copy.js';
import { NbdError } from './error.js';
import type { ExportFigures, ExportMode, WriteCounters } from './export.js';
import type { CopiedMessage, SealedDisk, ServerNews, ServerRequest, ServerStart } from './messages.js';
import type { Exported } from './negotiation.js';
import { Pulse } from './pulse.js';
import { socketDirectory } from './socket-directory.js';

export interface NbdExportsOptions {
  /** Where a directory of our own is made, for the socket: mode 0700. */
  readonly directory: string;
  readonly disks: readonly Exported[];
  /** Of all data of all disks and epochs that are kept at once. */
  readonly poolBytes: number;
  /** The thread's file; left out: that of the server. (A test has one that fails.) */
  readonly entry?: URL;
}

export type NbdExportEvent =
  /** QEMU has chosen this disk's export, or has gone from it; `reason`: why, null if it took its leave. */
  | { readonly kind: 'connected'; readonly disk: string }
  | { readonly kind: 'lost'; readonly disk: string; readonly reason: string | null }
  /** Once in an epoch: little room is left; an early seal, and release(), make some. */
  | { readonly kind: 'pressure' }
  /** The thread has ended by itself, or did not answer and was ended: nothing is served any more. The last event. */
  | { readonly kind: 'ended'; readonly error: NbdError };

/** What an epoch has written to one disk. */
export interface EpochWrites extends SealedJournal {
  readonly name: string;
  readonly counters: WriteCounters;
}

/** What a disk held in some extents; see copyDisk(). */
export interface CopiedBatch extends CopyBatch {
  /** How often seal() had been called before: it belongs before what the next one gives. */
  readonly epoch: number;
  readonly progress: CopyProgress;
}

export interface CopyOrder {
  readonly disk: string;
  /** The socket of the server that exports this disk for reading, and its name there. */
  readonly path: string;
  readonly exportName: string;
  /** See NbdClientOptions. */
  readonly isKept?: boolean;
  /** What is to be copied; left out: all. */
  readonly todo?: DirtyMap;
  /** Left out: no limit. */
  readonly bytesPerSecond?: number;
  /** Aborted, the copy ends. */
  readonly signal?: AbortSignal;
  /**
   * In the order in which the batches were read. Whoever is done with a batch resolves: its slab is read into again, and
   * until then no further one is.
   */
  readonly take: (batch: CopiedBatch) => Promise<void>;
}

export interface CopyOutcome {
  /** What was not taken: nothing, if there is no error. To be copied again. */
  readonly left: DirtyMap;
  readonly error: Error | null;
}

interface RunningCopy {
  readonly order: CopyOrder;
  readonly bytes: number;
  readonly done: (outcome: CopyOutcome) => void;
  /** Of `take`. */
  failure: Error | null;
}

interface Waiting<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: NbdError) => void;
}

export class NbdExports {
  /** Where QEMU finds the server. */
  readonly path: string;
  readonly #directory: string;
  readonly #disks: ReadonlyMap<string, number>;
  readonly #worker: Worker;
  readonly #epochs: Int32Array<SharedArrayBuffer>;
  readonly #events = new Subject<NbdExportEvent>();
  readonly #seals: Waiting<readonly EpochWrites[]>[] = [];
  readonly #modes: (Waiting<DirtyMap | null> & { readonly bytes: number })[] = [];
  readonly #copies = new Map<number, RunningCopy>();
  #copy = 0;
  #listening: Waiting<undefined> | null = null;
  #end: NbdError | null = null;
  #figures: readonly ExportFigures[] = [];
  readonly #pulse = new Pulse(
    () => this.#post({ kind: 'ask' }),
    (limitMs) => this.#stuck(limitMs),
  );

  /** Resolves when QEMU may connect. @throws NbdError BAD_PATH, FAILED, THREAD_ENDED, HUNG */
  static async open(options: NbdExportsOptions): Promise<NbdExports> {
    const directory = await socketDirectory(options.directory);
    const exports = new NbdExports(directory, options);
    try {
      await new Promise<undefined>((resolve, reject) => (exports.#listening = { resolve, reject }));
      return exports;
    } catch (error) {
      await exports.close();
      throw error;
    }
  }

  private constructor(directory: string, { disks, poolBytes, entry }: NbdExportsOptions) {
    this.#directory = directory;
    this.path = path.join(directory, 'socket');
    this.#disks = new Map(disks.map(({ name, bytes }) => [name, bytes]));
    this.#epochs = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    const start: ServerStart = { path: this.path, disks, poolBytes, epochs: this.#epochs };
    this.#worker = new Worker(entry ?? new URL('./worker.js', import.meta.url), {
      name: 'qemu disks',
      workerData: start,
      execArgv: [], // the program's own (--input-type, --inspect, …) are not for this thread
    });
    this.#worker.on('message', (news: ServerNews) => this.#hear(news));
    this.#worker.on('error', (error) => this.#finish(ended(asError(error))));
    this.#worker.on('exit', () => this.#finish(ended()));
  }

  /** Hot. */
  get events$(): Observable<NbdExportEvent> {
    return this.#events;
  }

  /** How often seal() has been called; a number of 32 bits, which goes round. */
  get epoch(): number {
    return Atomics.load(this.#epochs, 0);
  }

  /** As of its last sign of life; of each disk, once it has given one. */
  get figures(): readonly ExportFigures[] {
    return this.#figures;
  }

  /**
   * The epoch ends with this call, not when its promise settles: the guest may run on at once. To be called in a pause,
   * after QEMU's reply to `stop`. Gives what the epoch has written to each disk, in the order of the disks.
   * @throws NbdError THREAD_ENDED, HUNG, CLOSED
   */
  seal(): Promise<readonly EpochWrites[]> {
    Atomics.add(this.#epochs, 0, 1);
    return this.#ask(this.#seals, {}, { kind: 'seal' });
  }

  /** The data in these slabs have been sent, or are not wanted any more: their memory may be written to again. */
  release(slabs: readonly Slab[]): void {
    if (slabs.length > 0)
      this.#post(
        { kind: 'release', slabs },
        slabs.map(({ buffer }) => buffer),
      );
  }

  /** QEMU is about to be told to stop: no write waits for room any more, until the next seal(). To be called before. */
  letThrough(): void {
    this.#post({ kind: 'let-through' });
  }

  /**
   * What is done with what is written to this disk, from now on. Leaving `map` is for a pause, after QEMU's reply to
   * `stop`: it gives the chunks that were written since `map` was chosen, those of the epoch that was open then among
   * them. All else gives null.
   * @throws NbdError THREAD_ENDED, HUNG, CLOSED, FAILED (no such disk)
   */
  setMode(disk: string, mode: ExportMode): Promise<DirtyMap | null> {
    const bytes = this.#disks.get(disk);
    if (bytes === undefined) return Promise.reject(noSuchDisk(disk));
    return this.#ask(this.#modes, { bytes }, { kind: 'mode', disk, mode });
  }

  /**
   * Copies a disk, or what a map has of it, while the guest writes to it and those writes come here.
   * @throws NbdError FAILED if there is no such disk; whatever goes wrong later is in the outcome
   */
  copy(order: CopyOrder): Promise<CopyOutcome> {
    const { disk, path, exportName, isKept = false, signal, bytesPerSecond = Infinity } = order;
    const bytes = this.#disks.get(disk);
    if (bytes === undefined) return Promise.reject(noSuchDisk(disk));
    const todo = allOf(order, bytes);
    if (this.#end !== null) return Promise.resolve({ left: todo, error: this.#end });
    const id = this.#copy++;
    const stop = (): void => this.#post({ kind: 'copy-stop', id });
    return new Promise<CopyOutcome>((done) => {
      this.#copies.set(id, { order, bytes, done, failure: null });
      const { words } = todo;
      this.#post({ kind: 'copy', id, disk, path, exportName, isKept, todo: words, bytesPerSecond });
      signal?.addEventListener('abort', stop, { once: true });
      if (signal?.aborted === true) stop();
    }).finally(() => signal?.removeEventListener('abort', stop));
  }

  /** Ends the thread, and with it QEMU's connections. May be called twice. */
  async close(): Promise<void> {
    this.#finish(new NbdError('CLOSED', 'the exports were closed'), false);
    await this.#worker.terminate();
    await rm(this.#directory, { recursive: true, force: true });
  }

  #ask<T, More>(queue: (Waiting<T> & More)[], more: More, request: ServerRequest): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#end !== null) {
        reject(this.#end);
        return;
      }
      queue.push({ ...more, resolve, reject });
      this.#post(request);
    });
  }

  #post(request: ServerRequest, transfer: readonly ArrayBuffer[] = []): void {
    if (this.#end === null) this.#worker.postMessage(request, transfer);
  }

  #hear(news: ServerNews): void {
    switch (news.kind) {
      case 'listening':
        this.#listening?.resolve(undefined);
        this.#pulse.alive();
        return;
      case 'alive':
        this.#figures = news.figures;
        this.#pulse.alive();
        return;
      case 'refused':
        this.#listening?.reject(new NbdError('FAILED', news.reason, { path: this.path }));
        return;
      case 'sealed':
        this.#seals.shift()?.resolve(news.disks.map((sealed) => this.#writes(sealed)));
        return;
      case 'mode-set': {
        const asked = this.#modes.shift();
        asked?.resolve(news.map && new DirtyMap(asked.bytes, news.map));
        return;
      }
      case 'copied':
        void this.#copied(news);
        return;
      case 'copy-ended': {
        const copy = this.#copies.get(news.id);
        this.#copies.delete(news.id);
        const error = news.error && new NbdError(news.error.code, news.error.message, news.error.facts);
        copy?.done({ left: new DirtyMap(copy.bytes, news.left), error: copy.failure ?? error });
        return;
      }
      case 'connected':
      case 'lost':
      case 'pressure':
        this.#events.next(news);
    }
  }

  async #copied({ id, batch, epoch, extents, slab, progress }: CopiedMessage): Promise<void> {
    const copy = this.#copies.get(id);
    if (!copy) return;
    try {
      await copy.order.take({ epoch, extents, slab, progress });
    } catch (error) {
      copy.failure ??= asError(error);
      this.#post({ kind: 'copy-stop', id });
      return;
    }
    this.#post({ kind: 'copy-taken', id, batch, slab }, slab ? [slab.buffer] : []);
  }

  /**
   * A thread that is stuck must not be left so: the guest's writes wait for it, and QEMU's monitor with them. Its end
   * ends its sockets, and QEMU's mirror: the guest goes on.
   */
  #stuck(limitMs: number): void {
    this.#finish(new NbdError('HUNG', 'the thread that serves the disks does not answer', { limitMs }));
    void this.#worker.terminate();
  }

  #writes({ dirty, ...sealed }: SealedDisk): EpochWrites {
    const bytes = this.#disks.get(sealed.name);
    return { ...sealed, dirty: dirty && bytes !== undefined ? new DirtyMap(bytes, dirty) : null };
  }

  #finish(error: NbdError, isNews = true): void {
    if (this.#end !== null) return;
    this.#end = error;
    this.#pulse.end();
    this.#listening?.reject(error);
    for (const { reject } of [...this.#seals.splice(0), ...this.#modes.splice(0)]) reject(error);
    for (const { order, bytes, done } of this.#copies.values()) done({ left: allOf(order, bytes), error });
    this.#copies.clear();
    if (isNews) this.#events.next({ kind: 'ended', error });
    this.#events.complete();
  }
}

function noSuchDisk(disk: string): NbdError {
  return new NbdError('FAILED', `no disk is exported as ${disk}`, { export: disk });
}

/** Who has ended with a copy has not said what was left. */
function allOf({ todo }: CopyOrder, bytes: number): DirtyMap {
  const all = new DirtyMap(bytes, todo?.words.slice());
  if (todo === undefined) all.markAll();
  return all;
}

function ended(cause?: Error): NbdError {
  const facts = { reason: cause?.message };
  return new NbdError('THREAD_ENDED', 'the thread that serves the disks has ended', facts, { cause });
}
