// What one epoch has written to one disk: not the writes, but what the disk holds afterwards, as extents that do not
// overlap. A later write over an earlier one goes where the earlier one's octets lie; only what lies between the
// extents that are there takes new room. So the room taken is what there is to send, however often a guest rewrites a
// block.
//
//   extents, by offset   [ DATA ]    [ ZERO ][ DATA ]        order ─▶ slots: start, end, kind, place
//   a write                  ========================
//   in place, and new        iiinnnnnnnnnnniiiiinnnnn        n: ZERO is cut away first
//   slabs                │ data of all extents, in the order in which they came │ room │
//
// Where there is no room, the data are not kept: the chunks that they belong to are dirty, which means that whoever
// wants them reads them from the disk. Nothing is allocated for a write but columns that grow.

import { CHUNK_BYTES, DirtyMap } from './dirty-map.js';
import { demandOnDisk } from './error.js';
import { type Extents, SLAB_BYTES, type Slab, WriteKind, f64At, u32At } from './extents.js';
import type { SlabPool } from './slab-pool.js';
import { valueAt } from '../stream/bounds.js';

/** Extents of one epoch; what would make more of them is dirty. (No more than that is sorted, sent or searched.) */
const EXTENTS_MAX = 2 ** 16;
const SLOTS_MIN = 1024;
/** A write into the middle of an extent makes two out of it, and is one itself. */
const SLOTS_PER_STEP = 2;

/** One epoch's. Whoever takes it hands the slabs back to the pool that they are from. */
export interface SealedJournal {
  readonly extents: Extents;
  readonly slabs: readonly Slab[];
  /** Chunks whose content has to be read from the disk; no extent touches them. Null: there are none. */
  readonly dirty: DirtyMap | null;
}

export class Journal {
  /** Of the disk. */
  readonly bytes: number;
  readonly #pool: SlabPool;
  // Slots: the extent in each, wherever it stands in the order.
  #starts = new Float64Array(SLOTS_MIN);
  #ends = new Float64Array(SLOTS_MIN);
  #places = new Uint32Array(SLOTS_MIN);
  #kinds = new Uint8Array(SLOTS_MIN);
  /** The slots in use, by the offset of their extents. */
  #order = new Uint32Array(SLOTS_MIN);
  #count = 0;
  /** Slots that have been in use and are no more. */
  #free = new Uint32Array(SLOTS_MIN);
  #freeCount = 0;
  #slotsUsed = 0;
  #slabs: Slab[] = [];
  /** Octets taken of the last slab. */
  #slabUsed = SLAB_BYTES;
  #dirty: DirtyMap | null = null;

  constructor(bytes: number, pool: SlabPool) {
    this.bytes = bytes;
    this.#pool = pool;
  }

  /** Octets of data that are kept. */
  get dataBytes(): number {
    return (this.#slabs.length - 1) * SLAB_BYTES + this.#slabUsed;
  }

  /**
   * The first octets of a write (`length` octets of `source` from `from` on, for the disk's `offset`): as many as one
   * step takes. How many those are; 0: there is no room for the first. The range must be on the disk.
   */
  put(offset: number, source: Uint8Array, from: number, length: number): number {
    let index = this.#find(offset);
    let end = offset + length;
    let isCovered = false;
    if (index < this.#count) {
      const slot = u32At(this.#order, index);
      const start = f64At(this.#starts, slot);
      const slotEnd = f64At(this.#ends, slot);
      if (start > offset) {
        end = Math.min(end, start);
      } else if (this.#kinds[slot] === WriteKind.DATA) {
        const taken = Math.min(end, slotEnd) - offset;
        this.#copy(u32At(this.#places, slot) + offset - start, source, from, taken);
        return taken;
      } else {
        end = Math.min(end, slotEnd);
        isCovered = true;
      }
    }
    if (!this.#maySplit || !this.#hasRoom()) return 0;
    this.#growSlots();
    const taken = Math.min(end - offset, SLAB_BYTES - this.#slabUsed);
    if (isCovered) index = this.#cut(offset, offset + taken);
    const place = (this.#slabs.length - 1) * SLAB_BYTES + this.#slabUsed;
    if (this.#slabUsed === 0 || !this.#continues(index, offset, place)) {
      this.#insert(index, offset, offset + taken, WriteKind.DATA, place);
    } else {
      this.#ends[u32At(this.#order, index - 1)] = offset + taken;
    }
    this.#slabUsed += taken;
    this.#copy(place, source, from, taken);
    return taken;
  }

  /** The range is zeroes from now on, or undefined. @throws DiskError OUT_OF_DISK */
  cover(kind: typeof WriteKind.ZERO | typeof WriteKind.DISCARD, offset: number, length: number): void {
    demandOnDisk(offset, length, this.bytes);
    if (length === 0) return;
    if (!this.#maySplit) {
      this.spill(offset, length);
      return;
    }
    this.#growSlots();
    const end = offset + length;
    const index = this.#cut(offset, end);
    const before = index > 0 ? u32At(this.#order, index - 1) : -1;
    if (before >= 0 && this.#kinds[before] === kind && this.#ends[before] === offset) {
      this.#ends[before] = end;
    } else {
      this.#insert(index, offset, end, kind, 0);
    }
  }

  /** The range was written, and its data are not kept. @throws DiskError OUT_OF_DISK */
  spill(offset: number, length: number): void {
    this.#dirty ??= new DirtyMap(this.bytes);
    this.#dirty.mark(offset, length);
  }

  /** As spill(), of the first octets of a write, up to the end of the first chunk: how many octets that is. */
  spillFirst(offset: number, length: number): number {
    const octets = Math.min(length, CHUNK_BYTES - (offset % CHUNK_BYTES));
    this.spill(offset, octets);
    return octets;
  }

  /** What this epoch has written; the next one begins. */
  seal(): SealedJournal {
    const dirty = this.#dirty;
    if (dirty !== null) {
      for (const { offset, length } of dirty.runs()) {
        this.#growSlots();
        this.#cut(offset, offset + length);
      }
    }
    const sealed = { extents: this.#extents(), slabs: this.#slabs, dirty };
    this.#slabs = [];
    this.#clear();
    return sealed;
  }

  /** What this epoch has written is marked in `map`, and its data are given up; the next one begins. */
  sealInto(map: DirtyMap): void {
    for (let index = 0; index < this.#count; index++) {
      const slot = u32At(this.#order, index);
      const start = f64At(this.#starts, slot);
      map.mark(start, f64At(this.#ends, slot) - start);
    }
    if (this.#dirty !== null) map.or(this.#dirty);
    for (const slab of this.#slabs) this.#pool.give(slab);
    this.#slabs = [];
    this.#clear();
  }

  #clear(): void {
    this.#count = 0;
    this.#freeCount = 0;
    this.#slotsUsed = 0;
    this.#slabUsed = SLAB_BYTES;
    this.#dirty = null;
  }

  #extents(): Extents {
    const count = this.#count;
    const offsets = new Float64Array(count);
    const lengths = new Float64Array(count);
    const kinds = new Uint8Array(count);
    const places = new Uint32Array(count);
    for (let index = 0; index < count; index++) {
      const slot = u32At(this.#order, index);
      const start = f64At(this.#starts, slot);
      offsets[index] = start;
      lengths[index] = f64At(this.#ends, slot) - start;
      kinds[index] = valueAt(this.#kinds, slot);
      places[index] = u32At(this.#places, slot);
    }
    return { count, offsets, lengths, kinds, places };
  }

  /** The index of the first extent that ends behind the offset. */
  #find(offset: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (f64At(this.#ends, u32At(this.#order, middle)) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Takes start … end - 1 out of the extents. The index at which one of that range would stand. */
  #cut(start: number, end: number): number {
    let index = this.#find(start);
    if (index === this.#count) return index;
    const first = u32At(this.#order, index);
    if (f64At(this.#starts, first) < start) {
      const firstEnd = f64At(this.#ends, first);
      this.#ends[first] = start;
      index++;
      if (firstEnd > end) {
        const rest = this.#placeIn(first, end);
        this.#insert(index, end, firstEnd, valueAt(this.#kinds, first), rest);
        return index;
      }
    }
    let behind = index;
    for (; behind < this.#count; behind++) {
      const slot = u32At(this.#order, behind);
      if (f64At(this.#ends, slot) <= end) {
        this.#free[this.#freeCount++] = slot;
        continue;
      }
      if (f64At(this.#starts, slot) < end) {
        this.#places[slot] = this.#placeIn(slot, end);
        this.#starts[slot] = end;
      }
      break;
    }
    if (behind > index) {
      this.#order.copyWithin(index, behind, this.#count);
      this.#count -= behind - index;
    }
    return index;
  }

  /** Where in the slabs the octet of the disk lies that is part of this extent; 0 if it is not DATA. */
  #placeIn(slot: number, offset: number): number {
    if (this.#kinds[slot] !== WriteKind.DATA) return 0;
    return u32At(this.#places, slot) + offset - f64At(this.#starts, slot);
  }

  /** True: data for `offset` at `place` go on where the extent before this index ends, on the disk and in the slab. */
  #continues(index: number, offset: number, place: number): boolean {
    if (index === 0) return false;
    const slot = u32At(this.#order, index - 1);
    if (this.#kinds[slot] !== WriteKind.DATA || this.#ends[slot] !== offset) return false;
    return this.#placeIn(slot, offset) === place;
  }

  /** There is a slot for it: see #growSlots. */
  #insert(index: number, start: number, end: number, kind: number, place: number): void {
    const slot = this.#freeCount > 0 ? u32At(this.#free, --this.#freeCount) : this.#slotsUsed++;
    this.#starts[slot] = start;
    this.#ends[slot] = end;
    this.#kinds[slot] = kind;
    this.#places[slot] = place;
    if (index < this.#count) this.#order.copyWithin(index + 1, index, this.#count);
    this.#order[index] = slot;
    this.#count++;
  }

  /** Room for one octet at least. */
  #hasRoom(): boolean {
    if (this.#slabUsed < SLAB_BYTES) return true;
    const slab = this.#pool.take();
    if (slab === null) return false;
    this.#slabs.push(slab);
    this.#slabUsed = 0;
    return true;
  }

  get #maySplit(): boolean {
    return this.#count + SLOTS_PER_STEP <= EXTENTS_MAX;
  }

  /** To what one step may need. */
  #growSlots(): void {
    if (this.#count + SLOTS_PER_STEP <= this.#order.length) return;
    this.#starts = grown(this.#starts, Float64Array);
    this.#ends = grown(this.#ends, Float64Array);
    this.#places = grown(this.#places, Uint32Array);
    this.#kinds = grown(this.#kinds, Uint8Array);
    this.#order = grown(this.#order, Uint32Array);
    this.#free = grown(this.#free, Uint32Array);
  }

  #copy(place: number, source: Uint8Array, from: number, length: number): void {
    const slab = valueAt(this.#slabs, Math.floor(place / SLAB_BYTES));
    const octets = from === 0 && length === source.length ? source : source.subarray(from, from + length);
    slab.set(octets, place % SLAB_BYTES);
  }
}

type Column = Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>;

function grown<C extends Column>(column: C, Kind: new (length: number) => C): C {
  const larger = new Kind(column.length * 2);
  larger.set(column);
  return larger;
}
