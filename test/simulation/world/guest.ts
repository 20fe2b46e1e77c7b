// A guest that counts. It says each number: what it has said is what it is.

import type { Random } from '../../support/random.js';
import type { End, Loss } from '../checkers/loss.js';
import type { Point } from '../checkers/history.js';
import type { Clock } from './clock.js';
import type { Process } from './process.js';

interface World {
  readonly clock: Clock;
  readonly random: Random;
  readonly loss: Loss;
  readonly params: { readonly tickMs: number };
}

export class Guest {
  readonly branch: number;
  count: number;
  running = false;
  end: End | null = null;
  /** Who hears what it says, in their process. */
  listener: { readonly process: Process; readonly heard: (count: number) => void } | null = null;
  /** It stands still while that process does. */
  readonly #bound: boolean;
  readonly #loss: Loss;
  readonly #host: string;

  constructor({ clock, random, loss, params }: World, host: string, from: Point, bound: boolean) {
    const { tickMs } = params;
    this.branch = from.branch;
    this.count = from.count;
    this.#bound = bound;
    this.#loss = loss;
    this.#host = host;
    const tick = (): void => {
      if (this.end !== null) return;
      this.#tick();
      clock.after(tickMs, tick);
    };
    clock.after(tickMs * random(), tick);
  }

  get point(): Point {
    return { branch: this.branch, count: this.count };
  }

  over(end: End): void {
    if (this.end !== null) return;
    this.end = end;
    this.running = false;
    this.#loss.ended(this.#host, end);
  }

  #tick(): void {
    const { listener } = this;
    if (!this.running || (this.#bound && listener?.process.isStopped === true)) return;
    this.count++;
    listener?.process.run(this, () => this.listener?.heard(this.count));
  }
}
