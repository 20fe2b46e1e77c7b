// The one clock of the services: monotonic, in milliseconds, the same for all processes of a host.

import type { TimestampProvider } from 'rxjs';

export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

/** For operators that stamp: their default is the clock of the day, which jumps. */
export const MONOTONIC: TimestampProvider = { now: monotonicMs };
