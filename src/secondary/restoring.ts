// The streams of a domain, one after the other: each fills a domain of its own, and its commits are told.
//
//   restore ─▶ a standby to fill ─▶ restorer opened ─▶ commits (commits.ts) ─┬─▶ acknowledged, ended, restored ─▶ vigil
//                    └ none: domain-failed                                   └─▶ committed ─▶ commits$

import {
  EMPTY,
  ReplaySubject,
  catchError,
  concatMap,
  defer,
  from,
  mergeMap,
  of,
  tap,
  type BehaviorSubject,
  type Observable,
  type ObservableInput,
  type Subject,
  type TimestampProvider,
} from 'rxjs';
import { asError, codeOf } from '../errors.js';
import { ofKind } from '../flow/of-kind.js';
import type { TargetDomain } from '../hypervisor/port.js';
import type { Logger } from '../report/log.js';
import type { CommitReport, DomainStatus } from '../report/reports.js';
import type { RecordSource } from '../stream/flow.js';
import { commits } from './commits.js';
import type { Perform, StreamLink } from './performer.js';
import {
  useless,
  type CommitLink,
  type CommitSteps,
  type RestoreNews,
  type Restored,
} from './restore-news.js';
import type { SecondaryEvent } from './vigil-state.js';
import type { Work } from './work.js';

/** The domain that a stream is restored into. */
export interface Fillable {
  readonly domain: TargetDomain;
  /** The work itself; the domain is not destroyed before it is over. */
  occupied<T>(work$: Observable<T>): Observable<T>;
}

export interface RestoringPorts {
  readonly name: string;
  fill(): ObservableInput<Fillable>;
  /** Waits for the stream's headers. */
  openRestore(domain: TargetDomain, source: RecordSource): ObservableInput<CommitSteps>;
  readonly links: ReadonlyMap<string, StreamLink>;
  /** The stream that is restored, or was last. */
  readonly stream$: BehaviorSubject<StreamProgress | null>;
  readonly commits$: Subject<CommitReport>;
  /** What somebody has to mend. */
  readonly error$: BehaviorSubject<DomainStatus['error']>;
  readonly work: Work;
  readonly log: Logger;
}

export function restoring(ports: RestoringPorts, clock: TimestampProvider): Perform {
  const { name, links, stream$, commits$, error$, work, log } = ports;

  const restore = (link: StreamLink): Observable<SecondaryEvent> => {
    const { streamUuid } = link.welcome;
    const stream = new StreamProgress(name, link);
    stream$.next(stream);
    return defer(() => ports.fill()).pipe(
      concatMap((standby) => standby.occupied(restoreInto(standby.domain, link, stream))),
      mergeMap((news) => (news.kind === 'committed' ? EMPTY : of({ ...news, streamUuid }))),
      catchError((error: unknown) => of({ kind: 'domain-failed' as const, code: codeOf(error) })),
    );
  };
  const restoreInto = (domain: TargetDomain, link: StreamLink, stream: StreamProgress) =>
    defer(() => ports.openRestore(domain, stream.counted(link.source))).pipe(
      concatMap((steps) => commits(steps, audible(link, log), clock)),
      catchError((error: unknown) => of(useless(asError(error)))),
      tap((news) => {
        stream.note(news);
        if (news.kind === 'committed') commits$.next(told(stream.report(news), log));
        if (news.kind !== 'restored') return;
        logEnd(news, stream.epochAcknowledged, log);
        // What somebody has to mend is shown until a checkpoint is held again.
        if (news.code === 'BAD_CONTEXT') error$.next({ code: 'STATE_REFUSED', message: news.message });
      }),
    );

  return (effects$) =>
    effects$.pipe(
      ofKind('restore'),
      // Not before the restorer is done with the last one: a domain is filled by one stream at a time.
      concatMap(({ streamUuid }) => {
        const link = links.get(streamUuid);
        return link === undefined ? EMPTY : work.keep(() => restore(link));
      }),
    );
}

/** How far a stream has come here. */
export class StreamProgress {
  readonly streamUuid: string;
  epochAcknowledged = -1;
  epochCommitted = -1;
  /** When the last acknowledgement was given. */
  acknowledgedAtMs: number | null = null;
  readonly #domain: string;
  readonly #link: Pick<StreamLink, 'bufferedBytes'>;
  /** Octets of records that the restorer has taken and not applied. */
  #takenBytes = 0;

  constructor(domain: string, link: Pick<StreamLink, 'welcome' | 'bufferedBytes'>) {
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
      ...{ domain: this.#domain, streamUuid, epoch },
      ...{ records, pages, bytes, applySeconds, acknowledgedAtMs: atMs, outputBytes },
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

/** The link; an acknowledgement leaves whoever waits for it, and one that may not have arrived is logged. */
function audible(link: StreamLink, log: Logger): CommitLink {
  return {
    boundary: () => link.boundary(),
    acknowledge: (epoch) => {
      const given$ = new ReplaySubject<void>();
      from(link.acknowledge(epoch))
        .pipe(
          tap({
            error: (error: unknown) =>
              log.debug({ err: error, epoch }, 'the acknowledgement may not have arrived'),
          }),
        )
        .subscribe(given$);
      return given$;
    },
    destroy: (error) => link.destroy(error),
  };
}

function told(report: CommitReport, log: Logger): CommitReport {
  const { epoch, records, pages, bytes, applySeconds } = report;
  log.debug({ epoch, records, pages, bytes, applySeconds }, 'checkpoint committed');
  return report;
}

function logEnd({ consistent, cause, code, epoch }: Restored, epochAcknowledged: number, log: Logger): void {
  if (cause === null) return;
  if (consistent) {
    const refused = codeOf(cause) === 'BAD_CONTEXT';
    const what = refused
      ? 'a checkpoint cannot be loaded: back to the one before'
      : 'the open checkpoint was dropped';
    log.warn({ err: cause, epoch }, what);
  } else {
    // A stream that breaks before it has brought a whole domain is nothing to mend here.
    const expected = epochAcknowledged < 0 && code !== 'BAD_CONTEXT';
    log[expected ? 'info' : 'error']({ err: cause }, 'the stream cannot be restored');
  }
}
