// The streams of a domain, one after the other: each fills a domain of its own, and its commits are told.
//
//   restore ─▶ a standby to fill ─▶ restorer opened ─▶ commits (commits.ts) ─┬─▶ acknowledged, ended, restored ─▶ vigil
//                    └ none: domain-failed                                   └─▶ committed ─▶ commits$; the last ─▶ vigil

import {
  AsyncSubject,
  catchError,
  concatAll,
  concatMap,
  defer,
  from,
  map,
  mergeMap,
  of,
  tap,
  type Observable,
  type TimestampProvider,
} from 'rxjs';
import { ChannelError } from '../channel/contract.js';
import { asError, codeOf } from '../errors.js';
import type { Logger } from '../report/log.js';
import type { CommitReport } from '../report/reports.js';
import { commits, type CommitLink } from './commits.js';
import type { Fillable, SecondaryPorts, StreamLink } from './ports.js';
import { StreamProgress, useless, type RestoreNews, type Restored } from './restore-news.js';
import type { Effect, SecondaryEvent } from './vigil-state.js';

export function restoring(
  { streamUuid, from: shared }: Pick<Effect<'restore'>, 'streamUuid' | 'from'>,
  ports: RestoringPorts,
  clock: TimestampProvider,
): Observable<SecondaryEvent> {
  const { name, links, stream$, commits$, error$, work, log } = ports;
  const link = links.get(streamUuid);
  if (link === undefined) {
    const lost = new ChannelError('LINK_CLOSED', 'the link was lost before its stream was begun');
    return of({ ...useless(lost), streamUuid });
  }
  const stream = new StreamProgress(name, link, shared);

  const restored = (standby: Fillable): Observable<RestoreNews> =>
    defer(() => ports.openRestore(standby, stream.counted(link.source), streamUuid)).pipe(
      concatMap((restorer) => commits(restorer, audible(link, log), clock)),
      catchError((error: unknown) => of(useless(asError(error)))),
      tap((news) => {
        stream.note(news);
        // The primary has one tried because it hands the domain over.
        if (news.kind === 'acknowledged' && news.boundary.trial) ports.foresee();
        if (news.kind === 'committed') commits$.next(told(stream.report(news), log));
        if (news.kind !== 'restored') return;
        logEnd(news, stream.epochAcknowledged, log);
        // What somebody has to mend is shown until a checkpoint is held again.
        if (news.code === 'BAD_CONTEXT') error$.next({ code: 'STATE_REFUSED', message: news.message });
      }),
    );
  return work.keep(() => {
    stream$.next(stream);
    const filling$: Observable<Observable<SecondaryEvent>> = defer(() => ports.fill(shared !== null)).pipe(
      map((standby) => standby.occupied(restored(standby)).pipe(mergeMap((news) => eventsOf(news, stream)))),
      // Of the domain that cannot be made, no more: a fault in what follows is ours, and ends the pipeline.
      catchError((error: unknown) => of(of({ kind: 'domain-failed' as const, code: codeOf(error) }))),
    );
    return filling$.pipe(concatAll());
  });
}

function eventsOf(news: RestoreNews, { streamUuid, digest }: StreamProgress): readonly SecondaryEvent[] {
  if (news.kind === 'acknowledged') {
    const last = news.boundary.handOver && { lastAtMs: news.atMs };
    return [{ ...news, streamUuid, digest, ...last }];
  }
  if (news.kind !== 'committed') return [{ ...news, streamUuid }];
  return news.boundary.handOver ? [{ kind: 'complete', streamUuid }] : [];
}

export type RestoringPorts = Pick<
  SecondaryPorts,
  'name' | 'fill' | 'foresee' | 'openRestore' | 'links' | 'stream$' | 'commits$' | 'error$' | 'work' | 'log'
>;

/** The link; an acknowledgement leaves whoever waits for it, and one that may not have arrived is logged. */
function audible(link: StreamLink, log: Logger): CommitLink {
  return {
    boundary: () => link.boundary(),
    acknowledge: (epoch) => {
      const given$ = new AsyncSubject<void>();
      given$.subscribe({
        error: (error: unknown) =>
          log.debug({ err: error, epoch }, 'the acknowledgement may not have arrived'),
      });
      from(link.acknowledge(epoch)).subscribe(given$);
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
