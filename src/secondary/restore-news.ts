// What the restorer of a stream says of it.

import type { CheckpointBoundary } from '../channel/contract.js';
import { codeOf } from '../errors.js';
import type { AppliedCheckpoint } from '../restore/callbacks.js';
import type { RestoreOutcome } from '../restore/steps.js';

/** An epoch that counts. */
interface Acknowledged {
  readonly epoch: number;
  readonly boundary: CheckpointBoundary;
  /** When the acknowledgement was given to the link. */
  readonly atMs: number;
}

export type RestoreNews =
  /** The epoch is whole here; its acknowledgement leaves next. */
  | ({ readonly kind: 'acknowledged' } & Acknowledged)
  /** The epoch is in the domain. */
  | ({ readonly kind: 'committed'; readonly applied: AppliedCheckpoint } & Acknowledged)
  /** END came whole; its acknowledgement leaves next. */
  | { readonly kind: 'ended' }
  | Restored;

/** The last news: nobody works on the domain any more. */
export interface Restored {
  readonly kind: 'restored';
  /** The domain can be started: it equals the last acknowledged epoch, or one `epochsBack` before it. */
  readonly consistent: boolean;
  readonly epochsBack: number;
  /** Why; empty where the channel simply ended. */
  readonly code: string;
  readonly message: string;
  /** The epoch that the domain equals; null: none, or the last one. */
  readonly epoch: number | null;
  /** What was wrong with the stream, or with the domain. */
  readonly cause: Error | null;
}

export const CONSISTENT: Restored = {
  kind: 'restored',
  consistent: true,
  epochsBack: 0,
  code: '',
  message: '',
  epoch: null,
  cause: null,
};

/** `acknowledged`: the epoch that was to be committed; null: what was acknowledged is. `code`: what broke the channel. */
export function asOf(outcome: RestoreOutcome, acknowledged: number | null, code = ''): Restored {
  if (outcome.kind === 'complete') return CONSISTENT;
  const { epoch, cause = null } = outcome;
  return {
    ...CONSISTENT,
    epochsBack: acknowledged === null ? 0 : acknowledged - epoch,
    code: cause === null ? code : codeOf(cause),
    message: cause === null ? code : cause.message,
    epoch,
    cause,
  };
}

/** `code`: what broke the channel before, if anything did. */
export function useless(cause: Error, code = ''): Restored {
  return {
    ...CONSISTENT,
    consistent: false,
    code: code === '' ? codeOf(cause) : code,
    message: cause.message,
    cause,
  };
}
