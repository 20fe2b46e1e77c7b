// One domain of the secondary: what happens, what is decided (vigil.ts), and what is done about it.
//
//   dialling ─▶ link ─▶ restoring: one stream after another ─▶ commits$
//                          └ broken ─▶ suspect ─▶ deciding (witness) ─▶ taking over ─▶ failover$

import { EMPTY, catchError, map, merge, mergeMap, of, tap } from 'rxjs';
import type { Observable, ObservableInput, TimestampProvider } from 'rxjs';
import { ChannelError } from '../channel/contract.js';
import { asError } from '../errors.js';
import { spreadMs } from '../flow/backoff.js';
import { feedback, performersOf, type Performer, type Transition } from '../flow/feedback.js';
import { ofKind } from '../flow/of-kind.js';
import { timers } from '../flow/timers.js';
import type { StandbyState } from '../report/reports.js';
import { dialling } from './dialling.js';
import type { SecondaryPorts } from './ports.js';
import { restoring } from './restoring.js';
import { FailoverReport, takingOver } from './taking-over.js';
import { stepSecondary } from './vigil.js';
import {
  initialSecondaryState,
  type Effect,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondarySettings,
  type SecondaryState,
} from './vigil-state.js';

type Perform = Performer<SecondaryEvent, SecondaryEffect>;

const { atOnce, inTurn, told } = performersOf<SecondaryEvent, SecondaryEffect>();

/** Emits where each event led, before anything is done about it. With the subscription everything begins, and ends. */
export function secondary(
  ports: SecondaryPorts,
  settings: SecondarySettings,
  clock: TimestampProvider,
): Observable<Transition<SecondaryState, SecondaryEffect>> {
  const { links, work, error$ } = ports;
  const failover = new FailoverReport(ports, clock);
  const destroying = (change: () => ObservableInput<void>) => work.attempt('destroy a domain', change);

  const performers: readonly Perform[] = [
    timing(ports, clock),
    dialling(ports),
    // A domain is filled by one stream at a time: not before the restorer is done with the last one.
    inTurn('restore', (effect) => restoring(effect, ports, clock)),
    inTurn('ask-witness', deciding(ports)),
    // It is reported that it has begun, and then it begins.
    told('take-over', ({ held, reason }) => failover.started(held, reason)),
    inTurn('take-over', () => takingOver(ports, clock)),
    told('report-completed', ({ held }) => failover.completed(held)),
    told('report-failed', ({ code, message }) => failover.failed(code, message)),
    told('report-impossible', ({ gone, reason }) => failover.impossible(gone, reason)),
    told('adopt', () => error$.next(null)),
    atOnce('adopt', () => destroying(() => ports.adopt())),
    atOnce('discard-filling', () => destroying(() => ports.discard('filling'))),
    atOnce('discard-held', () => destroying(() => ports.discard('held'))),
    told('standby-lost', ({ was, reason }) => tellLoss(was, reason, ports, clock)),
    // Of no effect of the vigil's: the next stream finds no spare, and makes a domain.
    () =>
      ports.spareEnded$.pipe(
        tap((reason) => tellLoss('spare', reason, ports, clock)),
        mergeMap(() => destroying(() => ports.discard('spare'))),
      ),
    atOnce('bye', ({ streamUuid, reason }) =>
      work.attempt('say goodbye', () => links.get(streamUuid)?.bye(reason) ?? EMPTY),
    ),
    told('drop-link', ({ streamUuid, code, message, tookMs }) => {
      const took = tookMs !== undefined && { tookMs };
      links.get(streamUuid)?.destroy(new ChannelError(code, message, { domain: ports.name, ...took }));
    }),
    told('transition', ({ reason }) => ports.transition(reason)),
    told('finished', () => ports.finished()),
  ];
  return feedback(stepSecondary, initialSecondaryState(settings), ports.events$, performers, clock);
}

function timing(ports: SecondaryPorts, clock: TimestampProvider): Perform {
  return (effects$) => {
    const armed$ = effects$.pipe(
      ofKind('arm'),
      // Spread, so that the secondaries of many domains do not come back in step.
      map((arm) =>
        arm.timer === 'redial' ? { ...arm, delayMs: spreadMs(arm.delayMs, ports.random()) } : arm,
      ),
    );
    return timers(merge(armed$, effects$.pipe(ofKind('disarm'))), clock);
  };
}

function deciding(ports: SecondaryPorts) {
  const { work, log } = ports;
  /** Why it could not be asked: said once, however often it is tried. */
  let said: string | null = null;
  return ({ held, handedOver }: Effect<'ask-witness'>): Observable<SecondaryEvent> =>
    work
      .keep(() => ports.acquire(held, handedOver))
      .pipe(
        tap(() => (said = null)),
        catchError((thrown: unknown) => {
          const error = asError(thrown);
          log[said === error.message ? 'debug' : 'error']({ err: error }, 'the witness cannot be asked');
          said = error.message;
          return of('unknown' as const);
        }),
        map((answer) => ({ kind: 'witness', answer })),
      );
}

function tellLoss(
  was: StandbyState,
  reason: string,
  { name, losses$, error$, log }: SecondaryPorts,
  clock: TimestampProvider,
): void {
  log.warn({ was, reason }, 'the standby was lost, and will be replaced');
  if (was !== 'spare') {
    error$.next({ code: 'STANDBY_LOST', message: `the standby (${was}) was lost: ${reason}` });
  }
  losses$.next({ domain: name, was, reason, atMs: clock.now() });
}
