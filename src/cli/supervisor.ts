// An agent that was started by a Node program with an IPC channel (child_process.fork, or stdio 'ipc') tells that
// program what its embedded subscribers would hear, message by message, and ends in order when the program is gone.
// `romulus demo` watches its two hosts this way.

import type {
  CheckpointReport,
  CommitReport,
  FailoverEvent,
  RoleReport,
  TransitionReport,
} from '../report/reports.js';

export type SupervisorMessage =
  | { readonly kind: 'listening'; readonly port: number; readonly httpPort: number | null }
  | { readonly kind: 'checkpoint'; readonly report: CheckpointReport }
  | { readonly kind: 'commit'; readonly report: CommitReport }
  | { readonly kind: 'failover'; readonly event: FailoverEvent }
  | { readonly kind: 'transition'; readonly report: TransitionReport }
  | { readonly kind: 'role'; readonly report: RoleReport };

/** Messages that the supervising program has not taken yet. */
const WAITING_MAX = 1000;
let waiting = 0;

/** Tells the supervising program, if there is one. While it stands still, it misses some. */
export function tellSupervisor(message: SupervisorMessage): void {
  // A supervisor that has gone is noticed by its 'disconnect' event, not by a failed report.
  if (!process.connected || waiting >= WAITING_MAX) return;
  waiting++;
  process.send?.(message, undefined, undefined, () => waiting--);
}

/** Aborts when the supervising program is gone; never, if there is none. */
export function supervisorGone(): AbortSignal {
  const controller = new AbortController();
  if (process.send !== undefined) {
    process.once('disconnect', () => controller.abort(new Error('the supervising program is gone')));
  }
  return controller.signal;
}

/** Lets the process end: an open IPC channel would keep it alive. */
export function leaveSupervisor(): void {
  if (process.connected) process.disconnect();
}
