// Time that we were awake for. A process that was stopped for a while (a signal, a suspended host) finds all its timers
// over at once, and what the others have answered meanwhile not read yet: its own standstill is not their silence.
//
//   asked ──────────────────── limit ── answered? ── late
//     └ if it was we who were stopped (the timer is late), they get their time once more

import { monotonicMs } from './clock.js';

/** Timers are late by less than this on a busy host. */
const LATE_MS = 500;

/** Calls `over` when the time is over. Returns how to take that back. */
export function afterAwake(delayMs: number, over: () => void): () => void {
  let timer: NodeJS.Timeout;
  const arm = (): void => {
    const dueMs = monotonicMs() + delayMs;
    timer = setTimeout(() => {
      if (monotonicMs() - dueMs > LATE_MS) arm();
      // What has been answered by now is read first.
      else timer = setTimeout(over, 1);
    }, delayMs);
  };
  arm();
  return () => clearTimeout(timer);
}

/**
 * What becomes of work that is not done in time is nobody's.
 * @throws late() then, or as the work
 */
export function withinAwake<Result>(
  limitMs: number,
  work: Promise<Result>,
  late: () => Error,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const cancel = afterAwake(limitMs, () => reject(late()));
    work.then(resolve, reject).finally(cancel);
  });
}
