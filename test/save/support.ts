// What the tests of the saver and the restorer share: a sink that records the stream in memory, a driver that takes
// a given number of checkpoints, a source over recorded octets.

import type { SaveCallbacks, SavedCheckpoint } from '../../src/save/callbacks.js';
import type { SourceDomain } from '../../src/hypervisor/port.js';
import type { ReplicatedDisk } from '../../src/hypervisor/port-disks.js';
import { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { ChunkSource } from '../../src/restore/file-source.js';
import { HEADROOM, type StreamPiece, type StreamSink } from '../../src/stream/flow.js';
import { PAGE_SIZE } from '../../src/stream/format.js';

/** Octets of the stream at which something ended. */
export interface RecordedBoundary {
  readonly epoch: number;
  readonly end: boolean;
  readonly offset: number;
}

/**
 * Records the stream as badly as a sink is allowed to: it writes its framing into the headroom at once and looks at
 * the pieces only when it drains, so memory that is reused too early shows.
 */
export class RecordingSink implements StreamSink {
  readonly boundaries: RecordedBoundary[] = [];
  bytes = 0;
  pieces = 0;
  #taken: Uint8Array[] = [];
  #waiting: StreamPiece[] = [];

  write(piece: StreamPiece): Promise<void> {
    piece.memory.fill(0xa5, piece.start - HEADROOM, piece.start);
    this.#waiting.push({ ...piece });
    this.bytes += piece.end - piece.start;
    this.pieces++;
    return Promise.resolve();
  }

  boundary(epoch: number, end: boolean): Promise<void> {
    this.boundaries.push({ epoch, end, offset: this.bytes });
    return Promise.resolve();
  }

  async drain(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    for (const { memory, start, end } of this.#waiting) this.#taken.push(memory.slice(start, end));
    this.#waiting = [];
  }

  octets(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#taken));
  }
}

export interface DriverOptions {
  readonly domain: SourceDomain;
  /** Checkpoints until 'finish'. */
  readonly checkpoints: number;
  /** While the domain runs, after `epoch` was captured. */
  readonly between?: (epoch: number) => void;
  /** While the domain is suspended for `epoch`, before anything is copied. */
  readonly suspended?: (epoch: number) => void;
  /** Answer before `sent`. */
  readonly early?: boolean;
}

/** Callbacks of a driver that suspends and resumes the domain and takes checkpoints one after another. */
export function driver(options: DriverOptions): SaveCallbacks & { readonly saved: SavedCheckpoint[] } {
  const { domain } = options;
  const saved: SavedCheckpoint[] = [];
  return {
    saved,
    async suspend(epoch) {
      await domain.suspend();
      options.suspended?.(epoch);
    },
    postcopy: () => domain.resume(),
    async checkpoint(epoch, sent) {
      const noted = sent.then((checkpoint) => {
        saved.push(checkpoint);
      });
      if (options.early === true) noted.catch(() => undefined);
      else await noted;
      options.between?.(epoch);
      return epoch + 1 >= options.checkpoints ? 'finish' : 'continue';
    },
  };
}

/** A source over octets, in chunks of the given size. */
export function sourceOf(octets: Uint8Array, chunkBytes = 64 * 1024): ChunkSource {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < octets.length; at += chunkBytes) {
      yield await Promise.resolve(octets.subarray(at, at + chunkBytes));
    }
  }
  return new ChunkSource(chunks());
}

/** An empty domain of the same size. */
export function targetFor(
  pages: number,
  emulator = false,
  replicated: readonly ReplicatedDisk[] = [],
): MemoryDomain {
  const disks = replicated.length === 0 ? {} : { disks: new MemoryDisks({ disks: replicated }) };
  return new MemoryDomain({ name: 'standby', pages, empty: true, emulator, ...disks });
}

/** A page filled with a pattern that differs for every (pfn, generation). */
export function pagePattern(pfn: number, generation: number): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  const words = new Uint32Array(page.buffer);
  let value = Math.imul(pfn + 1, 0x9e3779b1) ^ Math.imul(generation + 1, 0x85ebca6b);
  for (let i = 0; i < words.length; i++) {
    value = (Math.imul(value, 1664525) + 1013904223) | 0;
    words[i] = value;
  }
  return page;
}

/** The first pfn whose memory or presence differs, or -1. */
export function firstDifference(a: MemoryDomain, b: MemoryDomain): number {
  for (let pfn = 0; pfn < a.pages; pfn++) {
    if (a.populated.has(pfn) !== b.populated.has(pfn)) return pfn;
    if (Buffer.compare(a.page(pfn), b.page(pfn)) !== 0) return pfn;
  }
  return -1;
}
