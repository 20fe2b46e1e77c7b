// The buffering restorer: a checkpoint is received whole, acknowledged, committed; and again.
//
//   receive ─▶ boundary agreed ─▶ acknowledged: it counts ─▶ commit ─▶ receive …
//      │           │                                            └ unusable: as of an epoch before ─────────────▶ restored
//      ├─ broken ──┴▶ what is buffered is dropped, what was acknowledged stands ───────────────────────────────▶ restored
//      ├─ the last, for it is handed over ─▶ committed ────────────────────────────────────────────────────────▶ restored
//      └─ END ─▶ completed ─▶ boundary ─▶ ended ─▶ acknowledged, last ─────────────────────────────────────────▶ restored
//
// From the moment that an acknowledgement is given to the link the epoch counts, whatever becomes of the link: the
// primary may have it and let its output out. So who decides is told first, and it is committed in any case. Records are
// read by a plain loop in receive(); what flows here are checkpoints.

import {
  catchError,
  concat,
  concatMap,
  defer,
  endWith,
  ignoreElements,
  map,
  of,
  repeat,
  takeWhile,
  tap,
  throwError,
  type Observable,
  type TimestampProvider,
} from 'rxjs';
import { ChannelError, type CheckpointBoundary } from '../channel/contract.js';
import { asError, codeOf } from '../errors.js';
import type { Restorer, StreamLink } from './ports.js';
import { CONSISTENT, asOf, useless, type RestoreNews, type Restored } from './restore-news.js';

/** What it acknowledges leaves at once, whether or not it is waited for. */
export type CommitLink = Pick<StreamLink, 'boundary' | 'acknowledge' | 'destroy'>;

/** Never fails: the last news is how it ended. */
export function commits(
  restore: Restorer,
  link: CommitLink,
  clock: TimestampProvider,
): Observable<RestoreNews> {
  return defer(() => restore.receive()).pipe(
    concatMap((received): Observable<RestoreNews> => {
      if (received.kind === 'broken') return throwError(() => new BrokenChannel(received.cause));
      if (received.kind === 'end') return ending(restore, link);
      return committing(received.epoch, restore, link, clock);
    }),
    repeat(),
    takeWhile(({ kind }) => kind !== 'restored', true),
    catchError((error: unknown) =>
      error instanceof BrokenChannel ? breakingOff(error, restore) : of(useless(asError(error))),
    ),
    // Who waits for the domain waits for this, too.
    concatMap((news) => (news.kind === 'restored' ? closing(news, restore) : of(news))),
  );
}

function committing(
  epoch: number,
  restore: Restorer,
  link: CommitLink,
  clock: TimestampProvider,
): Observable<RestoreNews> {
  return defer(() => link.boundary()).pipe(
    tap((boundary) => agree(epoch, boundary, link)),
    catchError((error: unknown) => throwError(() => new BrokenChannel(null, codeOf(error)))),
    concatMap((boundary) => {
      const acknowledged = { epoch, boundary, atMs: clock.now() };
      return concat(
        // Who decides is told first; the acknowledgement leaves before the domain is touched, and is not waited for.
        of({ kind: 'acknowledged' as const, ...acknowledged }),
        defer(() => {
          link.acknowledge(epoch);
          return restore.commit({ isTrial: boundary.trial, isLast: boundary.handOver });
        }).pipe(
          concatMap((done): Observable<RestoreNews> => {
            if (done.kind === 'unusable') return of(asOf(done.outcome, epoch));
            const committed = of({ kind: 'committed' as const, applied: done.applied, ...acknowledged });
            // Nothing follows the last one.
            return boundary.handOver
              ? concat(committed, breakingOff(new BrokenChannel(null), restore))
              : committed;
          }),
        ),
      );
    }),
  );
}

function ending(restore: Restorer, link: CommitLink): Observable<RestoreNews> {
  const ended$ = defer(() => link.boundary()).pipe(
    tap(requireEnd),
    // Who decides is told first: once the primary knows, it lets out everything, and we must never take over.
    concatMap(({ epoch }) => concat(of({ kind: 'ended' as const }), acknowledging(epoch, link))),
    endWith(CONSISTENT),
    catchError((error: unknown) => of({ ...CONSISTENT, code: codeOf(error), message: codeOf(error) })),
  );
  return defer(() => restore.complete()).pipe(concatMap(() => ended$));
}

function breakingOff({ dropped, code }: BrokenChannel, restore: Restorer): Observable<RestoreNews> {
  return defer(() => restore.breakOff(dropped)).pipe(
    map((outcome) => asOf(outcome, null, code)),
    catchError((error: unknown) => of(useless(asError(error), code))),
  );
}

function closing(news: Restored, restore: Restorer): Observable<RestoreNews> {
  return defer(() => restore.close(news.consistent ? null : news.cause)).pipe(
    map((failure) => (failure === null ? news : useless(failure, news.code))),
  );
}

function acknowledging(epoch: number, link: CommitLink): Observable<never> {
  return defer(() => link.acknowledge(epoch)).pipe(ignoreElements());
}

/** libxc's BROKEN_CHANNEL. */
class BrokenChannel extends Error {
  constructor(
    /** Why the open checkpoint is dropped; null: the channel ended, or `code` says it. */
    readonly dropped: Error | null,
    readonly code = '',
  ) {
    super('the channel broke');
  }
}

/** @throws ChannelError BAD_MESSAGE, which the primary is told, too */
function agree(epoch: number, told: CheckpointBoundary, link: Pick<CommitLink, 'destroy'>): void {
  if (told.epoch === epoch && !told.end) return;
  const error = new ChannelError('BAD_MESSAGE', 'the checkpoint message is not that of the records', {
    epoch,
    told: told.epoch,
    end: told.end,
  });
  link.destroy(error);
  throw error;
}

/** @throws ChannelError BAD_MESSAGE */
function requireEnd({ end, epoch }: CheckpointBoundary): void {
  if (!end) throw new ChannelError('BAD_MESSAGE', 'END without its checkpoint message', { epoch });
}
