// A network interface's gate as the port wants it: the calls take effect one after another, and a test of the gate on
// the running guest has its place among them. Discarding waits for nothing.
//
//   hold ─▶ [test] ─▶ seal ─▶ release ─▶ …
//
// A gate of a domain that was taken over to passes at first. It is tested when it is told to hold, before that is done.

import { InOrder } from '../../../flow/in-order.js';
import type { OutputGate } from '../../../output/gate.js';
import type { NetdevGate } from './netdev-gate.js';

/** What a NetdevGate offers. */
export type NetdevOutput = Pick<NetdevGate, keyof NetdevGate>;

/** Tests a gate that holds. False: it could not be tested now. @throws HypervisorError FAILED if it is not safe */
export type FirstHold = (gate: NetdevOutput) => Promise<boolean>;

export class NetworkOutput implements OutputGate {
  readonly heldBytes = 0;
  readonly emittedBytes = 0;
  readonly releasedBytes = 0;
  readonly #gate: NetdevOutput;
  readonly #order = new InOrder();
  #passing: boolean;
  #firstHold: FirstHold | null;
  #tested: Promise<unknown> = Promise.resolve();

  /** `firstHold`: the gate passes, and has not been tested. Not there: it holds. */
  constructor(gate: NetdevOutput, firstHold: FirstHold | null = null) {
    this.#gate = gate;
    this.#passing = firstHold !== null;
    this.#firstHold = firstHold;
  }

  seal(epoch: number): Promise<void> {
    return this.#order.do(() => this.#gate.seal(epoch));
  }

  release(epoch: number): Promise<void> {
    return this.#order.do(() => this.#gate.release(epoch));
  }

  discard(): Promise<void> {
    this.#firstHold = null; // nothing leaves any more: there is nothing to see
    return this.#gate.discard();
  }

  pass(): Promise<void> {
    return this.#order.do(async () => {
      await this.#gate.pass();
      this.#passing = true;
    });
  }

  /** @throws HypervisorError FAILED if it cannot be closed, or is not safe */
  hold(): Promise<void> {
    const held = this.#order.do(async () => {
      await this.#gate.hold();
      this.#passing = false;
      if (await this.#firstHold?.(this.#gate)) this.#firstHold = null;
    });
    if (this.#firstHold !== null) this.#tested = held.catch(() => undefined); // told to the caller
    return held;
  }

  /** Resolves when the first hold() that was called is done with its test: the guest is not to be stopped before. */
  async tested(): Promise<void> {
    await this.#tested;
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
