// How far the first checkpoint of a stream has come, pass after pass over what the domain has changed meanwhile.

import { monotonicMs } from '../flow/clock.js';
import type { Synchronisation } from '../report/reports.js';
import type { DiskProgress } from '../save/callbacks.js';

export class Synchronising {
  readonly #resumes: boolean;
  readonly #beganMs = monotonicMs();
  /** Of the passes before this one. */
  #before = 0;
  #done = 0;
  #total = 0;
  readonly #disks = new Map<string, DiskProgress>();

  constructor(resumes: boolean) {
    this.#resumes = resumes;
  }

  /** So many pages of this pass are sent, of so many. */
  sent(pagesDone: number, pagesTotal: number): void {
    if (pagesDone < this.#done) this.#before += this.#done;
    this.#done = pagesDone;
    this.#total = pagesTotal;
  }

  copied(progress: DiskProgress): void {
    this.#disks.set(progress.disk, progress);
  }

  report(): Synchronisation {
    return {
      resumes: this.#resumes,
      pagesSent: this.#before + this.#done,
      pagesTotal: this.#before + Math.max(this.#total, this.#done),
      disks: [...this.#disks.values()],
      seconds: (monotonicMs() - this.#beganMs) / 1000,
    };
  }
}
