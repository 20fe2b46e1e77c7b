// The machine's disk as the port knows it: calls to the thread that has it (machine-disk.ts), which does them one after
// another. Of what it gives nothing is older than a seal that was asked for before, so a copy needs no mask.
//
// Nothing of it survives the process, on either side: the standby's images have no durable point. One that is met again
// is asked for its memory's, or for sums.

import { setTimeout as sleep } from 'node:timers/promises';
import { of, Subject } from 'rxjs';
import { DirtyMap } from '../../disk/dirty-map.js';
import { type Extents, SLAB_BYTES, type Slab, f64At } from '../../disk/extents.js';
import { Rate } from '../../disk/rate.js';
import { asError } from '../../errors.js';
import { monotonicMs } from '../../flow/clock.js';
import { HypervisorError } from '../port.js';
import type {
  DiskCopyOrder,
  DiskEvent,
  DiskFigures,
  DiskSource,
  DiskTarget,
  DiskWrites,
  ReplicatedDisk,
} from '../port-disks.js';
import { DISK_FIGURES, DiskFigure } from './machine-disk.js';
import type { WorkerCalls } from './messages.js';

const ID = 'hda';

export class EmbeddedDisks implements DiskSource, DiskTarget {
  readonly disks: readonly ReplicatedDisk[];
  readonly events$ = new Subject<DiskEvent>();
  readonly durable$ = of(null);
  readonly #bytes: number;
  readonly #calls: WorkerCalls;
  readonly #figures: Float64Array;
  #isBlank = false;

  /** `figures`: see SharedMemory. */
  constructor(bytes: number, calls: WorkerCalls, figures: SharedArrayBuffer) {
    this.disks = [{ id: ID, bytes }];
    this.#bytes = bytes;
    this.#calls = calls;
    this.#figures = new Float64Array(figures, 0, DISK_FIGURES);
  }

  /** The machine is made. */
  ready(isBlank: boolean): void {
    this.#isBlank = isBlank;
  }

  pressed(): void {
    this.events$.next({ kind: 'pressure' });
  }

  // ── DiskSource ──

  get figures(): readonly DiskFigures[] {
    const requests = f64At(this.#figures, DiskFigure.REQUESTS);
    const writtenBytes = f64At(this.#figures, DiskFigure.WRITTEN_BYTES);
    const journalBytes = f64At(this.#figures, DiskFigure.JOURNAL_BYTES);
    return [{ requests, writtenBytes, journalBytes, lost: null }];
  }

  attach(): Promise<void> {
    return this.#calls.call('diskAttach', undefined);
  }

  async keep(): Promise<readonly (DirtyMap | null)[]> {
    return [new DirtyMap(this.#bytes, await this.#calls.call('diskKeep', undefined))];
  }

  async rest(): Promise<void> {
    await this.#calls.call('diskRest', undefined).catch((error: unknown) => {
      // Of a machine that has ended nobody keeps anything.
      if (!(error instanceof HypervisorError) || error.code !== 'DOMAIN_GONE') throw error;
    });
  }

  async seal(): Promise<readonly DiskWrites[]> {
    const { extents, slabs, dirty } = await this.#calls.call('diskSeal', undefined);
    if (extents.count === 0 && dirty === null) return [];
    return [{ disk: 0, extents, slabs, dirty: dirty && new DirtyMap(this.#bytes, dirty) }];
  }

  release(slabs: readonly Slab[]): void {
    if (slabs.length === 0) return;
    this.#calls.call('diskRelease', { slabs }).catch(() => undefined); // it has ended, and its memory with it
  }

  async copy(order: DiskCopyOrder): Promise<{ readonly left: DirtyMap; readonly error: Error | null }> {
    const left = new DirtyMap(this.#bytes, order.todo?.words.slice());
    if (order.todo === undefined) left.markAll();
    const { signal } = order;
    let stop: () => void = () => undefined;
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(asError(signal.reason));
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) stop();
    });
    try {
      await Promise.race([this.#copy(left, order), stopped]);
      return { left, error: null };
    } catch (thrown) {
      // What is under way is told as left, whatever becomes of it.
      return { left: new DirtyMap(this.#bytes, left.words.slice()), error: asError(thrown) };
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  async sums(disk: number, first: number, count: number): Promise<Uint8Array> {
    requireDisk(disk);
    return this.#calls.call('diskSums', { first, count });
  }

  // ── DiskTarget ──

  isBlank(disk: number): boolean {
    requireDisk(disk);
    return this.#isBlank;
  }

  begin(how: 'in-place' | 'staged'): Promise<void> {
    return this.#calls.call('diskBegin', how);
  }

  async write(disk: number, extents: Extents, data: Uint8Array): Promise<void> {
    requireDisk(disk);
    const { count, offsets, lengths, kinds, places } = extents;
    if (count === 0) return;
    this.#isBlank = false;
    const columns = {
      count,
      offsets: offsets.slice(0, count),
      lengths: lengths.slice(0, count),
      kinds: kinds.slice(0, count),
      places: places.slice(0, count),
    };
    // The data are part of a larger piece of the stream, which is not ours to hand over.
    await this.#calls.call('diskWrite', { extents: columns, slabs: [new Uint8Array(data)] });
  }

  committed(): Promise<void> {
    return this.#calls.call('diskCommitted', undefined);
  }

  taken(): Promise<void> {
    return this.#calls.call('diskTaken', undefined);
  }

  /** Becomes what the other one, of the same size, holds at this call. */
  async take(other: EmbeddedDisks): Promise<void> {
    await this.#calls.call('diskLoad', await other.#calls.call('diskCopied', undefined));
  }

  async #copy(left: DirtyMap, { bytesPerSecond = Infinity, signal, take }: DiskCopyOrder): Promise<void> {
    const rate = new Rate(bytesPerSecond, monotonicMs());
    const totalBytes = left.octets();
    let doneBytes = 0;
    let slab: Slab = new Uint8Array(SLAB_BYTES);
    for (;;) {
      signal.throwIfAborted();
      const run = left.nextRun(0, SLAB_BYTES);
      if (run === null) return;
      const { offset, length } = run;
      const waitMs = rate.spend(length, monotonicMs());
      if (waitMs > 0) await sleep(waitMs, undefined, { signal });
      const { extents, seals, slabs } = await this.#calls.call('diskRead', { offset, length, slabs: [slab] });
      doneBytes += length;
      slab = slabs[0] ?? new Uint8Array(SLAB_BYTES);
      signal.throwIfAborted();
      await take({ extents, slab, seals, doneBytes, totalBytes });
      left.clear(offset, length);
    }
  }
}

function requireDisk(disk: number): void {
  if (disk !== 0) throw new HypervisorError('WRONG_STATE', 'there is no such disk', { disk });
}
