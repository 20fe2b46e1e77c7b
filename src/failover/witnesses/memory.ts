// Registers in the memory of this process: for hosts that are all in it.

import { WitnessError } from '../error.js';
import {
  checkDomain,
  checkWrite,
  sameRegister,
  written,
  type Register,
  type RegisterWitness,
} from '../register.js';

export function createMemoryWitness(name = 'the memory of this process'): RegisterWitness {
  const registers = new Map<string, Register>();
  let closed = false;

  function open(signal: AbortSignal | undefined): void {
    if (closed) throw new WitnessError('CLOSED', `${name} was closed`);
    if (!signal?.aborted) return;
    throw new WitnessError('ABORTED', `not waited for ${name}`, {}, { cause: signal.reason });
  }

  return {
    name,
    // Asynchronous as the others: what they throw is a rejection.
    async read(domain, signal) {
      checkDomain(domain);
      open(signal);
      return Promise.resolve(registers.get(domain) ?? null);
    },
    async compareAndSet(domain, expected, claim, token, signal) {
      checkWrite(domain, { expected, claim, token });
      open(signal);
      if (!sameRegister(registers.get(domain) ?? null, expected)) return Promise.resolve('lost');
      registers.set(domain, written({ expected, claim, token }));
      return Promise.resolve('won');
    },
    close() {
      closed = true;
    },
  };
}
