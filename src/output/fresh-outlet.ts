// An outlet that takes what comes in time: what was let out and is still here when its time is over is not carried out, for
// this process was stopped since, and may have been replaced.

import { monotonicMs } from '../flow/clock.js';
import type { Outlet } from './outlet.js';

export class FreshOutlet implements Outlet {
  /** Until when what is offered may leave, of the monotonic clock. */
  untilMs: () => number;
  readonly #outlet: Outlet;

  constructor(outlet: Outlet, untilMs: () => number = () => Infinity) {
    this.#outlet = outlet;
    this.untilMs = untilMs;
  }

  write(bytes: Uint8Array): number | Promise<number> {
    const untilMs = this.untilMs();
    if (untilMs === Infinity) return this.#outlet.write(bytes);
    return monotonicMs() <= untilMs ? this.#outlet.write(bytes, untilMs) : 0;
  }

  close(): void {
    this.#outlet.close();
  }
}
