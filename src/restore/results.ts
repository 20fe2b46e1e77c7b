// What the steps of a restore (steps.ts) come to.

import type { AppliedCheckpoint } from './callbacks.js';

/**
 * Either way the domain can be started: it equals the last checkpoint. In COLO it has been: after 'failover' it runs,
 * after 'complete' it is suspended, both in its own state, in which the last checkpoint is one that it went through.
 */
export type RestoreOutcome =
  | {
      /** END has come. */
      readonly kind: 'complete';
      /** Checkpoints that were applied; 0 for a plain stream. */
      readonly epochs: number;
    }
  | {
      /** The stream broke off after a checkpoint. */
      readonly kind: 'failover';
      /** The checkpoint that the domain equals: the last one that was applied, or that it could be started from. */
      readonly epoch: number;
      /** Why the open checkpoint was dropped, where it did not simply end. */
      readonly cause?: Error;
    };

export type Received =
  /** The open checkpoint is whole and well-formed: it can be applied, so it may be acknowledged. */
  | { readonly kind: 'checkpoint'; readonly epoch: number }
  /** The stream is whole. */
  | { readonly kind: 'end'; readonly epochs: number }
  /** libxc's BROKEN_CHANNEL, with the cause where the stream did not simply end: bad bytes, a full buffer. */
  | { readonly kind: 'broken'; readonly cause: Error | null };

export type Committed =
  | { readonly kind: 'applied'; readonly applied: AppliedCheckpoint }
  /** The domain cannot be started from this epoch, and is as of the one before it that the outcome names. */
  | { readonly kind: 'unusable'; readonly outcome: RestoreOutcome };
