// One domain of the secondary: what happens, what is decided (vigil.ts), and what is done about it.
//
//   dialling ─▶ link ─▶ restoring: one stream after another ─▶ commits$
//                          └ broken ─▶ suspect ─▶ deciding (witness) ─▶ taking over ─▶ failover$

import { EMPTY, catchError, concatMap, ignoreElements, map, merge, mergeMap, of, tap } from 'rxjs';
import type { Observable, ObservableInput, Subject, TimestampProvider } from 'rxjs';
import { ChannelError } from '../channel/contract.js';
import { spreadMs } from '../flow/backoff.js';
import { feedback, type Transition } from '../flow/feedback.js';
import { ofKind } from '../flow/of-kind.js';
import { timers } from '../flow/timers.js';
import type { FailoverEvent } from '../report/reports.js';
import { dialling, type DiallingPorts } from './dialling.js';
import type { Perform } from './performer.js';
import { restoring, type RestoringPorts } from './restoring.js';
import { losing, standingBy, type StandingByPorts } from './standing-by.js';
import { failovers, takingOver, type FailoverPorts, type TakingOverPorts } from './taking-over.js';
import { stepSecondary } from './vigil.js';
import {
  initialSecondaryState,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondarySettings,
  type SecondaryState,
} from './vigil-state.js';

type PerformerPorts = DiallingPorts & RestoringPorts & StandingByPorts & TakingOverPorts & FailoverPorts;

export interface SecondaryPorts extends PerformerPorts {
  /** start, stop, and how standbys end by themselves. */
  readonly sources$: Observable<SecondaryEvent>;
  /** The witness's lease of the domain, or null if another side holds it. */
  acquire(): ObservableInput<unknown>;
  readonly failover$: Subject<FailoverEvent>;
  /** The vigil has come to another state. */
  transition(reason: string): void;
  /** The domain has come to an end of its own. */
  finished(): void;
  /** In [0, 1): spreads the dials of many secondaries. */
  random(): number;
}

/** Emits where each event led, before anything is done about it. With the subscription everything begins, and ends. */
export function secondary(
  ports: SecondaryPorts,
  settings: SecondarySettings,
  clock: TimestampProvider,
): Observable<Transition<SecondaryState, SecondaryEffect>> {
  const { name, links, work, log } = ports;

  const timing: Perform = (effects$) => {
    const armed$ = effects$.pipe(
      ofKind('arm'),
      // Spread, so that the secondaries of many domains do not come back in step.
      map((arm) =>
        arm.timer === 'redial' ? { ...arm, delayMs: spreadMs(arm.delayMs, ports.random()) } : arm,
      ),
    );
    return timers(merge(armed$, effects$.pipe(ofKind('disarm'))), clock);
  };

  const granted$ = work
    .keep(() => ports.acquire())
    .pipe(
      map((lease) => lease !== null),
      catchError((error: unknown) => {
        log.error({ err: error }, 'the witness cannot be asked');
        return of(false);
      }),
    );
  const deciding: Perform = (effects$) =>
    effects$.pipe(
      ofKind('ask-witness'),
      concatMap(() => granted$),
      map((granted) => ({ kind: 'witness', granted })),
    );

  const leaving: Perform = (effects$) =>
    effects$.pipe(
      ofKind('bye'),
      mergeMap(({ streamUuid, reason }) =>
        work.attempt('say goodbye', () => links.get(streamUuid)?.bye(reason) ?? EMPTY),
      ),
    );

  const dropping: Perform = (effects$) =>
    effects$.pipe(
      ofKind('drop-link'),
      tap(({ streamUuid, code, message }) =>
        links.get(streamUuid)?.destroy(new ChannelError(code, message, { domain: name })),
      ),
      ignoreElements(),
    );

  const reporting: Perform = (effects$) =>
    merge(
      effects$.pipe(
        failovers(ports, clock),
        tap((event) => ports.failover$.next(event)),
      ),
      effects$.pipe(
        ofKind('transition'),
        tap(({ reason }) => ports.transition(reason)),
      ),
      effects$.pipe(
        ofKind('finished'),
        tap(() => ports.finished()),
      ),
    ).pipe(ignoreElements());

  const performers = [
    timing,
    dialling(ports),
    restoring(ports, clock),
    standingBy(ports),
    losing(ports, clock),
    deciding,
    // Before it is done: what is reported is that it has begun.
    reporting,
    takingOver(ports),
    leaving,
    dropping,
  ];
  return feedback(stepSecondary, initialSecondaryState(settings), ports.sources$, performers, clock);
}
