// The image of dirty tracking by comparison: a copy of guest RAM in memory that the comparing thread shares. In segments,
// because one array cannot be as large as a large guest. Memory that was never written costs nothing; but a guest may
// write all of its own, and for a host that has no more of it there is no error then, only somebody who is killed. So it
// is asked for before.
//
//   RAM     |              |              |    |
//   image   | segment 0    | segment 1    | 2  |      SEGMENT_BYTES each, the last one what is left

import { PAGE_SIZE } from '../../../stream/format.js';
import { requireHostMemory } from '../../host-memory.js';

export const SEGMENT_BYTES = 2 ** 30;

/** @throws HypervisorError OUT_OF_MEMORY */
export function requireImageMemory(bytes: number): void {
  requireHostMemory(bytes, 'the copy of guest RAM that it is compared with');
}

export function allocateImage(bytes: number): SharedArrayBuffer[] {
  const segments: SharedArrayBuffer[] = [];
  for (let at = 0; at < bytes; at += SEGMENT_BYTES) {
    segments.push(new SharedArrayBuffer(Math.min(SEGMENT_BYTES, bytes - at)));
  }
  return segments;
}

export class RamImage {
  readonly bytes: number;
  readonly #segments: readonly Buffer[];

  constructor(memory: readonly SharedArrayBuffer[]) {
    this.#segments = memory.map((segment) => Buffer.from(segment));
    this.bytes = this.#segments.reduce((sum, segment) => sum + segment.length, 0);
  }

  /** The segment that octet `at` lies in, at `at` modulo SEGMENT_BYTES. */
  segment(at: number): Buffer {
    const segment = this.#segments[Math.floor(at / SEGMENT_BYTES)];
    if (segment === undefined) throw new RangeError(`octet ${at} is outside an image of ${this.bytes}`);
    return segment;
  }

  /** Page `pfn` into `to` at `toAt`. */
  copyPage(pfn: number, to: Uint8Array, toAt: number): void {
    const at = pfn * PAGE_SIZE;
    const start = at % SEGMENT_BYTES;
    to.set(this.segment(at).subarray(start, start + PAGE_SIZE), toAt);
  }
}
