// A network interface's gate as the port wants it: the calls take effect one after another, and a test of the gate on
// the running guest has its place among them. Discarding waits for nothing.
//
//   hold ─▶ [test] ─▶ seal ─▶ release ─▶ …

import { InOrder } from '../../../flow/in-order.js';
import type { OutputGate } from '../../../output/gate.js';
import type { NetdevGate } from './netdev-gate.js';

/** What a NetdevGate offers. */
export type NetdevOutput = Pick<NetdevGate, keyof NetdevGate>;

export class NetworkOutput implements OutputGate {
  readonly heldBytes = 0;
  readonly emittedBytes = 0;
  readonly releasedBytes = 0;
  readonly #gate: NetdevOutput;
  readonly #order = new InOrder();
  #passing = false;

  constructor(gate: NetdevOutput) {
    this.#gate = gate;
  }

  seal(epoch: number): Promise<void> {
    return this.#order.do(() => this.#gate.seal(epoch));
  }

  release(epoch: number): Promise<void> {
    return this.#order.do(() => this.#gate.release(epoch));
  }

  discard(): Promise<void> {
    return this.#gate.discard();
  }

  pass(): Promise<void> {
    return this.#order.do(async () => {
      await this.#gate.pass();
      this.#passing = true;
    });
  }

  hold(): Promise<void> {
    return this.#order.do(async () => {
      await this.#gate.hold();
      this.#passing = false;
    });
  }

  restart(): Promise<void> {
    return this.#order.do(() => this.#gate.restart());
  }

  /** Takes the gate away, for good. */
  remove(): Promise<void> {
    return this.#order.do(() => this.#gate.remove());
  }

  get takenOver(): boolean {
    return this.#gate.takenOver;
  }

  /** See NetdevGate.undoing. */
  get undoing(): string {
    return this.#gate.undoing;
  }

  /** Runs a test that needs the gate to hold. @throws as the test */
  test(run: (gate: NetdevOutput) => Promise<void>): Promise<void> {
    return this.#order.do(async () => {
      if (this.#passing) await this.#gate.hold();
      try {
        await run(this.#gate);
      } finally {
        if (this.#passing) await this.#gate.pass();
      }
    });
  }
}
