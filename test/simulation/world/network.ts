// The network: a way from each host to each other, and to the witness. Each direction is slow or cut by itself.

import type { Random } from '../../support/random.js';

export interface Way {
  readonly from: string;
  readonly to: string;
  /** How many faults cut it. */
  cuts: number;
  /** On top of what it always takes. */
  slowMs: number;
}

export class Network {
  readonly #random: Random;
  readonly #latencyMs: number;
  readonly #ways = new Map<string, Way>();

  constructor(random: Random, latencyMs: number) {
    this.#random = random;
    this.#latencyMs = latencyMs;
  }

  way(from: string, to: string): Way {
    const name = `${from}>${to}`;
    const known = this.#ways.get(name);
    if (known) return known;
    const way = { from, to, cuts: 0, slowMs: 0 };
    this.#ways.set(name, way);
    return way;
  }

  /** How long it takes this time. */
  takesMs({ slowMs }: Way): number {
    return (this.#latencyMs + slowMs) * (0.5 + this.#random());
  }
}
