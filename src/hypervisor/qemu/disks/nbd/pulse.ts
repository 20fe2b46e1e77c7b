// Whether a thread lives: it is asked again and again, and has to answer in time. A time in which we ourselves stood still
// does not count.
//
//   begin ── START_MS at most ──▶ alive() ─ PAUSE_MS ─▶ ask ── LATE_MS at most ──▶ alive() ─ …        late: it is stuck

import { afterAwake } from '../../../../flow/awake.js';

/** To begin with, a thread loads its code. */
const START_MS = 30_000;
const PAUSE_MS = 250;
const LATE_MS = 1000;

export class Pulse {
  readonly #ask: () => void;
  readonly #late: (limitMs: number) => void;
  /** Takes back what is to happen next. */
  #cancel: () => void;
  #isOver = false;

  constructor(ask: () => void, late: (limitMs: number) => void) {
    this.#ask = ask;
    this.#late = late;
    this.#cancel = afterAwake(START_MS, () => late(START_MS));
  }

  /** It has begun, or answered. */
  alive(): void {
    this.#next(PAUSE_MS, () => {
      this.#next(LATE_MS, () => this.#late(LATE_MS));
      this.#ask();
    });
  }

  end(): void {
    this.#isOver = true;
    this.#cancel();
  }

  #next(delayMs: number, then: () => void): void {
    this.#cancel();
    if (!this.#isOver) this.#cancel = afterAwake(delayMs, then);
  }
}
