// All ways out of a domain, asked one thing after another: what was decided first is done first, whoever decided it. A
// gate that cannot do what it is asked says so in the log; only a seal that fails is its caller's business.
//
//   life:     hold  pass  restart ──┐
//   stream:   release ──────────────┼─▶ one after another ─▶ console, network
//   capture:  hold  seal ───────────┘
//   life:     discard ──── at once ─────────────────────────▶

import { MONOTONIC } from '../flow/clock.js';
import { InOrder } from '../flow/in-order.js';
import type { Work } from '../flow/work.js';
import { CompositeGate } from '../output/composite-gate.js';
import type { OutputGate } from '../output/gate.js';
import type { Release } from './ledger.js';

export class OrderedGate {
  readonly #tasks: Work;
  readonly #before: OutputGate;
  readonly #after: OutputGate;
  readonly #all: OutputGate;
  readonly #order = new InOrder();

  /** `before`: what is sealed before the domain is suspended; `after`: what is sealed when it is. */
  constructor(before: OutputGate, after: OutputGate, tasks: Work) {
    this.#tasks = tasks;
    this.#before = before;
    this.#after = after;
    this.#all = new CompositeGate([after, before]);
  }

  get heldBytes(): number {
    return this.#all.heldBytes;
  }

  get emittedBytes(): number {
    return this.#all.emittedBytes;
  }

  sealBefore(epoch: number): Promise<void> {
    return this.#order.do(() => this.#before.seal(epoch));
  }

  sealAfter(epoch: number): Promise<void> {
    return this.#order.do(() => this.#after.seal(epoch));
  }

  /** What is not released in time is released with the next epoch that is acknowledged. */
  release({ epoch, untilMs }: Release): void {
    void this.#ask('release output', async (gate) => {
      if (MONOTONIC.now() <= untilMs) await gate.release(epoch);
    });
  }

  /** As the next two: resolves when it is done, or could not be. */
  hold(): Promise<void> {
    return this.#ask('hold output', (gate) => gate.hold());
  }

  pass(): Promise<void> {
    return this.#ask('let output pass', (gate) => gate.pass());
  }

  restart(): Promise<void> {
    return this.#ask('restart the gate', (gate) => gate.restart());
  }

  /** Resolves when all that was asked is done. */
  settled(): Promise<void> {
    return this.#order.settled();
  }

  /** At once, not after whatever else the gate still has to do. */
  discard(): Promise<void> {
    return this.#tasks.run('discard output', () => this.#all.discard());
  }

  #ask(what: string, work: (gate: OutputGate) => Promise<void>): Promise<void> {
    return this.#tasks.run(what, () => this.#order.do(() => work(this.#all)));
  }
}
