// What the standby has of the domain's disks, over the streams: whatever the saver takes of their writes is noted before
// it goes on its way. Beside shared.ts, which does so for memory.

import type { Observable } from 'rxjs';
import type { DirtyMap } from '../disk/dirty-map.js';
import type { Slab } from '../disk/extents.js';
import { DiskHistory } from '../disk/history.js';
import type {
  DiskCopyOrder,
  DiskEvent,
  DiskPoint,
  DiskSource,
  DiskWrites,
  ReplicatedDisk,
} from '../hypervisor/port-disks.js';

export class SharedDisks implements DiskSource {
  readonly #source: DiskSource;
  readonly #history: DiskHistory;

  /** `source`: the domain's. */
  constructor(source: DiskSource) {
    this.#source = source;
    this.#history = new DiskHistory(source.disks.map(({ bytes }) => bytes));
  }

  get disks(): readonly ReplicatedDisk[] {
    return this.#source.disks;
  }

  get events$(): Observable<DiskEvent> {
    return this.#source.events$;
  }

  /** What differs from a point that the standby has; null: that is not known. Asked after keep(). */
  since({ streamUuid, epoch }: DiskPoint): readonly DirtyMap[] | null {
    return this.#history.since(streamUuid, epoch);
  }

  captured(streamUuid: string, epoch: number): void {
    this.#history.captured(streamUuid, epoch);
  }

  /** The standby's images are as of this point, or a later one, whatever becomes of its host. */
  durable({ streamUuid, epoch }: DiskPoint): void {
    this.#history.durable(streamUuid, epoch);
  }

  attach(): Promise<void> {
    return this.#source.attach();
  }

  async keep(): Promise<readonly (DirtyMap | null)[]> {
    const maps = await this.#source.keep();
    for (const [disk, map] of maps.entries()) {
      if (map) this.#history.touched(disk, map);
    }
    if (maps.includes(null)) this.#history.forget();
    return maps;
  }

  rest(): Promise<void> {
    return this.#source.rest();
  }

  /** What was sealed and does not come is not known to anybody. */
  async seal(): Promise<readonly DiskWrites[]> {
    try {
      const writes = await this.#source.seal();
      for (const { disk, extents, dirty } of writes) {
        this.#history.wrote(disk, extents);
        if (dirty) this.#history.touched(disk, dirty);
      }
      return writes;
    } catch (error) {
      this.#history.forget();
      throw error;
    }
  }

  release(slabs: readonly Slab[]): void {
    this.#source.release(slabs);
  }

  copy(order: DiskCopyOrder): Promise<{ readonly left: DirtyMap; readonly error: Error | null }> {
    return this.#source.copy(order);
  }

  sums(disk: number, first: number, count: number): Promise<Uint8Array> {
    return this.#source.sums(disk, first, count);
  }
}
