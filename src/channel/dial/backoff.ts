// How long to wait before the next attempt to connect: doubled each time up to a limit, and somewhere in the upper
// half of that, so that many secondaries of one primary do not come back in step.

export interface BackoffOptions {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Milliseconds before attempt number `attempt` (0 is the first retry). `random` is in [0, 1). */
export function backoffDelay(options: BackoffOptions, attempt: number, random: number): number {
  const full = Math.min(options.maxMs, options.firstMs * 2 ** Math.min(attempt, 30));
  return full / 2 + (full / 2) * random;
}
