// The one clock of the services: monotonic, in milliseconds, the same for all processes of a host.

import type { TimestampProvider } from 'rxjs';

/** Asked some thirty times in each checkpoint, so without BigInts: each would be an allocation, and a division a call. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1_000_000;
}

/** For operators that stamp: their default is the clock of the day, which jumps. */
export const MONOTONIC: TimestampProvider = { now: monotonicMs };
