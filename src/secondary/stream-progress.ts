// How far a stream has come here: what the status shows of it, and what is reported of its commits.

import type { SecondaryLink } from '../channel/contract.js';
import type { CommitReport } from '../report/reports.js';
import type { RecordSource } from '../stream/flow.js';
import type { RestoreNews } from './restore-news.js';

export class StreamProgress {
  readonly streamUuid: string;
  epochAcknowledged = -1;
  epochCommitted = -1;
  /** When the last acknowledgement was given. */
  acknowledgedAtMs: number | null = null;
  readonly #domain: string;
  readonly #link: Pick<SecondaryLink, 'bufferedBytes'>;
  /** Octets of records that the restorer has taken and not applied. */
  #takenBytes = 0;

  constructor(domain: string, link: Pick<SecondaryLink, 'welcome' | 'bufferedBytes'>) {
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
      this.acknowledgedAtMs = news.atMs;
    } else if (news.kind === 'committed') {
      this.epochCommitted = news.epoch;
      this.#takenBytes = 0;
    }
  }

  report({ epoch, applied, boundary, atMs }: RestoreNews & { readonly kind: 'committed' }): CommitReport {
    const { records, pages, applySeconds } = applied;
    const { bytes, outputBytes } = boundary;
    const { streamUuid } = this;
    return {
      domain: this.#domain,
      streamUuid,
      epoch,
      records,
      pages,
      bytes,
      applySeconds,
      acknowledgedAtMs: atMs,
      outputBytes,
    };
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
