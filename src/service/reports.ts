// What a service says of itself: the public face that programs subscribe to. All times in seconds unless the name
// says otherwise; `…At` are readings of the machine's monotonic clock in milliseconds (process.hrtime), comparable
// between processes of one host.

export interface CheckpointPhases {
  readonly suspend: number;
  readonly copy: number;
  readonly state: number;
  readonly resume: number;
  readonly send: number;
  /** From the last piece sent to the acknowledgement. */
  readonly acknowledge: number;
}

/** primary.checkpoints$: one for each acknowledged epoch. */
export interface CheckpointReport {
  readonly domain: string;
  readonly streamUuid: string;
  readonly epoch: number;
  readonly dirtyPages: number;
  readonly bytes: number;
  /** suspend + copy + state + resume. */
  readonly pause: number;
  readonly phases: CheckpointPhases;
  /** Octets of output that the domain had emitted when the epoch was sealed, since the domain was created. */
  readonly outputBytes: number;
}

/** secondary.commits$: one for each epoch that is applied to the standby domain. */
export interface CommitReport {
  readonly domain: string;
  readonly streamUuid: string;
  readonly epoch: number;
  readonly records: number;
  readonly pages: number;
  readonly bytes: number;
  readonly applySeconds: number;
  /** When the acknowledgement was given to the socket. */
  readonly acknowledgedAtMs: number;
  readonly outputBytes: number;
}

/**
 * secondary.failover$: the decision (`started`), then its end. A domain fails over at most once: after `completed`
 * the secondary is where it lives.
 */
export type FailoverEvent = FailoverStarted | FailoverCompleted | FailoverFailed;

interface FailoverBase {
  readonly domain: string;
  readonly streamUuid: string;
  /** The epoch that the domain goes on from. */
  readonly epoch: number;
  /** Why: a code ("LINK_CLOSED", "HEARTBEAT_TIMEOUT", …). */
  readonly reason: string;
  readonly atMs: number;
}
export interface FailoverStarted extends FailoverBase {
  readonly phase: 'started';
}
export interface FailoverCompleted extends FailoverBase {
  readonly phase: 'completed';
  /** From `started` to the domain running. */
  readonly takeoverSeconds: number;
}
export interface FailoverFailed extends FailoverBase {
  readonly phase: 'failed';
  readonly error: { readonly code: string; readonly message: string };
}
