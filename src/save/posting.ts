// From slabs to the sink: pieces leave strictly in the order in which they were posted, one post after another, so
// that those of different epochs never mix; a slab is free again when the sink has drained what lay in it.
//
//   acquire ─▶ fill ─▶ post(pieces, slab) ─▶ │ queue │ ─▶ sink.write … sink.boundary ─▶ sink.drain ─▶ free
//
// Memory is bounded by the slabs: who fills faster than the sink drains waits in acquire(). The first failure of the
// sink is final: every later call fails with it.

import { asError } from '../errors.js';
import type { StreamPiece, StreamSink } from '../stream/flow.js';
import type { Slab } from './slab.js';

export interface Boundary {
  readonly epoch: number;
  readonly end: boolean;
}

interface Waiter {
  readonly resolve: (slab: Slab) => void;
  readonly reject: (error: Error) => void;
}

export class Posting {
  readonly #sink: StreamSink;
  readonly #free: Slab[];
  readonly #waiters: Waiter[] = [];
  #tail: Promise<void> = Promise.resolve();
  #failure: Error | null = null;

  /** Whatever lies in the slabs is overwritten. */
  constructor(sink: StreamSink, slabs: readonly Slab[]) {
    this.#sink = sink;
    this.#free = [...slabs];
    for (const slab of slabs) slab.reset();
  }

  /** Why the sink cannot be written any more, or null. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** An empty slab, as soon as there is one. */
  async acquire(): Promise<Slab> {
    if (this.#failure) throw this.#failure;
    const slab = this.#free.pop();
    if (slab) return slab;
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  /**
   * Puts pieces into the queue, then the boundary if one follows them. The slab, if given, becomes free when they
   * (and all before them) have left. Resolves then; a failure is kept too, so the promise need not be watched.
   */
  post(pieces: readonly StreamPiece[], slab: Slab | null, boundary: Boundary | null): Promise<void> {
    const left = this.#tail.then(() => this.#send(pieces, slab, boundary));
    const done = left.then(({ drained }) => drained);
    this.#tail = left.then(() => undefined);
    this.#tail.catch((error: unknown) => this.#fail(asError(error)));
    done.catch((error: unknown) => this.#fail(asError(error)));
    return done;
  }

  /** Writes, and hands back the drain without waiting for it: the next post need not wait for it either. */
  async #send(
    pieces: readonly StreamPiece[],
    slab: Slab | null,
    boundary: Boundary | null,
  ): Promise<{ readonly drained: Promise<void> }> {
    for (const piece of pieces) {
      if (this.#failure) throw this.#failure;
      await this.#sink.write(piece);
    }
    if (boundary) await this.#sink.boundary(boundary.epoch, boundary.end);
    if (slab === null && boundary === null) return { drained: Promise.resolve() };
    const drained = this.#sink.drain().then(() => {
      if (slab) this.#release(slab);
    });
    // Seen by post() through `done`; a rejection that comes before it is looked at must not count as unhandled.
    drained.catch(() => undefined);
    return { drained };
  }

  #release(slab: Slab): void {
    slab.reset();
    const waiter = this.#waiters.shift();
    if (waiter) waiter.resolve(slab);
    else this.#free.push(slab);
  }

  #fail(error: Error): void {
    if (this.#failure) return;
    this.#failure = error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }
}
