// Secondaries that were refused, and why: one that dials again and again is told so each time, the log once for each
// reason, until it is linked.

import type { ChannelError } from '../contract.js';

/** Secondaries remembered, those that were refused last. */
const REFUSALS_MAX = 64;

export class Refusals {
  readonly #reasons = new Map<string, string>();

  /** Remembers the refusal; false if it was the last one of this domain's secondary at this address, too. */
  isNews(address: string, domain: string, { code, message }: ChannelError): boolean {
    const key = keyOf(address, domain);
    const reason = `${code} ${message}`;
    const before = this.#reasons.get(key);
    this.#reasons.delete(key); // and is the latest again
    this.#reasons.set(key, reason);
    const [oldest] = this.#reasons.keys();
    if (oldest !== undefined && this.#reasons.size > REFUSALS_MAX) this.#reasons.delete(oldest);
    return before !== reason;
  }

  /** It was linked: a refusal after that is news. */
  forget(address: string, domain: string): void {
    this.#reasons.delete(keyOf(address, domain));
  }
}

function keyOf(address: string, domain: string): string {
  return `${address} ${domain}`;
}
