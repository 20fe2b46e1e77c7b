// Moves octets from whoever keeps them to an outlet, at the pace of the outlet: one piece at a time, and what is not
// taken is asked for anew before the next attempt. So whoever keeps the octets decides at each piece what may leave, and
// a stalled outlet costs a timer.
//
//   idle ──run()──▶ offering ──took some──▶ offering …──nothing left──▶ idle
//                      │ took none: a few milliseconds; failed: longer; each time longer, up to a limit
//                      └──────▶ waiting ──▶ offering

import { asError } from '../errors.js';
import { OutputError } from './error.js';
import type { Outlet } from './outlet.js';

export interface PumpSource {
  /** What may leave now, a piece at the most; null: nothing. */
  next(): Uint8Array | null;
  /** The outlet took the first `count` octets of it. */
  taken(count: number): void;
}

export interface PumpReports {
  /** The outlet has begun to fail. */
  readonly failing?: (error: Error) => void;
  /** And takes octets again. */
  readonly working?: () => void;
}

/** The first and the longest wait. */
const FULL_MS = { first: 2, most: 100 };
const FAILED_MS = { first: 50, most: 1000 };
/** Pieces in a row, before others have their turn. */
const TURN_PIECES = 64;

export class Pump {
  readonly #outlet: Outlet;
  readonly #source: PumpSource;
  readonly #reports: PumpReports;
  readonly #idle = new Set<() => void>();
  #offering = false;
  #timer: NodeJS.Timeout | null = null;
  #waitMs = 0;
  #failing = false;
  #ended = false;

  constructor(outlet: Outlet, source: PumpSource, reports: PumpReports = {}) {
    this.#outlet = outlet;
    this.#source = source;
    this.#reports = reports;
  }

  /** There may be something to move. */
  run(): void {
    if (this.#offering || this.#timer || this.#ended) return;
    this.#move();
  }

  /** Not after the wait, but now. */
  hurry(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.run();
  }

  /** Resolves when nothing is left to move: to true; to false when the time is over before. */
  async settled(timeoutMs: number): Promise<boolean> {
    if (this.#isIdle()) return true;
    return new Promise((resolve) => {
      const settle = (idle: boolean) => {
        clearTimeout(timer);
        this.#idle.delete(done);
        resolve(idle);
      };
      const done = () => settle(true);
      const timer = setTimeout(() => settle(false), timeoutMs);
      this.#idle.add(done);
    });
  }

  /** Offers nothing more. What was offered may still be taken, and is counted then. */
  end(): void {
    this.#ended = true;
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #isIdle(): boolean {
    return !this.#offering && this.#source.next() === null;
  }

  #move(): void {
    for (let pieces = 0; !this.#ended; pieces++) {
      const piece = this.#source.next();
      if (!piece) {
        for (const done of [...this.#idle]) done();
        return;
      }
      if (pieces === TURN_PIECES) {
        this.#wait(0);
        return;
      }
      let taken: number | Promise<number>;
      this.#offering = true;
      try {
        taken = this.#outlet.write(piece);
      } catch (thrown) {
        this.#failed(asError(thrown));
        return;
      }
      if (typeof taken !== 'number') {
        taken.then(
          (count) => {
            if (this.#took(count, piece)) this.#move();
          },
          (error: unknown) => this.#failed(asError(error)),
        );
        return;
      }
      if (!this.#took(taken, piece)) return;
    }
  }

  /** True: go on. */
  #took(count: number, { length }: Uint8Array): boolean {
    this.#offering = false;
    if (!Number.isInteger(count) || count < 0 || count > length) {
      this.#failed(
        new OutputError('BAD_COUNT', `an outlet took ${count} of ${length} octets`, { count, length }),
      );
      return false;
    }
    if (count === 0) {
      this.#wait(this.#nextWait(FULL_MS));
      return false;
    }
    this.#waitMs = 0;
    this.#source.taken(count);
    if (this.#failing) {
      this.#failing = false;
      this.#reports.working?.();
    }
    return true;
  }

  #failed(error: Error): void {
    this.#offering = false;
    if (!this.#failing) {
      this.#failing = true;
      this.#waitMs = 0;
      this.#reports.failing?.(error);
    }
    this.#wait(this.#nextWait(FAILED_MS));
  }

  #nextWait({ first, most }: { first: number; most: number }): number {
    this.#waitMs = Math.min(Math.max(first, this.#waitMs * 2), most);
    return this.#waitMs;
  }

  /** A stalled outlet keeps no process alive. */
  #wait(ms: number): void {
    if (this.#ended) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#move();
    }, ms).unref();
  }
}
