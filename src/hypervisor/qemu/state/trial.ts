// Which checkpoints are loaded on trial: all, or as many as cost no more than a share of a core.

import { monotonicMs } from '../../../flow/clock.js';
import type { TrialLoads } from '../config.js';

/** Of one core, for `auto`. */
export const TRIAL_SHARE = 0.05;

export class TrialPace {
  readonly #loads: TrialLoads;
  readonly #now: () => number;
  #nextAtMs = -Infinity;

  /** `now`: milliseconds, monotonic. */
  constructor(loads: TrialLoads, now: () => number = monotonicMs) {
    this.#loads = loads;
    this.#now = now;
  }

  /** Whether there is a way back to keep: there is none where only the first checkpoint is loaded. */
  get keepsUndo(): boolean {
    return this.#loads !== 'first';
  }

  /** `must`: there would be no way back otherwise. */
  isDue(must: boolean): boolean {
    switch (this.#loads) {
      case 'each':
        return true;
      case 'auto':
        return must || this.#now() >= this.#nextAtMs;
      case 'first':
        return false;
    }
  }

  /** A load has taken so long. */
  took(ms: number): void {
    this.#nextAtMs = this.#now() + ms / TRIAL_SHARE;
  }
}
