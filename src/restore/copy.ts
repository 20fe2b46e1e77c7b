// A copy of a domain as of a checkpoint, made while it goes on with the next ones. Nothing waits for the whole of it: only
// what is about to be written, and is not copied yet, is copied first.
//
//   run      ───▶ a slab ─▶ a slab ─▶ … ─▶ whole          what is left, in the order of the frames
//   before          └ the frames of a record, those that are left
//
// Whatever goes wrong ends the copy, and not what the domain is filled with.

import { setTimeout as sleep } from 'node:timers/promises';
import { asError } from '../errors.js';
import { InOrder } from '../flow/in-order.js';
import type { Bitmap } from '../hypervisor/bitmap.js';
import { PageStamps, REST_MS, SLAB_PAGES, openSlab } from '../hypervisor/page-stamps.js';
import type { TargetDomain } from '../hypervisor/port.js';
import { valueAt } from '../stream/bounds.js';

export type CopySource = Pick<TargetDomain, 'copyPages'>;
export type CopyTarget = Pick<TargetDomain, 'populate' | 'writePages'>;

export class DomainCopy {
  /** Of what was copied. */
  readonly stamps: PageStamps;
  readonly #from: CopySource;
  readonly #into: CopyTarget;
  readonly #left: Bitmap;
  readonly #order = new InOrder();
  readonly #frames = new Uint32Array(SLAB_PAGES);
  readonly #gfns = new Uint32Array(SLAB_PAGES);
  readonly #slab = openSlab();
  readonly #octets = new Uint8Array(this.#slab.buffer);
  readonly #over: Promise<void>;
  #tellOver: () => void = () => undefined;
  #failure: Error | null = null;

  /** `frames`: all that the domain has; it becomes ours. */
  constructor(from: CopySource, into: CopyTarget, frames: Bitmap) {
    this.#from = from;
    this.#into = into;
    this.#left = frames;
    this.stamps = new PageStamps(frames.size);
    this.#over = new Promise((resolve) => (this.#tellOver = resolve));
  }

  /** Resolves when all is copied. @throws what has ended it */
  async run(): Promise<void> {
    for (let from = 0; from >= 0;) {
      const at = from;
      const copied = this.#order.do(() => this.#copyFrom(at)).catch((error: unknown) => this.#end(error));
      from = await Promise.race([copied, this.#over.then(() => -1)]);
      this.requireGoing();
      await sleep(REST_MS);
    }
  }

  /** The first `count` frames are about to be written: resolves when they may be. Never rejects. */
  async before(gfns: Uint32Array, count: number): Promise<void> {
    if (this.#failure !== null) return;
    const copied = this.#order
      .do(() => this.#copyThese(gfns, count))
      .catch((error: unknown) => this.#end(error));
    await Promise.race([copied, this.#over]);
  }

  /** It comes to nothing, and nobody waits for it any more. The first counts. */
  end(why: Error): void {
    this.#failure ??= why;
    this.#tellOver();
  }

  /** @throws what has ended it, if it was ended */
  requireGoing(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  #end(thrown: unknown): number {
    this.end(asError(thrown));
    return -1;
  }

  /** A slab of what is left from `from` on. Where to go on; -1: nothing is left. */
  async #copyFrom(from: number): Promise<number> {
    let count = 0;
    let next = this.#left.next(from);
    for (; next >= 0 && count < SLAB_PAGES; next = this.#left.next(next + 1)) this.#frames[count++] = next;
    await this.#copy(count);
    return next;
  }

  async #copyThese(gfns: Uint32Array, total: number): Promise<void> {
    for (let k = 0; k < total;) {
      let count = 0;
      for (; k < total && count < SLAB_PAGES; k++) {
        const gfn = valueAt(gfns, k);
        if (this.#left.has(gfn)) this.#frames[count++] = gfn;
      }
      await this.#copy(count);
    }
  }

  /** The first `count` of our frames. */
  async #copy(count: number): Promise<void> {
    this.requireGoing();
    if (count === 0) return;
    const frames = this.#frames;
    for (let k = 0; k < count; k++) this.#left.clear(valueAt(frames, k));
    await this.#from.copyPages(frames, count, this.#octets, 0);
    this.requireGoing();
    this.stamps.note(frames, count, this.#slab);
    await this.#into.populate(frames, count, this.#gfns);
    await this.#into.writePages(this.#gfns, count, this.#octets);
  }
}
