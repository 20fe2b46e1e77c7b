// Waiting for what another process, thread or machine does.

import { setTimeout as sleep } from 'node:timers/promises';

/** Resolves when the condition holds; fails with its name when it does not in time. */
export async function until(what: string, condition: () => boolean, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not in time: ${what}`);
    await sleep(2);
  }
}
