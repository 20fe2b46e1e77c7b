// Copies a disk, or the chunks of it that a map has, out of QEMU's export, while the guest writes to it. Zeroes are told
// and not read, as far as QEMU knows of them.
//
//   todo ─▶ window 64 MiB ── block status ──▶ zeroes ─────────────────────────────────────▶ take
//                                        └──▶ pieces of a slab ─▶ lanes: read … read … ─▶ take (the slab, and back)
//
// What the guest writes to a block while it is looked up or read is cut out of what is found (see mask.ts): the writes
// alone tell of it. So whoever applies both applies what is given to `take` in the order in which it is given, and each
// epoch's writes after all that was given in it.
//
// Nothing is read for which there is no slab: whoever takes a batch slowly is copied for slowly. What has not been taken
// when it ends, however that is, is in the map.

import { setTimeout as sleep } from 'node:timers/promises';
import { CHUNK_BYTES, DirtyMap } from '../../../../disk/dirty-map.js';
import { SLAB_BYTES, WriteKind, type Extents, type Slab } from '../../../../disk/extents.js';
import type { Mask, MaskedRead } from '../../../../disk/mask.js';
import { asError } from '../../../../errors.js';
import { monotonicMs } from '../../../../flow/clock.js';
import { InOrder } from '../../../../flow/in-order.js';
import { valueAt } from '../../../../stream/bounds.js';
import { markData, stretches, type Stretch } from './block-status.js';
import type { NbdClient } from './client.js';
import { NbdError } from './error.js';
import { Rate } from '../../../../disk/rate.js';

/** Looked up at a time. */
const WINDOW_BYTES = 64 * 1024 * 1024;
/** Reads under way, each of a slab: as much memory. */
export const LANES = 6;

/** What the disk holds in some extents, as of when they were read. */
export interface CopyBatch {
  /** Of DATA and ZERO; places are in the slab. */
  readonly extents: Extents;
  readonly slab: Slab | null;
}

export interface CopyProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** At the speed that it had so far; null: it has had none. */
  readonly remainingSeconds: number | null;
}

export interface CopyOptions {
  /** Of the export, with the context ALLOCATION. */
  readonly client: NbdClient;
  /** What is told of all writes to this disk, in this thread. */
  readonly mask: Mask;
  /** What is to be copied: what is, is cleared. */
  readonly todo: DirtyMap;
  /** Infinity: no limit. */
  readonly bytesPerSecond: number;
  /** Takes a batch at once, before anything else happens in this thread. Resolves to a slab to go on with. */
  readonly take: (batch: CopyBatch, progress: CopyProgress) => Promise<Slab | null>;
  readonly signal: AbortSignal;
}

interface Piece {
  readonly offset: number;
  readonly length: number;
}

/**
 * Resolves when all of the map was taken.
 * @throws NbdError; what the signal says; what `take` throws
 */
export async function copyDisk(options: CopyOptions): Promise<void> {
  const { client, todo } = options;
  if (client.bytes !== todo.bytes) {
    const facts = { bytes: client.bytes, wanted: todo.bytes };
    throw new NbdError('OUT_OF_RANGE', 'the export is not of the size of the disk', facts);
  }
  const copying = new Copying(options);
  await Promise.allSettled(Array.from({ length: LANES }, () => copying.lane()));
  if (copying.failure !== null) throw copying.failure;
}

class Copying {
  /** The first. */
  failure: Error | null = null;
  readonly #options: CopyOptions;
  /** That of the options, or that the client or one lane has failed: nobody waits then. */
  readonly #signal: AbortSignal;
  readonly #failed = new AbortController();
  readonly #rate: Rate;
  readonly #startedMs = monotonicMs();
  readonly #totalBytes: number;
  #doneBytes = 0;
  /** What the disk holds anything in, as far as it has been looked up: up to the cursor. */
  readonly #data: DirtyMap;
  #cursor = 0;
  /** What of that is to be read. */
  #found: Piece[] = [];
  readonly #looking = new InOrder();

  constructor(options: CopyOptions) {
    this.#options = options;
    this.#rate = new Rate(options.bytesPerSecond, this.#startedMs);
    this.#signal = AbortSignal.any([options.signal, this.#failed.signal]);
    this.#totalBytes = options.todo.octets();
    void options.client.ended.then((error) => this.#fail(error));
    this.#data = new DirtyMap(options.todo.bytes);
  }

  /** One read after another, until nothing is left, or one lane has failed. */
  async lane(): Promise<void> {
    try {
      let slab: Slab = new Uint8Array(SLAB_BYTES);
      for (let piece = await this.#next(); piece !== null; piece = await this.#next()) {
        slab = await this.#read(piece, slab);
      }
    } catch (thrown) {
      this.#fail(asError(thrown));
    }
  }

  #fail(error: Error): void {
    this.failure ??= error;
    this.#failed.abort();
  }

  /** Null: there is nothing (more) to be read. */
  #next(): Promise<Piece | null> {
    return this.#looking.do(async () => {
      while (this.#found.length === 0) {
        this.#signal.throwIfAborted();
        const window = this.#options.todo.nextRun(this.#cursor, WINDOW_BYTES);
        if (window === null) return null;
        this.#cursor = Math.ceil((window.offset + window.length) / CHUNK_BYTES) * CHUNK_BYTES;
        // What is one read is looked up by reading it.
        if (window.length <= SLAB_BYTES) this.#found.push(window);
        else await this.#look(window);
      }
      this.#signal.throwIfAborted();
      return this.#found.shift() ?? null;
    });
  }

  async #look({ offset, length }: Piece): Promise<void> {
    const { client, mask } = this.#options;
    const masked = mask.begin(offset, length);
    try {
      await markData(client, offset, length, this.#data);
    } finally {
      mask.end(masked);
    }
    const all = [...stretches(this.#data, offset, length)];
    const zeroes = all.filter(({ isData }) => !isData);
    const extents = zeroExtents(masked, zeroes);
    this.#doneBytes += zeroes.reduce((sum, stretch) => sum + stretch.length, 0);
    if (extents.count > 0) await this.#take({ extents, slab: null });
    for (const stretch of zeroes) this.#options.todo.clear(stretch.offset, stretch.length);
    this.#found = all.filter(({ isData }) => isData).flatMap(pieces);
  }

  /** The slab to go on with. */
  async #read({ offset, length }: Piece, slab: Slab): Promise<Slab> {
    const { client, mask, todo } = this.#options;
    const waitMs = this.#rate.spend(length, monotonicMs());
    if (waitMs > 0) await sleep(waitMs, undefined, { signal: this.#signal });
    const masked = mask.begin(offset, length);
    try {
      await client.read(offset, slab.subarray(0, length));
    } finally {
      mask.end(masked);
    }
    this.#doneBytes += length;
    const extents = dataExtents(masked);
    const next = extents.count > 0 ? await this.#take({ extents, slab }) : slab;
    todo.clear(offset, length);
    return next ?? new Uint8Array(SLAB_BYTES);
  }

  #take(batch: CopyBatch): Promise<Slab | null> {
    const doneBytes = this.#doneBytes;
    const totalBytes = this.#totalBytes;
    const elapsedSeconds = (monotonicMs() - this.#startedMs) / 1000;
    const remainingSeconds = doneBytes === 0 ? null : ((totalBytes - doneBytes) * elapsedSeconds) / doneBytes;
    return this.#options.take(batch, { doneBytes, totalBytes, remainingSeconds });
  }
}

function pieces({ offset, length }: Stretch): Piece[] {
  return Array.from({ length: Math.ceil(length / SLAB_BYTES) }, (_, index) => {
    const done = index * SLAB_BYTES;
    return { offset: offset + done, length: Math.min(SLAB_BYTES, length - done) };
  });
}

/** What is left of a read, whose data stand at the beginning of a slab. */
function dataExtents({ offset, left }: MaskedRead): Extents {
  const extents = noExtents(left.length / 2);
  for (let i = 0; i < extents.count; i++) {
    const start = valueAt(left, 2 * i);
    extents.offsets[i] = start;
    extents.lengths[i] = valueAt(left, 2 * i + 1) - start;
    extents.places[i] = start - offset;
  }
  return extents;
}

/** What is left of what was looked up, as far as it was found to be zeroes. */
function zeroExtents({ left }: MaskedRead, zeroes: readonly Stretch[]): Extents {
  const ranges: number[] = [];
  for (const { offset, length } of zeroes) {
    for (let i = 0; i < left.length; i += 2) {
      const start = Math.max(offset, valueAt(left, i));
      const end = Math.min(offset + length, valueAt(left, i + 1));
      if (start < end) ranges.push(start, end);
    }
  }
  const extents = noExtents(ranges.length / 2);
  for (let i = 0; i < extents.count; i++) {
    const start = valueAt(ranges, 2 * i);
    extents.offsets[i] = start;
    extents.lengths[i] = valueAt(ranges, 2 * i + 1) - start;
    extents.kinds[i] = WriteKind.ZERO;
  }
  return extents;
}

function noExtents(count: number): Extents {
  return {
    count,
    offsets: new Float64Array(count),
    lengths: new Float64Array(count),
    kinds: new Uint8Array(count), // DATA
    places: new Uint32Array(count),
  };
}
