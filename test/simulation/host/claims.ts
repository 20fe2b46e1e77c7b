// What the register has granted a standby (StandbyPart of protection/parts.ts): for good, or as long as the old owner does not
// take it back.

import { confirmWrite } from '../../../src/failover/mandate.js';
import { sameRegister, type Register, type RegisterWrite } from '../../../src/failover/register.js';
import type { Held } from '../../../src/secondary/vigil-state.js';
import type { RegisterClient } from './register-client.js';

export class Claims {
  granted: Register | null = null;
  #for: Held | null = null;
  readonly #client: RegisterClient;
  readonly #instance: string;
  #confirmed = 0;
  #foreseen: Register | null = null;

  constructor(client: RegisterClient, instance: string) {
    this.#client = client;
    this.#instance = instance;
  }

  won(register: Register | null, held: Held): void {
    this.granted = register;
    this.#for = held;
  }

  foresee(): void {
    this.#client.read((register) => (this.#foreseen = register ?? null));
  }

  /** `claimOf`: the write by which a register lets us. */
  acquire(
    held: Held,
    claimOf: (register: Register | null) => RegisterWrite | null,
    handedOver: boolean,
    answer: (said: 'granted' | 'denied' | 'unknown') => void,
  ): void {
    const foreseen = handedOver ? this.#foreseen : null;
    this.#foreseen = null;
    const ahead = foreseen && claimOf(foreseen);
    const asked = (): void =>
      this.#client.read((register) => {
        // It was granted, and did not start: it is ours still.
        const isOurs = register !== undefined && this.isOurs(register, held);
        if (register === undefined || isOurs) {
          answer(isOurs ? 'granted' : 'unknown');
          return;
        }
        const write = claimOf(register);
        if (write) this.#take(write, held, (won) => answer(won ? 'granted' : 'denied'));
        else answer('denied');
      });
    if (ahead) this.#take(ahead, held, (won) => answer(won ? 'granted' : 'denied'));
    else asked();
  }

  #take(write: RegisterWrite, held: Held, done: (won: boolean) => void): void {
    this.#client.settle(write, ({ won, register }) => {
      if (won) this.won(register, held);
      done(won);
    });
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
