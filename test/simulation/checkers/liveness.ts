// Somebody runs. After any single fault of a protected domain the world hears it again within a time, as long as nothing
// else happens; and when all faults are over, it is heard and protected again.

import type { History } from './history.js';

export interface LivenessLimits {
  /** After a single fault, until the domain is heard again. */
  readonly heardMs: number;
  /** After the last fault is over, until it is protected again. */
  readonly protectedMs: number;
}

export class Liveness {
  readonly #history: History;
  readonly #limits: LivenessLimits;
  /** When the one fault began that a protected domain has met; null: there were none, or more. */
  #singleMs: number | null = null;
  #healedMs: number | null = null;

  constructor(history: History, limits: LivenessLimits) {
    this.#history = history;
    this.#limits = limits;
  }

  fault(nowMs: number, isFirst: boolean): void {
    this.#singleMs = isFirst ? nowMs : null;
    this.#healedMs = null;
  }

  /** All faults are over. */
  healed(nowMs: number): void {
    this.#healedMs = nowMs;
  }

  /** Asked again and again. `who`: what the hosts are about, for the reader. */
  check(nowMs: number, isProtected: boolean, who: () => string): void {
    const { heardMs, protectedMs } = this.#limits;
    const since = this.#singleMs;
    if (since !== null && nowMs - Math.max(since, this.#history.heardMs) > heardMs)
      this.#history.wrong(`nobody was heard for ${heardMs} ms after a single fault: ${who()}`);
    if (this.#healedMs !== null && !isProtected && nowMs - this.#healedMs > protectedMs)
      this.#history.wrong(`not protected again ${protectedMs} ms after the last fault was over: ${who()}`);
  }
}
