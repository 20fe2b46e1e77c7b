// How long to wait before the next attempt: doubled each time up to a limit; and somewhere in the upper half of that, so
// that many who try do not come back in step.

/** More are no longer told apart: the delay has reached its limit long before. */
const DOUBLINGS_MAX = 30;

/** Milliseconds before attempt number `attempt`, not spread yet; 0 is the first retry. */
export function backoffMs(firstMs: number, maxMs: number, attempt: number): number {
  return Math.min(maxMs, firstMs * 2 ** Math.min(attempt, DOUBLINGS_MAX));
}

/** `random` is in [0, 1). */
export function spreadMs(fullMs: number, random: number): number {
  return fullMs / 2 + (fullMs / 2) * random;
}
