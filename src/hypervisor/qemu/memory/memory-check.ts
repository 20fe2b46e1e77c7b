// Whether what was written into a standby's memory is there when it is needed shows nowhere else: it is asked about once a
// second, until the domain runs. One whose server does not answer is given up.

import { withinAwake } from '../../../flow/awake.js';
import { HypervisorError } from '../../port.js';
import type { DirtyTracking } from './dirty.js';

const INTERVAL_MS = 1000;
const TIMEOUT_MS = 10_000;

export class MemoryCheck {
  readonly #tracking: DirtyTracking;
  readonly #hung: (error: HypervisorError) => void;
  readonly #timer: NodeJS.Timeout;
  #ended = false;

  /** `hung`: it did not answer, and was given up. That it is lost is told by `tracking.lost`. */
  constructor(tracking: DirtyTracking, hung: (error: HypervisorError) => void) {
    this.#tracking = tracking;
    this.#hung = hung;
    this.#timer = setInterval(() => void this.#check(), INTERVAL_MS);
  }

  end(): void {
    this.#ended = true;
    clearInterval(this.#timer);
  }

  async #check(): Promise<void> {
    const late = new HypervisorError('HUNG', 'its memory does not answer');
    try {
      await withinAwake(TIMEOUT_MS, this.#tracking.check(), () => late);
    } catch (error) {
      if (error !== late || this.#ended) return;
      this.#tracking.abandon();
      this.#hung(late);
    }
  }
}
