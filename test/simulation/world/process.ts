// A process: it may be stopped for a while, or killed. What reaches it while it is stopped waits, and is seen in an
// order of its own when it goes on: only what comes the same way (one socket, the timers) stays in order.

import { pick, type Random } from '../../support/random.js';
import type { Clock } from './clock.js';

/** A way by which things reach a process, in their order. */
export type Lane = string | object;

export class Process {
  alive = true;
  readonly #clock: Clock;
  readonly #random: Random;
  /** Its clock began somewhere. */
  readonly #originMs: number;
  /** What waits while it is stopped. */
  #stopped: Map<Lane, (() => void)[]> | null = null;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
    this.#originMs = Math.floor(random() * 1e9);
  }

  /** Of its monotonic clock. */
  get nowMs(): number {
    return this.#clock.nowMs + this.#originMs;
  }

  get isStopped(): boolean {
    return this.#stopped !== null;
  }

  /** How much waits for it. */
  get waiting(): number {
    let count = 0;
    for (const works of this.#stopped?.values() ?? []) count += works.length;
    return count;
  }

  run(lane: Lane, work: () => void): void {
    if (!this.alive) return;
    if (this.#stopped === null) {
      work();
      return;
    }
    const works = this.#stopped.get(lane);
    if (works) works.push(work);
    else this.#stopped.set(lane, [work]);
  }

  after(delayMs: number, work: () => void, lane: Lane = 'timers'): void {
    this.#clock.after(delayMs, () => this.run(lane, work));
  }

  /** Again and again, as long as `work` says so; while it is stopped, once. */
  every(periodMs: number, work: () => boolean): void {
    this.after(periodMs, () => {
      if (work()) this.every(periodMs, work);
    });
  }

  stop(): void {
    if (this.alive) this.#stopped ??= new Map();
  }

  resume(): void {
    const lanes = this.#stopped;
    this.#stopped = null;
    while (lanes !== null && lanes.size > 0 && this.alive) {
      const [lane, works] = pick(this.#random, [...lanes]);
      const work = works.shift();
      if (works.length === 0) lanes.delete(lane);
      work?.();
    }
  }

  kill(): void {
    this.alive = false;
    this.#stopped = null;
  }
}
