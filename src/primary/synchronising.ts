// How far the first checkpoint of a stream has come: disks, one after another, and then memory; each pass after pass over
// what the domain has changed meanwhile.

import { monotonicMs } from '../flow/clock.js';
import type { DiskSynchronisation, Synchronisation } from '../report/reports.js';
import type { DiskProgress } from '../save/callbacks.js';
import { DecayingRate } from './rate.js';

/** What is sent in passes, each of which counts from 0. */
class Passes {
  /** Of the passes before this one. */
  #before = 0;
  #done = 0;
  #total = 0;

  get done(): number {
    return this.#before + this.#done;
  }

  /** As far as is known. */
  get total(): number {
    return this.#before + Math.max(this.#total, this.#done);
  }

  reached(done: number, total: number): void {
    if (done < this.#done) this.#before += this.#done;
    this.#done = done;
    this.#total = total;
  }
}

export class Synchronising {
  readonly #resumes: boolean;
  readonly #nowMs: () => number;
  readonly #beganMs: number;
  readonly #pages = new Passes();
  readonly #disks = new Map<string, Passes>();
  /** Of disks' octets. */
  readonly #rate: DecayingRate;

  /** `nowMs`: monotonic. */
  constructor(resumes: boolean, nowMs = monotonicMs) {
    this.#resumes = resumes;
    this.#nowMs = nowMs;
    this.#beganMs = nowMs();
    this.#rate = new DecayingRate(this.#beganMs);
  }

  /** So many pages of this pass are sent, of so many. */
  sent(pagesDone: number, pagesTotal: number): void {
    this.#pages.reached(pagesDone, pagesTotal);
  }

  copied({ disk, doneBytes, totalBytes }: DiskProgress): void {
    const passes = this.#disks.get(disk) ?? new Passes();
    this.#disks.set(disk, passes);
    const before = passes.done;
    passes.reached(doneBytes, totalBytes);
    this.#rate.add(passes.done - before, this.#nowMs());
  }

  report(): Synchronisation {
    return {
      resumes: this.#resumes,
      pagesSent: this.#pages.done,
      pagesTotal: this.#pages.total,
      disks: this.#ofDisks(),
      seconds: (this.#nowMs() - this.#beganMs) / 1000,
    };
  }

  #ofDisks(): DiskSynchronisation[] {
    const nowMs = this.#nowMs();
    // Whoever comes later waits for those before.
    let leftBytes = 0;
    return [...this.#disks].map(([disk, { done, total }]) => {
      leftBytes += total - done;
      const remainingSeconds = total === done ? 0 : this.#rate.secondsFor(leftBytes, nowMs);
      return { disk, doneBytes: done, totalBytes: total, remainingSeconds };
    });
  }
}
