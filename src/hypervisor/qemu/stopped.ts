// A stop of the guest that is no checkpoint: something is done to its machine, for which it must stand still.

import type { QemuMachine } from './machine.js';
import { runStatusOf, type RunState } from './monitor/run-state.js';

/**
 * Does the work, and lets the guest run again, unless somebody else has stopped it.
 * @throws HypervisorError FAILED (a stop that is late does not leave it stopped) or DOMAIN_GONE; what `work` throws
 */
export async function whileStopped<T>(
  { qmp, guard }: Pick<QemuMachine, 'qmp' | 'guard'>,
  run: RunState,
  work: () => Promise<T>,
): Promise<T> {
  if (run.stoppedBy === null) guard?.stopping();
  run.stopping();
  try {
    const [before] = await Promise.all(qmp.executeAll([['query-status'], ['stop']]));
    run.stopped(runStatusOf(before));
    if (run.stoppedBy !== null) guard?.running();
  } catch (error) {
    run.stopFailed();
    if (run.stoppedBy === null) qmp.execute('cont').catch(() => undefined);
    throw error;
  }
  try {
    return await work();
  } finally {
    run.resuming();
    try {
      if (run.stoppedBy === null && !run.resumedByOthers) await qmp.execute('cont');
    } finally {
      run.resumed();
      guard?.running();
    }
  }
}
