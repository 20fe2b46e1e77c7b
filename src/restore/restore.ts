// Restoring a domain as libxc's restore() does it: a loop over the steps (steps.ts) that asks its driver by callbacks.
//
//   receive ─┬─ checkpoint ─ checkpoint? ─ success ─▶ commit ─▶ applied ─▶ next
//            │                    └─ failover ───────────────────┐
//            ├─ broken ──────────────────────────────────────────┴─▶ breakOff
//            └─ end ─▶ complete

import { closing } from '../flow/closing.js';
import type { RestoreCallbacks } from './callbacks.js';
import type { RestoreStepOptions } from './context.js';
import { openRestore, type RestoreOutcome } from './steps.js';

export type { RestoreOutcome } from './steps.js';

export interface RestoreOptions extends RestoreStepOptions {
  readonly callbacks: RestoreCallbacks;
}

/**
 * Restores the stream into the domain. If it fails, the domain is in no state to run (in COLO: may not be).
 * @throws RestoreError, StreamError, GuestError, HypervisorError, and whatever a callback fails with
 */
export async function restoreDomain(options: RestoreOptions): Promise<RestoreOutcome> {
  const { callbacks } = options;
  const steps = await openRestore(options);
  return closing(steps, async () => {
    for (;;) {
      const received = await steps.receive();
      if (received.kind === 'end') return steps.complete();
      if (received.kind === 'broken') return steps.breakOff(received.cause);
      if ((await callbacks.checkpoint(received.epoch)) === 'failover') return steps.breakOff(null);
      const committed = await steps.commit();
      if (committed.kind === 'unusable') return committed.outcome;
      callbacks.applied?.(committed.applied);
    }
  });
}
