// How a secondary comes to its links, and what these say: one attempt at a time; a link outlives the dial that brought it.
//
//   dial ──▶ attempt ─┬─▶ link: dialled ─▶ bye, lost
//   abort-dial ──▶ ✕  └─▶ dial-failed

import { EMPTY, Observable, catchError, concat, map, mergeMap, of, switchMap, tap } from 'rxjs';
import { ChannelError, type ChannelErrorCode, type SecondaryLink } from '../channel/contract.js';
import { asError, codeOf } from '../errors.js';
import type { Performer } from '../flow/feedback.js';
import { ofKind } from '../flow/of-kind.js';
import type { SecondaryPorts, StreamLink } from './ports.js';
import type { Effect, SecondaryEffect, SecondaryEvent } from './vigil-state.js';

export type DiallingPorts = Pick<
  SecondaryPorts,
  'dial' | 'standstillMs' | 'links' | 'error$' | 'work' | 'log'
>;

/** Refusals that stand until somebody changes one of the two sides. */
const MISFITS: ReadonlySet<string> = new Set<ChannelErrorCode>([
  ...(['DOMAIN_MISMATCH', 'PROTOCOL_VERSION', 'TLS', 'NAME_REFUSED'] as const),
  ...(['NOT_AUTHENTICATED', 'TOKEN_MISMATCH'] as const),
]);

export function dialling(ports: DiallingPorts): Performer<SecondaryEvent, SecondaryEffect> {
  const { links, work, error$ } = ports;
  const refusals = refusalsOf(ports);
  const attempt = (effect: Effect<'dial'>): Observable<Attempt> =>
    work
      .keep(() => ports.dial(effect))
      .pipe(
        map((link): Attempt => ({ dial: effect.dial, link })),
        catchError((error: unknown) => {
          refusals.tell(asError(error));
          return of({ dial: effect.dial, link: null, code: codeOf(error) });
        }),
      );
  const dialled = (dial: number, link: StreamLink): SecondaryEvent => {
    const { streamUuid, host: owner, pairing, continuous, resumes } = link.welcome;
    const { heartbeatTimeoutMs: silenceMs } = link.welcome;
    if (error$.value !== null && MISFITS.has(error$.value.code)) error$.next(null);
    refusals.forget();
    links.set(streamUuid, link);
    const standstillMs = ports.standstillMs(link);
    const terms = { continuous, resumes, standstillMs, silenceMs };
    return { kind: 'dialled', dial, streamUuid, owner, pairing, ...terms };
  };

  return (effects$) =>
    effects$.pipe(
      ofKind('dial', 'abort-dial'),
      switchMap((effect) => (effect.kind === 'dial' ? attempt(effect) : EMPTY)),
      // Behind switchMap: the next dial does not end what the last link has to say.
      mergeMap((tried): Observable<SecondaryEvent> =>
        tried.link === null
          ? of({ kind: 'dial-failed', dial: tried.dial, code: tried.code })
          : concat(of(dialled(tried.dial, tried.link)), news(tried.link, ports)),
      ),
    );
}

type Attempt =
  | { readonly dial: number; readonly link: StreamLink }
  | { readonly dial: number; readonly link: null; readonly code: string };

function news(link: StreamLink, { links, log }: DiallingPorts): Observable<SecondaryEvent> {
  const { streamUuid } = link.welcome;
  return link.events$.pipe(
    ofKind('bye', 'lost', 'handed-over'),
    tap((event) => {
      if (event.kind !== 'lost') return;
      log.info({ code: event.error.code, reason: event.error.message }, 'link lost');
      links.delete(streamUuid);
    }),
    map((event): SecondaryEvent => {
      switch (event.kind) {
        case 'bye':
          return { kind: 'bye', streamUuid, reason: event.reason };
        case 'lost':
          return { kind: 'lost', streamUuid, code: event.error.code };
        case 'handed-over':
          return { kind: 'handed-over', streamUuid };
      }
    }),
  );
}

/** A dial that can be given up; a link that comes nevertheless is closed. */
export function attemptOf(start: (signal: AbortSignal) => Promise<SecondaryLink>): Observable<SecondaryLink> {
  return new Observable((subscriber) => {
    const abort = new AbortController();
    start(abort.signal).then(
      (link) => {
        if (subscriber.closed) link.destroy(new ChannelError('INTERNAL', 'the dial was given up'));
        subscriber.next(link);
        subscriber.complete();
      },
      (error: unknown) => subscriber.error(error),
    );
    return () => abort.abort();
  });
}

/** Why there is no link: said once for each reason, not for each attempt. What somebody has to mend is shown until one stands. */
function refusalsOf({ log, error$ }: DiallingPorts) {
  let said: string | null = null;
  return {
    tell(error: Error): void {
      const { message } = error;
      const code = codeOf(error);
      if (said === message) {
        log.debug({ err: error }, 'dial failed');
      } else if (MISFITS.has(code)) {
        error$.next({ code, message });
        log.warn({ err: error }, `refused: ${message}`);
      } else {
        log.info({ code, reason: message }, 'no link to the primary');
      }
      said = message;
    },
    forget: () => void (said = null),
  };
}
