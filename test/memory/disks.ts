// The disks of a memory domain: arrays. As a source it keeps what the guest writes in the journals that a real one has,
// and answers as late, and in the order, as a thread of its own would; as a target it writes into the arrays, or beside
// them, and tells later than it was told what is durable.

import { xxh3 } from '@node-rs/xxhash';
import { BehaviorSubject, Subject } from 'rxjs';
import { CHUNK_BYTES, DirtyMap } from '../../src/disk/dirty-map.js';
import { type Extents, type Slab, WriteKind, f64At, u32At } from '../../src/disk/extents.js';
import { Journal } from '../../src/disk/journal.js';
import { Mask } from '../../src/disk/mask.js';
import { SlabPool } from '../../src/disk/slab-pool.js';
import type {
  DiskCopyOrder,
  DiskEvent,
  DiskFigures,
  DiskPoint,
  DiskSource,
  DiskTarget,
  DiskWrites,
  ReplicatedDisk,
} from '../../src/hypervisor/port-disks.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { valueAt } from '../../src/stream/bounds.js';
import { copyDisk } from './disk-copy.js';

export interface MemoryDisksOptions {
  readonly disks: readonly ReplicatedDisk[];
  /** Of the data of writes that are kept. Default: 16 MiB. */
  readonly poolBytes?: number;
  /** How many turns of the event loop the next thing takes. Default: one. */
  readonly turns?: () => number;
}

interface Disk {
  readonly image: Uint8Array<ArrayBuffer>;
  readonly journal: Journal;
  readonly mask: Mask;
  map: DirtyMap;
  /** Why. */
  lost: string | null;
  requests: number;
  writtenBytes: number;
  isBlank: boolean;
}

type Staged = readonly [disk: number, extents: Extents, data: Uint8Array];

export class MemoryDisks implements DiskSource, DiskTarget {
  readonly disks: readonly ReplicatedDisk[];
  readonly events$ = new Subject<DiskEvent>();
  readonly durable$ = new BehaviorSubject<DiskPoint | null>(null);
  /** What the record beside the images says. */
  record: DiskPoint | 'in between' | null = null;
  /** What the next write() of a target fails with. */
  failure: HypervisorError | null = null;
  /** The data of a write are not kept, as if there were no room. */
  losesData: () => boolean = () => false;
  mode: 'off' | 'map' | 'keep' = 'off';
  /** Seals since keep(), and all calls of begin(), committed() and taken(). */
  seals = 0;
  readonly calls: string[] = [];
  /** Slabs that were given out and not given back. */
  slabsOut = 0;
  /** Writes that a target has done, and octets of data in them. */
  written = 0;
  readonly #disks: readonly Disk[];
  readonly #pool: SlabPool;
  readonly #turns: () => number;
  #posted: (() => void)[] = [];
  #staged: Staged[] | null = null;

  constructor({ disks, poolBytes = 16 * 1024 * 1024, turns = () => 1 }: MemoryDisksOptions) {
    this.disks = disks;
    this.#pool = new SlabPool(poolBytes);
    this.#turns = turns;
    this.#disks = disks.map(({ bytes }) => ({
      image: new Uint8Array(bytes),
      journal: new Journal(bytes, this.#pool),
      mask: new Mask(),
      map: new DirtyMap(bytes),
      lost: null,
      requests: 0,
      writtenBytes: 0,
      isBlank: true,
    }));
  }

  image(disk: number): Uint8Array<ArrayBuffer> {
    return this.#of(disk).image;
  }

  imageCopies(): Uint8Array[] {
    return this.#disks.map(({ image }) => image.slice());
  }

  // ── what the guest does ──

  guestWrites(disk: number, offset: number, data: Uint8Array): void {
    const of = this.#of(disk);
    const { image, journal, mask, map } = of;
    image.set(data, offset);
    of.requests++;
    of.writtenBytes += data.length;
    mask.cut(offset, data.length);
    if (this.mode === 'map') map.mark(offset, data.length);
    if (this.mode !== 'keep') return;
    for (let done = 0; done < data.length;) {
      const taken = this.losesData() ? 0 : journal.put(offset + done, data, done, data.length - done);
      done += taken > 0 ? taken : journal.spillFirst(offset + done, data.length - done);
    }
  }

  /** Zeroes, or discards; what is discarded reads as zeroes. */
  guestCovers(
    kind: typeof WriteKind.ZERO | typeof WriteKind.DISCARD,
    disk: number,
    offset: number,
    length: number,
  ): void {
    const of = this.#of(disk);
    const { image, journal, mask, map } = of;
    image.fill(0, offset, offset + length);
    of.requests++;
    mask.cut(offset, length);
    if (this.mode === 'map') map.mark(offset, length);
    if (this.mode === 'keep') journal.cover(kind, offset, length);
  }

  loses(disk: number, reason = 'lost by the test'): void {
    this.#of(disk).lost = reason;
    this.events$.next({ kind: 'lost', disk, reason });
  }

  // ── DiskSource ──

  get figures(): readonly DiskFigures[] {
    return this.#disks.map(({ requests, writtenBytes, journal, lost }) => {
      return { requests, writtenBytes, journalBytes: journal.dataBytes, lost };
    });
  }

  attach(): Promise<void> {
    if (this.mode === 'off') this.mode = 'map';
    for (const disk of this.#disks) disk.lost = null;
    return Promise.resolve();
  }

  keep(): Promise<readonly (DirtyMap | null)[]> {
    if (this.mode === 'off') return Promise.reject(new HypervisorError('WRONG_STATE', 'not attached'));
    this.mode = 'keep';
    this.seals = 0;
    const maps = this.#disks.map(({ map, lost }) => (lost === null ? map : null));
    for (const disk of this.#disks) disk.map = new DirtyMap(disk.image.length);
    return Promise.resolve(maps);
  }

  rest(): Promise<void> {
    this.calls.push('rest');
    if (this.mode === 'keep') for (const { journal, map } of this.#disks) journal.sealInto(map);
    this.mode = 'map';
    return Promise.resolve();
  }

  async seal(): Promise<readonly DiskWrites[]> {
    const lost = this.#disks.findIndex((disk) => disk.lost !== null);
    if (lost >= 0) throw new HypervisorError('FAILED', 'the disk is lost', { disk: lost });
    this.seals++;
    const all = this.#disks.map(({ journal }, disk) => ({ disk, ...journal.seal() }));
    const written = all.filter(({ extents, dirty }) => extents.count > 0 || dirty !== null);
    for (const { slabs } of written) this.slabsOut += slabs.length;
    await this.#time();
    return new Promise((resolve) => this.#post(() => resolve(written)));
  }

  release(slabs: readonly Slab[]): void {
    this.slabsOut -= slabs.length;
    // As if it had been sent to another thread.
    for (const slab of slabs) this.#pool.give(structuredClone(slab.fill(0xdd), { transfer: [slab.buffer] }));
  }

  copy(order: DiskCopyOrder): Promise<{ readonly left: DirtyMap; readonly error: Error | null }> {
    const { image, mask } = this.#of(order.disk);
    const todo = new DirtyMap(image.length, order.todo?.words.slice());
    if (order.todo === undefined) todo.markAll();
    const time = () => this.#time();
    const post = (deliver: () => void) => this.#post(deliver);
    return copyDisk({ image, mask, time, post, seals: () => this.seals }, todo, order);
  }

  sums(disk: number, first: number, count: number): Promise<Uint8Array> {
    const { image } = this.#of(disk);
    const sums = Buffer.alloc(16 * count);
    for (let i = 0; i < count; i++) {
      const chunk = image.subarray((first + i) * CHUNK_BYTES, (first + i + 1) * CHUNK_BYTES);
      const sum = xxh3.xxh128(chunk);
      sums.writeBigUInt64BE(sum >> 64n, 16 * i);
      sums.writeBigUInt64BE(sum & 0xffffffffffffffffn, 16 * i + 8);
    }
    return Promise.resolve(sums);
  }

  // ── DiskTarget ──

  isBlank(disk: number): boolean {
    return this.#of(disk).isBlank;
  }

  begin(how: 'in-place' | 'staged'): Promise<void> {
    this.calls.push(how);
    this.#staged = how === 'staged' ? [] : null;
    if (how === 'in-place') this.record = 'in between';
    return Promise.resolve();
  }

  async write(disk: number, extents: Extents, data: Uint8Array): Promise<void> {
    const { failure } = this;
    this.failure = null;
    if (failure !== null) throw failure;
    if (this.#staged === null) this.#apply(disk, extents, data);
    else this.#staged.push([disk, structuredClone({ ...extents, count: extents.count }), data.slice()]);
    // Memory that is used again before we have done is seen.
    await this.#time();
    this.written++;
  }

  committed(point: DiskPoint): Promise<void> {
    this.calls.push(`committed ${point.streamUuid} ${point.epoch}`);
    for (const [disk, extents, data] of this.#staged ?? []) this.#apply(disk, extents, data);
    this.#staged = null;
    this.record = point;
    this.durable$.next(point);
    return Promise.resolve();
  }

  taken(): Promise<void> {
    this.calls.push('taken');
    this.#staged = null;
    this.record = 'in between';
    return Promise.resolve();
  }

  #apply(disk: number, { count, offsets, lengths, kinds, places }: Extents, data: Uint8Array): void {
    const of = this.#of(disk);
    of.isBlank = false;
    for (let i = 0; i < count; i++) {
      const offset = f64At(offsets, i);
      const length = f64At(lengths, i);
      const place = u32At(places, i);
      if (offset + length > of.image.length) throw new RangeError(`${offset} + ${length} on disk ${disk}`);
      if (kinds[i] === WriteKind.DATA) of.image.set(data.subarray(place, place + length), offset);
      else of.image.fill(0, offset, offset + length);
    }
  }

  #of(disk: number): Disk {
    return valueAt(this.#disks, disk);
  }

  async #time(): Promise<void> {
    for (let turns = this.#turns(); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
  }

  /** One after another, each in a turn of its own: as messages of a thread are. */
  #post(deliver: () => void): void {
    this.#posted.push(deliver);
    setImmediate(() => this.#posted.shift()?.());
  }
}
