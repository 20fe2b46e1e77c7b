// Pages between the domain's side and the worker. Out of the machine they go straight into the caller's slab where that
// is shared memory, which the worker remembers by a number; else, and into the machine, through the staging memory.
//
//   out   slab (shared) ◀── worker            in   data ─▶ slot 0 │ slot 1 │ slot 2 │ slot 3 ─▶ worker
//         slab ◀── staging, whole ◀── worker              filled while the worker empties the one before

import { PAGE_SIZE } from '../../stream/format.js';
import { SLOT_COUNT, SLOT_PAGES, type Calls, type SharedMemory, type WorkerCalls } from './messages.js';

/** Slabs that the worker remembers; the oldest is forgotten for the next. */
const SLABS_REMEMBERED = 8;

export class PageTransfer {
  readonly #calls: WorkerCalls;
  readonly #staging: Uint8Array;
  readonly #stagingFrames: Uint32Array;
  /** Each slot's last use; the next one waits for it. */
  readonly #slots: Promise<unknown>[];
  #nextSlot = 0;
  readonly #slabs = new Map<SharedArrayBuffer, number>();
  #nextSlab = 0;

  constructor(calls: WorkerCalls, { staging, frames }: SharedMemory) {
    this.#calls = calls;
    this.#staging = new Uint8Array(staging);
    this.#stagingFrames = new Uint32Array(frames);
    this.#slots = new Array<Promise<unknown>>(SLOT_COUNT).fill(Promise.resolve());
  }

  /** The first `count` frames into the slab from `offset` on. */
  async copy(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): Promise<void> {
    const memory = slab.buffer;
    const at = slab.byteOffset + offset;
    if (!(memory instanceof SharedArrayBuffer) || at % 4 !== 0 || memory.byteLength % 4 !== 0) {
      await this.#copyThroughStaging(gfns, count, slab, offset);
      return;
    }
    const { slab: number, first } = this.#nameSlab(memory);
    await this.#calls.call('copy', {
      frames: gfns.slice(0, count),
      slab: number,
      offset: at,
      ...(first && { memory }),
    });
  }

  /** The first `count` pages of `data`, to be written to the frames or compared with them; an answer for each slot. */
  async through<K extends 'write' | 'compare'>(
    name: K,
    gfns: Uint32Array,
    count: number,
    data: Uint8Array,
  ): Promise<Calls[K]['result'][]> {
    const calls: Promise<Calls[K]['result']>[] = [];
    for (let from = 0; from < count; from += SLOT_PAGES) {
      const pages = Math.min(SLOT_PAGES, count - from);
      const slot = this.#nextSlot;
      this.#nextSlot = (slot + 1) % SLOT_COUNT;
      const before = this.#slots[slot];
      const call = (async () => {
        await before?.catch(() => undefined); // its own caller hears of it
        const first = slot * SLOT_PAGES;
        this.#staging.set(data.subarray(from * PAGE_SIZE, (from + pages) * PAGE_SIZE), first * PAGE_SIZE);
        this.#stagingFrames.set(gfns.subarray(from, from + pages), first);
        return this.#calls.call(name, { slot, count: pages });
      })();
      this.#slots[slot] = call;
      calls.push(call);
    }
    // All are settled before the caller has its arrays again, whichever fails.
    await Promise.allSettled(calls);
    return Promise.all(calls);
  }

  /** The number that the worker knows a slab by, and whether this is the first that it hears of it. */
  #nameSlab(memory: SharedArrayBuffer): { slab: number; first: boolean } {
    const known = this.#slabs.get(memory);
    if (known !== undefined) return { slab: known, first: false };
    for (const [oldest, number] of this.#slabs) {
      if (this.#slabs.size < SLABS_REMEMBERED) break;
      this.#slabs.delete(oldest);
      // It fails only if the domain has ended, and then there is nothing to forget.
      this.#calls.call('forgetSlab', number).catch(() => undefined);
    }
    const slab = this.#nextSlab++;
    this.#slabs.set(memory, slab);
    return { slab, first: true };
  }

  async #copyThroughStaging(
    gfns: Uint32Array,
    count: number,
    slab: Uint8Array,
    offset: number,
  ): Promise<void> {
    // The staging memory is taken as a whole: when its slots are free, and until we have read it.
    const before = Promise.allSettled(this.#slots);
    const copied = (async () => {
      await before;
      const capacity = SLOT_COUNT * SLOT_PAGES;
      for (let from = 0; from < count; from += capacity) {
        const frames = gfns.slice(from, Math.min(from + capacity, count));
        await this.#calls.call('copyToStaging', { frames });
        slab.set(this.#staging.subarray(0, frames.length * PAGE_SIZE), offset + from * PAGE_SIZE);
      }
    })();
    for (let slot = 0; slot < SLOT_COUNT; slot++) this.#slots[slot] = copied;
    await copied;
  }
}
