// The gate of a domain with several ways out. Each of them has a gate; this one moves them together:
//
//                   ┌─▶ serial port
//   seal, release ──┼─▶ network interface 1
//                   └─▶ network interface 2
//
// Every gate is asked, whatever becomes of the others: one that fails must neither let out nor keep back what is the
// others'. The call fails when all have answered, with the first failure.

import type { OutputGate } from './gate.js';

export class CompositeGate implements OutputGate {
  readonly #gates: readonly OutputGate[];

  constructor(gates: readonly OutputGate[]) {
    this.#gates = gates;
  }

  get heldBytes(): number {
    return this.#sum((gate) => gate.heldBytes);
  }

  get emittedBytes(): number {
    return this.#sum((gate) => gate.emittedBytes);
  }

  get releasedBytes(): number {
    return this.#sum((gate) => gate.releasedBytes);
  }

  seal(epoch: number): Promise<void> {
    return this.#all((gate) => gate.seal(epoch));
  }

  release(epoch: number): Promise<void> {
    return this.#all((gate) => gate.release(epoch));
  }

  discard(): Promise<void> {
    return this.#all((gate) => gate.discard());
  }

  pass(): Promise<void> {
    return this.#all((gate) => gate.pass());
  }

  hold(): Promise<void> {
    return this.#all((gate) => gate.hold());
  }

  restart(): Promise<void> {
    return this.#all((gate) => gate.restart());
  }

  #sum(count: (gate: OutputGate) => number): number {
    let total = 0;
    for (const gate of this.#gates) total += count(gate);
    return total;
  }

  async #all(action: (gate: OutputGate) => Promise<void>): Promise<void> {
    // The calls are made before this returns: what a gate does at once is done when its caller goes on.
    const results = await Promise.allSettled(this.#gates.map((gate) => attempt(gate, action)));
    for (const result of results) {
      if (result.status === 'rejected') throw result.reason;
    }
  }
}

/** A gate that throws counts as one that rejects. */
async function attempt(gate: OutputGate, action: (gate: OutputGate) => Promise<void>): Promise<void> {
  await action(gate);
}
