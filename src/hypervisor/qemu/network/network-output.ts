// A network interface's gate as the port wants it: the calls take effect one after another, and a test of the gate on
// the running guest has its place among them. Discarding waits for nothing.
//
//   hold ─▶ [test] ─▶ seal ─▶ release ─▶ …

import type { DomainGate } from '../../port.js';
import type { NetdevGate } from './netdev-gate.js';

/** What a NetdevGate offers. */
export type NetdevOutput = Pick<NetdevGate, keyof NetdevGate>;

export class NetworkOutput<Gate extends NetdevOutput = NetdevGate> implements DomainGate {
  readonly heldBytes = 0;
  readonly emittedBytes = 0;
  readonly releasedBytes = 0;
  readonly #gate: Gate;
  #passing = false;
  #last: Promise<unknown> = Promise.resolve();

  constructor(gate: Gate) {
    this.#gate = gate;
  }

  seal(epoch: number): Promise<void> {
    return this.#inOrder(() => this.#gate.seal(epoch));
  }

  release(epoch: number): Promise<void> {
    return this.#inOrder(() => this.#gate.release(epoch));
  }

  discard(): Promise<void> {
    return this.#gate.discard();
  }

  pass(): Promise<void> {
    return this.#inOrder(async () => {
      await this.#gate.pass();
      this.#passing = true;
    });
  }

  hold(): Promise<void> {
    return this.#inOrder(async () => {
      await this.#gate.hold();
      this.#passing = false;
    });
  }

  restart(): Promise<void> {
    return this.#inOrder(() => this.#gate.restart());
  }

  /** Takes the gate away, for good. */
  remove(): Promise<void> {
    return this.#inOrder(() => this.#gate.remove());
  }

  get takenOver(): boolean {
    return this.#gate.takenOver;
  }

  /** See NetdevGate.undoing. */
  get undoing(): string {
    return this.#gate.undoing;
  }

  /** Runs a test that needs the gate to hold. Fails as the test does. */
  test(run: (gate: Gate) => Promise<void>): Promise<void> {
    return this.#inOrder(async () => {
      if (this.#passing) await this.#gate.hold();
      try {
        await run(this.#gate);
      } finally {
        if (this.#passing) await this.#gate.pass();
      }
    });
  }

  #inOrder(call: () => Promise<void>): Promise<void> {
    const result = this.#last.then(call);
    this.#last = result.catch(() => undefined); // told to the caller
    return result;
  }
}
