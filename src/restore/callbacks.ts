// What the restorer asks of whoever drives it: libxc's restore_callbacks.

import type { MissingStaticData, RestoreEndpoints } from '../guest/ops.js';
import type { DirtyLog } from '../hypervisor/log-dirty.js';
import type { StreamSink } from '../stream/flow.js';

/** libxc's XGR_CHECKPOINT_SUCCESS, _FAILOVER and _ERROR (which here is a rejection). */
export type CheckpointVerdict = 'success' | 'failover';

export interface VerifyMismatch {
  readonly pfn: number;
  readonly type: number;
}

/** A checkpoint has been applied whole. */
export interface AppliedCheckpoint {
  readonly epoch: number;
  readonly records: number;
  /** Octets that were buffered for it; 0 for the first, which is applied as it comes. */
  readonly bufferedBytes: number;
  /** Pages written into the domain. */
  readonly pages: number;
  readonly applySeconds: number;
}

/** What the steps (steps.ts) ask; what libxc's loop on top of them asks besides, RestoreCallbacks says. */
export interface RestoreStepCallbacks {
  /** The static part of the stream is complete; says what it lacked. */
  staticDataDone?(missing: MissingStaticData): Promise<void>;
  /** Verify mode: pages that differ, one call a batch. */
  verifyMismatch?(mismatches: readonly VerifyMismatch[]): void;
  /** An optional record that nothing here knows was skipped. */
  skippedRecord?(type: number, offset: number): void;
}

export interface RestoreCallbacks extends RestoreStepCallbacks {
  /**
   * The epoch is here, whole and well-formed, and not applied yet (the first one: applied). 'success' after it was
   * acknowledged: it will be applied now. 'failover': the channel broke; the epoch is dropped.
   */
  checkpoint(epoch: number): Promise<CheckpointVerdict>;
  /** The epoch is applied. */
  applied?(checkpoint: AppliedCheckpoint): void;
}

/** What COLO needs besides what every restore needs. 'failover': the channel broke; the domain shall run on alone. */
export interface ColoRestoreOptions {
  /** The dirty log of the domain that is restored. */
  readonly dirtyLog: DirtyLog;
  /** The back channel: one record without headers, and a boundary, for each checkpoint but the first. */
  readonly back: StreamSink;
  /** The domain is complete: where its xenstore and console rings are. Before each postcopy. */
  restoreResults?(endpoints: RestoreEndpoints): Promise<void>;
  /**
   * Lets the domain run: starts it the first time, resumes it later. Called at a failover, too, if the domain stands;
   * it runs when this resolves, whatever the verdict.
   */
  postcopy(epoch: number): Promise<CheckpointVerdict>;
  /** Resolves when the primary takes the next checkpoint, or with 'failover' when the channel is lost. */
  waitCheckpoint(): Promise<CheckpointVerdict>;
  /** Suspends the domain for the epoch that comes. */
  suspend(epoch: number): Promise<CheckpointVerdict>;
}
