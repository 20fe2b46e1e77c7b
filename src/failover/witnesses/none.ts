// No witness: two hosts that lose sight of each other cannot know which of them goes on. A standby takes over all the
// same, which is what it is for; an owner that lost its standby does not go on alone, because that standby may have
// taken over. So its output stays held, and the world hears one.
//
// Each host has its registers for itself, and only for as long as its process runs.

import { WitnessError } from '../error.js';
import { checkWrite, sameRegister, type RegisterWitness } from '../register.js';
import { createMemoryWitness } from './memory.js';

export function createNoneWitness(): RegisterWitness {
  const own = createMemoryWitness('none');
  return {
    name: own.name,
    read: (domain, signal) => own.read(domain, signal),
    /** @throws WitnessError NO_WITNESS to an owner that would go on alone after it was paired */
    async compareAndSet(domain, expected, claim, token, signal) {
      checkWrite(domain, { expected, claim, token });
      const alone = expected?.mode === 'paired' && claim.mode === 'alone' && claim.owner === expected.owner;
      if (alone && sameRegister(await own.read(domain, signal), expected)) {
        throw new WitnessError(
          'NO_WITNESS',
          'without a witness nobody can say that the standby has not taken over',
          {
            domain,
            standby: expected.standby,
          },
        );
      }
      return own.compareAndSet(domain, expected, claim, token, signal);
    },
    close: () => own.close(),
  };
}
