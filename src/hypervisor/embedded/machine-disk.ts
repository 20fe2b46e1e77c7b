// The machine's disk, which is an array in the machine's thread. What the guest writes goes into it and, while somebody
// keeps it, into a journal; what a stream writes goes into it, or into a copy that takes its place at the checkpoint.
// Everything here is synchronous, so each call is one moment in the order of the guest's writes.
//
//   source   off ── attach ──▶ map (chunks are marked) ── keep ──▶ keep (seal, seal, …) ── rest ──▶ map
//   target   begin in-place ─▶ content              begin staged ─▶ copy ── committed ──▶ content

import { CHUNK_BYTES, DirtyMap } from '../../disk/dirty-map.js';
import { type Extents, SLAB_BYTES, type Slab, WriteKind, f64At, u32At } from '../../disk/extents.js';
import { Journal } from '../../disk/journal.js';
import { SlabPool } from '../../disk/slab-pool.js';
import { SUM_BYTES, putSum } from '../../disk/sums.js';
import { HypervisorError } from '../port.js';
import type { V86DiskImage } from './v86.js';

/** Pressure is told when so much of the room for the guest's writes is left. */
const LITTLE = 1 / 4;
const zeroChunk = Buffer.alloc(CHUNK_BYTES);

/** What the domain's side sees at any time: numbers in shared memory. */
export const DiskFigure = { REQUESTS: 0, WRITTEN_BYTES: 1, JOURNAL_BYTES: 2 } as const;
export const DISK_FIGURES = 3;

export interface MachineDiskOptions {
  /** Of all data of the guest's writes that are kept at once. */
  readonly poolBytes: number;
  readonly figures: Float64Array;
  /** Little room is left. Once before each seal. */
  readonly pressed: () => void;
}

/** What was written since the last seal. Whoever takes it hands the slabs back. */
export interface SealedDisk {
  readonly extents: Extents;
  readonly slabs: Slab[];
  /** The words of a DirtyMap. */
  readonly dirty: Uint32Array<ArrayBuffer> | null;
}

export class MachineDisk {
  readonly bytes: number;
  readonly #image: V86DiskImage;
  readonly #figures: Float64Array;
  readonly #pool: SlabPool;
  readonly #journal: Journal;
  #mode: 'off' | 'map' | 'keep' = 'off';
  #map: DirtyMap;
  #seals = 0;
  #isPressed = false;
  /** Live view of what the guest sees. */
  #content: Uint8Array<ArrayBuffer>;
  /** What takes its place at the next checkpoint. */
  #staged: Uint8Array<ArrayBuffer> | null = null;

  /** `image` is v86's; it is no part of the machine's state any more. */
  constructor(image: V86DiskImage, { poolBytes, figures, pressed }: MachineDiskOptions) {
    this.bytes = image.byteLength;
    this.#image = image;
    this.#content = new Uint8Array(image.buffer);
    this.#figures = figures;
    this.#map = new DirtyMap(this.bytes);
    this.#pool = new SlabPool(poolBytes);
    this.#journal = new Journal(this.bytes, this.#pool);
    const littleSlabs = Math.ceil((poolBytes / SLAB_BYTES) * LITTLE);
    this.#pool.onTaken = () => {
      if (this.#isPressed || this.#pool.available > littleSlabs) return;
      this.#isPressed = true;
      pressed();
    };
    image.get_state = () => [];
    image.set_state = () => undefined;
    image.set = (offset, data, done) => {
      this.#guestWrites(offset, data);
      done();
    };
  }

  /** All of it is zeroes. */
  isBlank(): boolean {
    for (let at = 0; at < this.bytes; at += CHUNK_BYTES) if (!this.#isZero(at, CHUNK_BYTES)) return false;
    return true;
  }

  attach(): void {
    if (this.#mode === 'off') this.#mode = 'map';
  }

  /** The words of the map of what was written since attach() or rest(). @throws HypervisorError WRONG_STATE */
  keep(): Uint32Array<ArrayBuffer> {
    if (this.#mode === 'off') throw new HypervisorError('WRONG_STATE', 'the disk is not attached');
    this.rest();
    const { words } = this.#map;
    this.#map = new DirtyMap(this.bytes);
    this.#mode = 'keep';
    this.#seals = 0;
    return words;
  }

  rest(): void {
    if (this.#mode === 'off') return;
    this.#journal.sealInto(this.#map);
    this.#isPressed = false;
    this.#figures[DiskFigure.JOURNAL_BYTES] = 0;
    this.#mode = 'map';
  }

  seal(): SealedDisk {
    this.#seals++;
    this.#isPressed = false;
    const { extents, slabs, dirty } = this.#journal.seal();
    this.#figures[DiskFigure.JOURNAL_BYTES] = 0;
    return { extents, slabs: [...slabs], dirty: dirty?.words ?? null };
  }

  /** @throws DiskError BAD_SLAB */
  release(slabs: readonly Slab[]): void {
    for (const slab of slabs) this.#pool.give(slab);
  }

  /** What is there, into the slab: chunks of zeroes are told. `seals`: since keep(). */
  read(offset: number, length: number, slab: Slab): { readonly extents: Extents; readonly seals: number } {
    slab.set(this.#content.subarray(offset, offset + length));
    const runs: { start: number; end: number; kind: number }[] = [];
    for (let at = offset; at < offset + length; at += CHUNK_BYTES) {
      const end = Math.min(at + CHUNK_BYTES, offset + length);
      const kind = this.#isZero(at, end - at) ? WriteKind.ZERO : WriteKind.DATA;
      const last = runs.at(-1);
      if (last?.kind === kind) last.end = end;
      else runs.push({ start: at, end, kind });
    }
    const extents = {
      count: runs.length,
      offsets: Float64Array.from(runs, ({ start }) => start),
      lengths: Float64Array.from(runs, ({ start, end }) => end - start),
      kinds: Uint8Array.from(runs, ({ kind }) => kind),
      places: Uint32Array.from(runs, ({ start }) => start - offset),
    };
    return { extents, seals: this.#seals };
  }

  /** As DiskSource says. @throws HypervisorError WRONG_STATE */
  sums(first: number, count: number): Uint8Array {
    if (!(first >= 0 && count > 0 && first + count <= this.#map.chunks)) {
      throw new HypervisorError('WRONG_STATE', 'the disk has no such chunks', { first, count });
    }
    const sums = new DataView(new ArrayBuffer(count * SUM_BYTES));
    for (let k = 0; k < count; k++) {
      const at = (first + k) * CHUNK_BYTES;
      putSum(this.#content.subarray(at, at + CHUNK_BYTES), sums, k * SUM_BYTES);
    }
    return new Uint8Array(sums.buffer);
  }

  /** As DiskTarget says. What was staged is dropped. */
  begin(how: 'in-place' | 'staged'): void {
    this.#staged = how === 'staged' ? this.#content.slice() : null;
  }

  write({ count, offsets, lengths, kinds, places }: Extents, data: Uint8Array): void {
    const into = this.#staged ?? this.#content;
    for (let k = 0; k < count; k++) {
      const offset = f64At(offsets, k);
      const length = f64At(lengths, k);
      const place = u32At(places, k);
      if (kinds[k] === WriteKind.DATA) into.set(data.subarray(place, place + length), offset);
      else into.fill(0, offset, offset + length);
    }
  }

  committed(): void {
    if (this.#staged !== null) this.#become(this.#staged);
    this.#staged = null;
  }

  dropStaged(): void {
    this.#staged = null;
  }

  /** A copy that other threads see. */
  copied(): SharedArrayBuffer {
    const copy = new SharedArrayBuffer(this.bytes);
    new Uint8Array(copy).set(this.#content);
    return copy;
  }

  /** What copied() gave of another disk of this size. */
  load(copy: SharedArrayBuffer): void {
    this.#content.set(new Uint8Array(copy));
  }

  #guestWrites(offset: number, data: Uint8Array): void {
    this.#content.set(data, offset);
    this.#count(DiskFigure.REQUESTS, 1);
    this.#count(DiskFigure.WRITTEN_BYTES, data.length);
    if (this.#mode === 'map') this.#map.mark(offset, data.length);
    if (this.#mode !== 'keep') return;
    const journal = this.#journal;
    for (let done = 0; done < data.length;) {
      const taken = journal.put(offset + done, data, done, data.length - done);
      done += taken > 0 ? taken : journal.spillFirst(offset + done, data.length - done);
    }
    this.#figures[DiskFigure.JOURNAL_BYTES] = journal.dataBytes;
  }

  #count(figure: number, more: number): void {
    this.#figures[figure] = f64At(this.#figures, figure) + more;
  }

  #isZero(at: number, length: number): boolean {
    const end = Math.min(at + length, this.bytes);
    return zeroChunk.compare(this.#content, at, end, 0, end - at) === 0;
  }

  #become(content: Uint8Array<ArrayBuffer>): void {
    this.#image.buffer = content.buffer;
    this.#content = content;
  }
}
