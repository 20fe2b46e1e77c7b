// Secondaries that were refused, and why: one that dials again and again is told so each time, the log once for each
// reason, until it is linked. Whoever has a new reason each time, or comes from a new address, has so many lines, and
// then one now and again; so he can neither fill a disk nor push out what else the log says. Those who have shown that
// they may speak have lines of their own, which he cannot use up.

import { monotonicMs } from '../../flow/clock.js';
import type { ChannelError } from '../contract.js';

/** Secondaries remembered, those that were refused last. */
const REFUSALS_MAX = 64;
/** Lines in a row; another one each time that this time is over. */
const LINES_MAX = 100;
const LINE_MS = 10_000;

export class Refusals {
  readonly #reasons = new Map<string, string>();
  readonly #lines = { strangers: new Allowance(), others: new Allowance() };
  #untold = 0;

  /**
   * Remembers the refusal; false if it was the last one of this domain's secondary at this address, too, or if there were
   * too many. `domain`: empty while it has said nothing that counts. `nowMs`: of the monotonic clock.
   */
  isNews(address: string, domain: string, { code, message }: ChannelError, nowMs = monotonicMs()): boolean {
    const key = keyOf(address, domain);
    const reason = `${code} ${message}`;
    const before = this.#reasons.get(key);
    if (before !== reason && !this.#lines[domain === '' ? 'strangers' : 'others'].take(nowMs)) {
      this.#untold++;
      return false;
    }
    this.#reasons.delete(key); // and is the latest again
    this.#reasons.set(key, reason);
    const [oldest] = this.#reasons.keys();
    if (oldest !== undefined && this.#reasons.size > REFUSALS_MAX) this.#reasons.delete(oldest);
    return before !== reason;
  }

  /** Those that were too many, since this was asked last. */
  takeUntold(): number {
    const untold = this.#untold;
    this.#untold = 0;
    return untold;
  }

  /** It was linked: a refusal after that is news. */
  forget(address: string, domain: string): void {
    this.#reasons.delete(keyOf(address, domain));
  }
}

class Allowance {
  #left = LINES_MAX;
  #sinceMs = 0;

  take(nowMs: number): boolean {
    const more = Math.floor((nowMs - this.#sinceMs) / LINE_MS);
    this.#sinceMs += more * LINE_MS;
    this.#left = Math.min(LINES_MAX, this.#left + more);
    if (this.#left === 0) return false;
    this.#left--;
    return true;
  }
}

function keyOf(address: string, domain: string): string {
  return `${address} ${domain}`;
}
