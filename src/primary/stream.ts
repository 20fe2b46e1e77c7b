// One link, one stream: the checkpoint loop over it, what it lets out, and how it ended.
//
//   link ─ acknowledged ─▶ loop ─▶ release ─▶ news: captured, acknowledged ··· over
//                           │                                                    │ the saver closes
//   left, whatever the loop does ────────────────────────────────────────────────┴▶ complete
//
// The end is a value. A stream completes only when its saver, and its link, have let go of the domain and the slabs: whoever
// begins the next one with concatMap begins it in time. It is never unsubscribed from, for that would stop nothing: it is left.

import {
  EMPTY,
  catchError,
  concat,
  defer,
  filter,
  map,
  of,
  queueScheduler,
  subscribeOn,
  takeUntil,
  tap,
  throwError,
  type Observable,
  type TimestampProvider,
} from 'rxjs';
import { ChannelError, type ChannelErrorCode, type PrimaryLink } from '../channel/contract.js';
import { asError, codeOf } from '../errors.js';
import type { Pairing } from '../failover/mandate.js';
import { checkpoints, type LoopPorts, type LoopSettings } from './checkpoints.js';
import type { Ledger, Release } from './ledger.js';

/** ended: END is acknowledged. broken: the other side does not keep to the protocol. failed: the saver could not go on. */
export type StreamEnd =
  | { readonly how: 'ended' }
  | { readonly how: 'broken'; readonly code: ChannelErrorCode; readonly message: string }
  | { readonly how: 'failed'; readonly code: string; readonly message: string };

export type StreamNews = { readonly streamUuid: string } & (
  | { readonly kind: 'captured' | 'acknowledged'; readonly ledger: Ledger }
  | { readonly kind: 'suspending' }
  | { readonly kind: 'stopping' }
  | { readonly kind: 'stream-over'; readonly end: StreamEnd }
);

/** What the other side does wrong, as the loop finds it. */
const BREACHES: ReadonlySet<ChannelErrorCode> = new Set(['BAD_MESSAGE', 'ACKNOWLEDGE_TIMEOUT']);

/** What is heard of a link. */
export type StreamLink = Pick<PrimaryLink, 'streamUuid' | 'events$'> & { readonly pairing: Pairing };

/** What saves the domain in one stream (capture.ts). */
export interface Saver extends Pick<LoopPorts, 'capture' | 'end'> {
  /** The epoch is acknowledged. */
  report(epoch: number): void;
  /** Gives up what is under way; completes when the domain is let go of, and the link has let go of what was captured. */
  close(): Observable<never>;
}

export interface StreamPorts extends Pick<LoopPorts, 'requested$' | 'handOver$' | 'beat$' | 'ended$'> {
  /** Does nothing to the domain before the first capture. */
  openSaver(streamUuid: string): Saver;
  /** The epochs that are acknowledged over the stream's link. */
  acknowledged(streamUuid: string): Observable<number>;
  /** Anything came over it; left out: that is not told. */
  heard?(streamUuid: string): Observable<unknown>;
  release(release: Release): void;
}

/** `left$`: the stream is over, whatever it still does. */
export function stream(
  streamUuid: string,
  ports: StreamPorts,
  settings: LoopSettings,
  left$: Observable<unknown>,
  clock: TimestampProvider,
): Observable<StreamNews> {
  const over = (end: StreamEnd) => of<StreamNews>({ kind: 'stream-over', streamUuid, end });
  return defer(() => {
    const saver = ports.openSaver(streamUuid);
    const loop: LoopPorts = {
      ...ports,
      capture: (epoch, mark) => saver.capture(epoch, mark).pipe(catchError(ofSaver)),
      end: (epoch) => saver.end(epoch).pipe(catchError(ofSaver)),
      acknowledged$: ports.acknowledged(streamUuid),
      heard$: ports.heard?.(streamUuid) ?? EMPTY,
    };
    const news$ = checkpoints(loop, settings, clock).pipe(
      tap(({ release, last, acknowledged, endEpoch }) => {
        if (release) ports.release(release);
        if (last === 'acknowledged' && acknowledged !== endEpoch) saver.report(acknowledged);
      }),
      map((ledger) => newsOf(streamUuid, ledger)),
      filter((news) => news !== null),
    );
    return concat(
      concat(news$, over({ how: 'ended' })).pipe(
        takeUntil(left$),
        catchError((error: unknown) => over(endOf(error))),
      ),
      // In a turn of its own: what the end is answered with (discard, halt) comes first.
      defer(() => saver.close()).pipe(subscribeOn(queueScheduler)),
    );
  });
}

/** What is news of a ledger: END's leaving is the last capture. */
function newsOf(streamUuid: string, ledger: Ledger): StreamNews | null {
  const { last } = ledger;
  if (last === 'suspending' || last === 'stopping') return { kind: last, streamUuid };
  if (last === 'acknowledged') return { kind: last, streamUuid, ledger };
  return last === 'captured' || last === 'ending' ? { kind: 'captured', streamUuid, ledger } : null;
}

/** The saver could not go on. */
class SaverFailed extends Error {
  constructor(override readonly cause: Error) {
    super(cause.message);
  }
}

function ofSaver(error: unknown): Observable<never> {
  return throwError(() => new SaverFailed(asError(error)));
}

/** @throws what is neither the saver's nor the other side's: a fault of ours, which ends the pipeline */
function endOf(error: unknown): StreamEnd {
  if (error instanceof SaverFailed) {
    return { how: 'failed', code: codeOf(error.cause), message: error.cause.message };
  }
  if (error instanceof ChannelError && BREACHES.has(error.code)) {
    return { how: 'broken', code: error.code, message: error.message };
  }
  throw error;
}
