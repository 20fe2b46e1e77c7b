// How fast something goes, of late: what was done long ago counts less, and so does the time that it took.
//
//   rate = Σ done · e^(-age / τ)  ÷  ∫ e^(-age / τ)         both over all of its time, kept as two sums that decay

/** τ: what is older than a few of these does not count. */
const DECAY_MS = 10_000;
/** Before that nobody knows. */
const KNOWN_MS = 500;

export class DecayingRate {
  #done = 0;
  /** The integral: less than DECAY_MS. */
  #weightMs = 0;
  #atMs: number;

  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  add(amount: number, nowMs: number): void {
    this.#decay(nowMs);
    this.#done += amount;
  }

  /** How many seconds so much takes from now on; null: that is not known, or it does not go on. */
  secondsFor(amount: number, nowMs: number): number | null {
    if (amount === 0) return 0;
    this.#decay(nowMs);
    if (this.#weightMs < KNOWN_MS) return null;
    const perSecond = (this.#done * 1000) / this.#weightMs;
    return perSecond < 1 ? null : amount / perSecond;
  }

  #decay(nowMs: number): void {
    const left = Math.exp(-Math.max(0, nowMs - this.#atMs) / DECAY_MS);
    this.#done *= left;
    this.#weightMs = DECAY_MS - (DECAY_MS - this.#weightMs) * left;
    this.#atMs = nowMs;
  }
}
