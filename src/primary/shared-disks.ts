// What the standby has of the domain's disks, over the streams; beside shared.ts, which knows that of memory.
//
//   a stream begins ─▶ the point that the standby has (hello) ─┬─ in the history: what was written since
//                                                              ├─ a blank disk: all of it (zeroes are told, not sent)
//                                                              └─ else: chunks whose sums differ
//   what the saver takes of the domain's writes ─▶ history

import type { ChunkRange, Hello } from '../channel/contract.js';
import { SUMS_MAX } from '../channel/contract.js';
import { CHUNK_BYTES, DirtyMap } from '../disk/dirty-map.js';
import { DiskHistory } from '../disk/history.js';
import { SUM_BYTES } from '../disk/sums.js';
import type { DiskPoint, DiskSource, DiskWrites } from '../hypervisor/port-disks.js';
import type { DiskTodo } from '../save/disks.js';

/** Of a primary's link. */
export interface DisksThere {
  readonly hello: Pick<Hello, 'shared' | 'images' | 'blankDisks'>;
  /** As the welcome says: its memory is as of hello.shared, and so are its images. */
  readonly resumes: boolean;
  sums(range: ChunkRange): Promise<Uint8Array>;
}

export class SharedDisks {
  readonly #source: DiskSource;
  readonly #history: DiskHistory;

  /** `source`: the domain's. */
  constructor(source: DiskSource) {
    this.#source = source;
    this.#history = new DiskHistory(source.disks.map(({ bytes }) => bytes));
  }

  /**
   * What the standby lacks of each disk. `marked`: chunks that were written before writes were kept; null: that is not
   * known.
   * @throws ChannelError that of the lost link; HypervisorError FAILED; the signal's reason
   */
  async todo(
    there: DisksThere,
    marked: readonly (DirtyMap | null)[],
    signal: AbortSignal,
  ): Promise<readonly DiskTodo[]> {
    for (const [disk, map] of marked.entries()) {
      if (map) this.#history.touched(disk, map);
    }
    if (marked.includes(null)) this.#history.forget();
    const { shared, images, blankDisks } = there.hello;
    const point = there.resumes ? shared : images;
    const since = point && this.#history.since(point.streamUuid, point.epoch);
    if (since) return since;
    const todo: DiskTodo[] = [];
    for (const [disk, { id, bytes }] of this.#source.disks.entries()) {
      todo.push(blankDisks.includes(id) ? 'all' : await this.#different(there, disk, bytes, signal));
    }
    return todo;
  }

  wrote({ disk, extents, dirty }: Pick<DiskWrites, 'disk' | 'extents' | 'dirty'>): void {
    this.#history.wrote(disk, extents);
    if (dirty) this.#history.touched(disk, dirty);
  }

  captured(streamUuid: string, epoch: number): void {
    this.#history.captured(streamUuid, epoch);
  }

  /** The standby's images are as of this point, or a later one, whatever becomes of its host. */
  durable({ streamUuid, epoch }: DiskPoint): void {
    this.#history.durable(streamUuid, epoch);
  }

  async #different(there: DisksThere, disk: number, bytes: number, signal: AbortSignal): Promise<DirtyMap> {
    const map = new DirtyMap(bytes);
    for (let first = 0; first < map.chunks; first += SUMS_MAX) {
      signal.throwIfAborted();
      const range = { disk, first, count: Math.min(SUMS_MAX, map.chunks - first) };
      const [ours, theirs] = await Promise.all([
        this.#source.sums(disk, range.first, range.count),
        there.sums(range),
      ]);
      markDifferent(map, first, ours, theirs);
    }
    return map;
  }
}

function markDifferent(map: DirtyMap, first: number, ours: Uint8Array, theirs: Uint8Array): void {
  for (let at = 0; at < ours.length; at += SUM_BYTES) {
    const end = at + SUM_BYTES;
    if (Buffer.compare(ours.subarray(at, end), theirs.subarray(at, end)) === 0) continue;
    const offset = (first + at / SUM_BYTES) * CHUNK_BYTES;
    map.mark(offset, Math.min(CHUNK_BYTES, map.bytes - offset));
  }
}
