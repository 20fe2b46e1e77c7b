// A disk that is exported, as the thread that serves it sees it: what is done with what the guest writes.
//
//   journal    the data are kept for the epoch; what finds no room is dirty
//   throttle   as journal, but what finds no room waits for some (its writer waits for the reply), unless it was told to
//              let all through, until the next seal
//   map        nobody wants the data: only which chunks were written is kept, over all epochs

import { DirtyMap } from '../../../../disk/dirty-map.js';
import type { WriteKind } from '../../../../disk/extents.js';
import { Journal, type SealedJournal } from '../../../../disk/journal.js';
import { Mask } from '../../../../disk/mask.js';
import type { SlabPool } from '../../../../disk/slab-pool.js';

export type ExportMode = 'journal' | 'throttle' | 'map';

/** Of one epoch. */
export interface WriteCounters {
  /** Requests, and octets of data in them. */
  readonly writes: number;
  readonly writtenBytes: number;
  /** Requests that have no data: zeroes and discards. */
  readonly covers: number;
  /** Which nobody should send, and which fail. */
  readonly reads: number;
}

/** Of a disk, since its thread began. */
export interface ExportFigures {
  readonly name: string;
  /** With data or without. */
  readonly requests: number;
  readonly writtenBytes: number;
  /** Of the epoch that is open. */
  readonly journalBytes: number;
}

export class DiskExport {
  readonly name: string;
  readonly bytes: number;
  /** What of this disk is read in this thread. */
  readonly mask = new Mask();
  /** Called when there may be room for what was held back. */
  onRoom: () => void = () => undefined;
  readonly #journal: Journal;
  #map: DirtyMap | null = null;
  #mode: ExportMode = 'journal';
  #isOpen = false;
  #counters = noWrites();
  /** Of the epochs before. */
  #requestsBefore = 0;
  #writtenBytesBefore = 0;

  constructor(name: string, bytes: number, pool: SlabPool) {
    this.name = name;
    this.bytes = bytes;
    this.#journal = new Journal(bytes, pool);
  }

  /**
   * Takes the first octets of a write: `length` octets of `source` from `from` on, which must be on the disk. How many;
   * fewer than all: the others must wait until onRoom.
   */
  write(offset: number, source: Uint8Array, from: number, length: number): number {
    let taken = 0;
    if (this.#map !== null) {
      this.#map.mark(offset, length);
      taken = length;
    }
    while (taken < length) {
      const put = this.#journal.put(offset + taken, source, from + taken, length - taken);
      if (put === 0 && this.#mode === 'throttle' && !this.#isOpen) break;
      taken += put > 0 ? put : this.#journal.spillFirst(offset + taken, length - taken);
    }
    if (!this.mask.isIdle) this.mask.cut(offset, taken);
    this.#counters.writtenBytes += taken;
    return taken;
  }

  /** A whole range is zeroes, or undefined, from now on. It must be on the disk. */
  cover(kind: Exclude<WriteKind, 0>, offset: number, length: number): void {
    if (this.#map === null) this.#journal.cover(kind, offset, length);
    else this.#map.mark(offset, length);
    if (!this.mask.isIdle) this.mask.cut(offset, length);
    this.#counters.covers++;
  }

  /** A write is complete. */
  countWrite(): void {
    this.#counters.writes++;
  }

  countRead(): void {
    this.#counters.reads++;
  }

  /** Nothing waits any more, until the next seal. */
  letThrough(): void {
    this.#isOpen = true;
    this.onRoom();
  }

  get figures(): ExportFigures {
    const { writes, covers, writtenBytes } = this.#counters;
    return {
      name: this.name,
      requests: this.#requestsBefore + writes + covers,
      writtenBytes: this.#writtenBytesBefore + writtenBytes,
      journalBytes: this.#journal.dataBytes,
    };
  }

  /** The epoch ends here. */
  seal(): SealedJournal & { readonly counters: WriteCounters } {
    const counters = this.#counters;
    this.#requestsBefore += counters.writes + counters.covers;
    this.#writtenBytesBefore += counters.writtenBytes;
    this.#counters = noWrites();
    this.#isOpen = false;
    return { ...this.#journal.seal(), counters };
  }

  /** Leaving `map` gives the chunks that were written since it was chosen; else null. */
  setMode(mode: ExportMode): DirtyMap | null {
    const map = this.#map;
    this.#mode = mode;
    if (mode === 'map') {
      if (map === null) {
        this.#map = new DirtyMap(this.bytes);
        this.#journal.sealInto(this.#map);
      }
    } else {
      this.#map = null;
    }
    this.onRoom();
    return mode === 'map' ? null : map;
  }
}

function noWrites(): { -readonly [K in keyof WriteCounters]: WriteCounters[K] } {
  return { writes: 0, writtenBytes: 0, covers: 0, reads: 0 };
}
