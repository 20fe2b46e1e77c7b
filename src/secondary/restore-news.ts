// What the restorer of a stream says of it, and how far the stream has come by that: what the status shows, and what is
// reported of its commits.

import type { CheckpointBoundary, SecondaryLink, SharedPoint } from '../channel/contract.js';
import { chained } from '../channel/link/digest.js';
import { codeOf } from '../errors.js';
import type { CommitReport } from '../report/reports.js';
import type { AppliedCheckpoint } from '../restore/callbacks.js';
import type { RestoreOutcome } from '../restore/steps.js';
import type { RecordSource } from '../stream/flow.js';

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

export class StreamProgress {
  readonly streamUuid: string;
  epochAcknowledged = -1;
  epochCommitted = -1;
  /** When the last acknowledgement was given. */
  acknowledgedAtMs: number | null = null;
  /** Over all that was acknowledged, in this stream and those that it goes on from: chained(). */
  digest: bigint;
  readonly #domain: string;
  readonly #link: Pick<SecondaryLink, 'bufferedBytes'>;
  /** Octets of records that the restorer has taken and not applied. */
  #takenBytes = 0;

  /** `shared`: from where it goes on. */
  constructor(
    domain: string,
    link: Pick<SecondaryLink, 'welcome' | 'bufferedBytes'>,
    shared: Pick<SharedPoint, 'digest'> | null = null,
  ) {
    this.digest = shared?.digest ?? 0n;
    this.#domain = domain;
    this.#link = link;
    this.streamUuid = link.welcome.streamUuid;
  }

  /** Octets received and not yet applied. */
  get bufferedBytes(): number {
    return this.#link.bufferedBytes + this.#takenBytes;
  }

  note(news: RestoreNews): void {
    if (news.kind === 'acknowledged') {
      this.epochAcknowledged = news.epoch;
      this.digest = chained(this.digest, news.boundary.digest);
      this.acknowledgedAtMs = news.atMs;
    } else if (news.kind === 'committed') {
      this.epochCommitted = news.epoch;
      this.#takenBytes = 0;
    }
  }

  report({ epoch, applied, boundary, atMs }: RestoreNews & { readonly kind: 'committed' }): CommitReport {
    const { records, pages, applySeconds } = applied;
    const { bytes, outputBytes } = boundary;
    const what = { domain: this.#domain, streamUuid: this.streamUuid, epoch };
    return { ...what, records, pages, bytes, applySeconds, acknowledgedAtMs: atMs, outputBytes };
  }

  /** The source itself, what is taken from it counted. */
  counted(source: RecordSource): RecordSource {
    return {
      headers: () => source.headers(),
      read: async () => {
        const record = await source.read();
        if (record !== null) this.#takenBytes += record.body.length;
        return record;
      },
      release: (record) => source.release?.(record),
    };
  }
}
