// A limit on octets in a second. What is spent beyond it is a debt, and whoever is in debt waits.

/** What may be spent at once after a rest: of a second. */
const BURST = 0.05;

export class Rate {
  readonly #bytesPerMs: number;
  readonly #burstBytes: number;
  #credit: number;
  #at: number;

  /** @param bytesPerSecond Infinity: no limit */
  constructor(bytesPerSecond: number, nowMs: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#burstBytes = bytesPerSecond * BURST;
    this.#credit = this.#burstBytes;
    this.#at = nowMs;
  }

  /** Spends these octets: how long to wait until that is paid for, milliseconds. */
  spend(bytes: number, nowMs: number): number {
    if (this.#bytesPerMs === Infinity) return 0;
    this.#credit = Math.min(this.#burstBytes, this.#credit + (nowMs - this.#at) * this.#bytesPerMs) - bytes;
    this.#at = nowMs;
    return Math.max(0, -this.#credit / this.#bytesPerMs);
  }
}
