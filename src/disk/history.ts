// Which chunks of a domain's disks differ between a point that the other side has and now: a chain of points, and between
// two of them what was written.
//
//   point ── written ── point ── written ── point (acknowledged) ── written ── point │ written since: open
//   └ durable on the other side: what is before is forgotten
//
// It is bounded: where there are too many points, some of the older ones go, and what was written around them is one.
// Whoever asks for one that has gone gets the answer for the one before, which says more, never less.

import { DirtyMap } from './dirty-map.js';
import type { Extents } from './extents.js';
import { f64At } from './extents.js';
import { valueAt } from '../stream/bounds.js';

const POINTS_MAX = 128;
const NOTHING = new Uint8Array();

interface Entry {
  readonly streamUuid: string;
  readonly epoch: number;
  /** Of each disk what was written from the point before to this one, as DirtyMap encodes it. */
  written: readonly Uint8Array[];
}

export class DiskHistory {
  /** Octets of each disk. */
  readonly #bytes: readonly number[];
  #entries: Entry[] = [];
  readonly #open: DirtyMap[];

  constructor(bytes: readonly number[]) {
    this.#bytes = bytes;
    this.#open = bytes.map((each) => new DirtyMap(each));
  }

  /** @throws DiskError OUT_OF_DISK */
  wrote(disk: number, { count, offsets, lengths }: Extents): void {
    const map = valueAt(this.#open, disk);
    for (let i = 0; i < count; i++) map.mark(f64At(offsets, i), f64At(lengths, i));
  }

  /** @throws RangeError if the map is of a disk of another size */
  touched(disk: number, chunks: DirtyMap): void {
    valueAt(this.#open, disk).or(chunks);
  }

  /** The other side may come to have all that was written up to here. */
  captured(streamUuid: string, epoch: number): void {
    const written = this.#open.map((map) => (map.isEmpty ? NOTHING : map.encode()));
    for (const map of this.#open) if (!map.isEmpty) map.clear(0, map.bytes);
    this.#entries.push({ streamUuid, epoch, written });
    if (this.#entries.length > POINTS_MAX) this.#thin();
  }

  /** The other side will never come back with less than this. */
  durable(streamUuid: string, epoch: number): void {
    const at = this.#before(streamUuid, epoch);
    if (at > 0) this.#entries.splice(0, at);
  }

  /** What was written since, to each disk; null: it is not known, or it never was. */
  since(streamUuid: string, epoch: number): readonly DirtyMap[] | null {
    const at = this.#before(streamUuid, epoch);
    if (at < 0) return null;
    const later = this.#entries.slice(at + 1);
    return this.#open.map((open, disk) => {
      const map = new DirtyMap(open.bytes, open.words.slice());
      for (const { written } of later) this.#add(map, valueAt(written, disk));
      return map;
    });
  }

  /** Nothing is known of what was written until now. */
  forget(): void {
    this.#entries = [];
    for (const map of this.#open) map.clear(0, map.bytes);
  }

  /** The index of the point, or of the last before it that is kept; -1: there is none. The points of a stream are neighbours. */
  #before(streamUuid: string, epoch: number): number {
    const later = this.#entries.findIndex((each) => each.streamUuid === streamUuid && each.epoch > epoch);
    if (later >= 0) return later - 1;
    return this.#entries.findLastIndex((each) => each.streamUuid === streamUuid);
  }

  /** Every other point of the older half goes. */
  #thin(): void {
    const entries = this.#entries;
    const kept: Entry[] = [];
    for (const [index, entry] of entries.entries()) {
      const before = kept.at(-1);
      // The first stands for all that is older, and none that is the last of its stream may go.
      const goes = index % 2 === 1 && index < entries.length / 2;
      const next = entries[index + 1];
      if (goes && before && next?.streamUuid === entry.streamUuid) {
        next.written = next.written.map((written, disk) =>
          this.#joined(disk, valueAt(entry.written, disk), written),
        );
      } else {
        kept.push(entry);
      }
    }
    // Streams that are all of one point: the oldest are not worth it.
    this.#entries = kept.slice(-POINTS_MAX);
  }

  #joined(disk: number, one: Uint8Array, other: Uint8Array): Uint8Array {
    if (one.length === 0) return other;
    const map = DirtyMap.decode(one, valueAt(this.#bytes, disk));
    this.#add(map, other);
    return map.encode();
  }

  #add(map: DirtyMap, written: Uint8Array): void {
    if (written.length > 0) map.or(DirtyMap.decode(written, map.bytes));
  }
}
