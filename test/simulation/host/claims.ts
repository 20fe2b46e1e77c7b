// What the register has granted a standby (StandbyPart of protection/parts.ts): for good, or as long as the old owner does not
// take it back.

import { confirmWrite } from '../../../src/failover/mandate.js';
import { sameRegister, type Register } from '../../../src/failover/register.js';
import type { Held } from '../../../src/secondary/vigil-state.js';
import type { RegisterClient } from './register-client.js';

export class Claims {
  granted: Register | null = null;
  #for: Held | null = null;
  readonly #client: RegisterClient;
  readonly #instance: string;
  #confirmed = 0;

  constructor(client: RegisterClient, instance: string) {
    this.#client = client;
    this.#instance = instance;
  }

  won(register: Register | null, held: Held): void {
    this.granted = register;
    this.#for = held;
  }

  /** It was granted, and did not start: it is ours still. */
  isOurs(register: Register | null, { streamUuid, epoch }: Held): boolean {
    if (this.granted === null || !sameRegister(register, this.granted)) return false;
    return (
      this.granted.mode === 'alone' || (this.#for?.streamUuid === streamUuid && this.#for.epoch === epoch)
    );
  }

  /** Until it is known. */
  confirm(done: (confirmed: boolean) => void): void {
    const claimed = this.granted;
    if (claimed?.mode !== 'paired') {
      done(true);
      return;
    }
    const write = confirmWrite(claimed, `${this.#instance}-keep-${++this.#confirmed}`);
    this.#client.settle(write, ({ won, register }) => {
      this.granted = won ? register : null;
      done(won);
    });
  }
}
