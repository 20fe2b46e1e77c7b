// What the tests of the witnesses share.

import { expect } from 'chai';
import { WitnessError, type WitnessErrorCode } from '../../src/failover/error.js';
import type { Claim } from '../../src/failover/register.js';

export const alone = (owner: string): Claim => ({ mode: 'alone', owner, standby: null, stream: null });

export const paired = (owner: string, standby: string, stream = 's1'): Claim => ({
  ...{ mode: 'paired', owner, standby, stream },
});

/** What the promise rejects with, which has one of these codes. */
export async function refused(work: Promise<unknown>, ...codes: WitnessErrorCode[]): Promise<WitnessError> {
  const outcome: unknown = await work.then(
    (value) => ({ value }),
    (error: unknown) => error,
  );
  if (!(outcome instanceof WitnessError))
    throw new Error(`no WitnessError: ${String(outcome)}`, { cause: outcome });
  expect(codes).to.include(outcome.code);
  return outcome;
}
