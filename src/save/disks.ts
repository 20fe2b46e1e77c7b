// The disks of a domain in its stream. At the stream's beginning what the other side lacks is copied while the domain
// writes on; from the first checkpoint on each has the writes of its epoch, exactly.
//
//   begin   DISKS ─ keep ─┬─ copy ─────────── take … take ────────┐
//                         └─ seal … seal … (or pressure) … seal ──┴─▶ in order ─▶ DISK_WRITES
//   memory is copied: seal between batches ─▶ what was not kept is copied again ─▶ …
//   pause   seal ─┄ the domain runs again ┄─▶ DISK_WRITES ─▶ CHECKPOINT
//
// Before the first checkpoint a cut anywhere in the order of the writes is good enough, if they and what is copied come in
// their order: a batch of the copy says behind how many seals it belongs (CopiedExtents). Room for the writes is bounded
// by whoever keeps them; where there was none, they were marked instead, and are copied again. In a checkpoint that
// cannot be made good.

import type { Subscription } from 'rxjs';
import { DirtyMap } from '../disk/dirty-map.js';
import type { Extents, Slab } from '../disk/extents.js';
import { asError } from '../errors.js';
import { InOrder } from '../flow/in-order.js';
import type { CopiedExtents, DiskSource, DiskWrites } from '../hypervisor/port-disks.js';
import { failed } from '../hypervisor/port.js';
import { valueAt } from '../stream/bounds.js';
import { RecordType } from '../stream/format.js';
import { encodeDisks } from '../stream/records/disks.js';
import type { SaveStepCallbacks } from './callbacks.js';
import { ExtentCursor, layDiskWrites } from './disk-records.js';
import { SaveError } from './error.js';

/** Of one disk the other side has: nothing, all, or all but these chunks. */
export type DiskTodo = 'all' | 'nothing' | DirtyMap;

export interface DiskSaveOptions {
  /**
   * What the other side lacks of each disk; asked once, when writes are kept already. `marked`: what keep() gave, the
   * chunks that were written before (null: not known). Left out: all of all disks.
   */
  readonly todo?: (marked: readonly (DirtyMap | null)[], signal: AbortSignal) => Promise<readonly DiskTodo[]>;
  /** Of the copy. Left out: no limit. */
  readonly bytesPerSecond?: number;
  /** Aborted, the copy is given up: ABORTED. */
  readonly signal?: AbortSignal;
}

/** Where the records go (context.ts). */
export interface DiskRecords {
  writeRecord(type: number, ...parts: readonly Uint8Array[]): Promise<void>;
  /** A record that is a piece by itself; `lay` puts its body at memory[at], in at most `room` octets: its length. */
  layRecord(type: number, lay: (memory: Uint8Array, at: number, room: number) => number): Promise<void>;
  /** Resolves when a record can be laid out without waiting for the sink. */
  slab(): Promise<unknown>;
  /** Of the checkpoint that is open. */
  readonly epoch: number;
  readonly callbacks: SaveStepCallbacks;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
}

/** Between two seals while nothing presses. */
const DRAIN_MS = 100;
/** Copies of what was not kept, before the first checkpoint. */
const COPIES_MAX = 50;

export class DiskSaver {
  readonly #source: DiskSource;
  readonly #records: DiskRecords;
  readonly #options: DiskSaveOptions;
  readonly #events: Subscription;
  /** Of the copy, and of whatever is drained beside it. */
  readonly #over = new AbortController();
  readonly #lane = new InOrder();
  #marked: readonly (DirtyMap | null)[] = [];
  /** What is still to be copied of each disk. */
  #left: DirtyMap[] = [];
  #copies = 0;
  /** Seals whose writes were given to the lane. */
  #sealsInLane = 0;
  #drainedMs = 0;
  #isPressed = false;
  #wake: () => void = () => undefined;
  #kept = false;
  /** Of the checkpoint that is open, in order: each pause that was made for it. */
  #sealing: Promise<readonly DiskWrites[]>[] = [];

  constructor(source: DiskSource, records: DiskRecords, options: DiskSaveOptions) {
    this.#source = source;
    this.#records = records;
    this.#options = options;
    this.#events = source.events$.subscribe(({ kind }) => {
      // What is lost, the next seal says.
      if (kind === 'pressure') this.#isPressed = true;
      this.#wake();
    });
  }

  /** The list, in the stream; from here on writes are kept. @throws HypervisorError */
  async begin(): Promise<void> {
    const { disks } = this.#source;
    await this.#records.writeRecord(RecordType.DISKS, encodeDisks(disks));
    this.#kept = true;
    this.#marked = await this.#source.keep();
    this.#left = disks.map(({ bytes }) => new DirtyMap(bytes));
  }

  /**
   * Before memory is copied: what the other side lacks is in the stream. The domain runs.
   * @throws SaveError ABORTED, DISK_BEHIND; HypervisorError
   */
  async synchronise(): Promise<void> {
    await this.#beside(async (signal) => {
      const todo = (await this.#options.todo?.(this.#marked, signal)) ?? null;
      this.#left.forEach((left, disk) => {
        demand(left, todo === null ? 'all' : valueAt(todo, disk));
        this.#progress(disk, 0, left.octets());
      });
    });
    await this.#copyLeft();
  }

  /** While memory is copied, between two batches: what was written leaves, if it is time. */
  async between(): Promise<void> {
    if (this.#isPressed || this.#records.clock() - this.#drainedMs >= DRAIN_MS) await this.#drain();
  }

  /**
   * Just before the first pause: nothing is left to be copied. True: something was, since writes had not been kept.
   * @throws as synchronise()
   */
  async catchUp(): Promise<boolean> {
    for (let behind = false; ; behind = true) {
      // Waiting for the sink is done before the last writes are taken, not behind them.
      await this.#records.slab();
      await this.#drain();
      if (this.#left.every((left) => left.isEmpty)) return behind;
      await this.#copyLeft();
    }
  }

  /** The domain is suspended: its writes up to here belong to the checkpoint. What fails, fails writeSealed(). */
  seal(): void {
    const sealing = this.#seal();
    sealing.catch(() => undefined);
    this.#sealing.push(sealing);
  }

  /**
   * What the checkpoint's seals gave is in the stream.
   * @throws SaveError DISK_BEHIND; HypervisorError FAILED
   */
  async writeSealed(): Promise<void> {
    while (this.#sealing.length > 0) {
      const all = await valueAt(this.#sealing, 0);
      void this.#sealing.shift();
      await this.#lay(all);
      const behind = all.find(({ dirty }) => dirty !== null && !dirty.isEmpty);
      if (behind !== undefined) throw this.#behind(behind.disk, behind.dirty?.octets() ?? 0);
    }
  }

  /** Ends whatever waits here. The step under way fails by it. */
  abort(): void {
    this.#over.abort(new SaveError('ABORTED', 'the disks are not copied any more'));
    this.#wake();
  }

  /** When no step is under way any more: nothing is kept any more, and nothing of the source's is. */
  async close(): Promise<void> {
    this.abort();
    await this.#lane.settled();
    for (const sealing of this.#sealing.splice(0)) {
      const all = await sealing.catch(() => []);
      for (const { slabs } of all) this.#source.release(slabs);
    }
    this.#events.unsubscribe();
    if (this.#kept) await this.#source.rest();
  }

  async #copyLeft(): Promise<void> {
    while (this.#left.some((left) => !left.isEmpty)) {
      const disk = this.#left.findIndex((left) => !left.isEmpty);
      const todo = valueAt(this.#left, disk);
      if (this.#copies++ === COPIES_MAX) throw this.#behind(disk, todo.octets());
      this.#left[disk] = new DirtyMap(todo.bytes);
      await this.#beside((signal) => this.#copy(disk, todo, signal));
    }
  }

  async #copy(disk: number, todo: DirtyMap, signal: AbortSignal): Promise<void> {
    const { bytesPerSecond } = this.#options;
    this.#progress(disk, 0, todo.octets());
    const { left, error } = await this.#source.copy({
      ...{ disk, todo, signal },
      ...(bytesPerSecond !== undefined && { bytesPerSecond }),
      take: async (copied) => {
        await this.#take(disk, copied);
        this.#progress(disk, copied.doneBytes, copied.totalBytes);
      },
    });
    if (signal.aborted) throw asError(signal.reason);
    if (error !== null) throw error;
    valueAt(this.#left, disk).or(left);
  }

  #progress(disk: number, doneBytes: number, totalBytes: number): void {
    const { id } = valueAt(this.#source.disks, disk);
    this.#records.callbacks.diskProgress?.({ disk: id, doneBytes, totalBytes });
  }

  /**
   * Resolves when the batch is in the stream. It must be there before what was written while it was read, or later. It may
   * come before a seal that it belongs behind, whose promise has not settled yet: what that gives is in the batch already,
   * or has been written over since, and comes again with a later seal.
   */
  async #take(disk: number, { extents, slab, seals }: CopiedExtents): Promise<void> {
    this.#over.signal.throwIfAborted();
    if (seals < this.#sealsInLane) {
      const facts = { disk, seals, sealed: this.#sealsInLane };
      throw failed('a part of the copy came behind the writes that follow it', facts);
    }
    await this.#lane.do(() => this.#layExtents(disk, extents, slab === null ? [] : [slab]));
  }

  /** Does the work, and drains meanwhile. The first failure of both ends both. */
  async #beside(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const failure = new AbortController();
    const fail = (error: unknown): void => failure.abort(asError(error));
    const { signal = failure.signal } = this.#options;
    const any = AbortSignal.any([failure.signal, this.#over.signal, signal]);
    const done = new AbortController();
    const draining = this.#drainUntil(done.signal).catch(fail);
    await work(any).catch(fail);
    done.abort();
    this.#wake();
    await draining;
    if (any.aborted) throw abortedBy(any.reason);
  }

  async #drainUntil(done: AbortSignal): Promise<void> {
    do await this.#drain();
    while (await this.#isTimeToDrain(done));
  }

  /** Resolves after a while, or as soon as there is little room; false: it is done. */
  async #isTimeToDrain(done: AbortSignal): Promise<boolean> {
    const waiting = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, DRAIN_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    if (this.#isPressed || done.aborted || this.#over.signal.aborted) this.#wake();
    await waiting;
    return !done.aborted;
  }

  /** What was written until now is in the stream. */
  async #drain(): Promise<void> {
    this.#over.signal.throwIfAborted();
    this.#drainedMs = this.#records.clock();
    this.#isPressed = false;
    const all = await this.#seal();
    this.#sealsInLane++;
    const laid = this.#lane.do(() => this.#lay(all));
    for (const { disk, dirty } of all) if (dirty !== null) valueAt(this.#left, disk).or(dirty);
    await laid;
  }

  async #seal(): Promise<readonly DiskWrites[]> {
    const { epoch, callbacks } = this.#records;
    const all = await this.#source.seal();
    try {
      for (const writes of all) callbacks.diskWrites?.(epoch, writes);
    } catch (error) {
      for (const { slabs } of all) this.#source.release(slabs);
      throw error;
    }
    return all;
  }

  /** The writes of one seal. Their memory goes back, whatever happens. */
  async #lay(all: readonly DiskWrites[]): Promise<void> {
    let at = 0;
    try {
      for (; at < all.length; at++) {
        const { disk, extents, slabs } = valueAt(all, at);
        await this.#layExtents(disk, extents, slabs);
        this.#source.release(slabs);
      }
    } catch (error) {
      for (const { slabs } of all.slice(at)) this.#source.release(slabs);
      throw error;
    }
  }

  async #layExtents(disk: number, extents: Extents, slabs: readonly Slab[]): Promise<void> {
    const cursor = new ExtentCursor();
    while (cursor.index < extents.count) {
      await this.#records.layRecord(RecordType.DISK_WRITES, (memory, at, room) =>
        layDiskWrites(memory, at, room, disk, extents, slabs, cursor),
      );
    }
  }

  #behind(disk: number, bytes: number): SaveError {
    const { id } = valueAt(this.#source.disks, disk);
    const message = `disk ${id} is written to faster than it can be sent: ${bytes} octets were not kept`;
    return new SaveError('DISK_BEHIND', message, { disk: id, bytes });
  }
}

function demand(left: DirtyMap, todo: DiskTodo): void {
  if (todo === 'nothing') return;
  if (todo === 'all') left.markAll();
  else left.or(todo);
}

function abortedBy(reason: unknown): Error {
  const error = asError(reason);
  if (error.name !== 'AbortError') return error;
  return new SaveError('ABORTED', 'the copy of the disks was given up', {}, { cause: error });
}
