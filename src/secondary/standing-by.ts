// What becomes of the standbys: adopted, discarded, or lost because they have ended by themselves.

import { ignoreElements, map, merge, mergeMap, tap, type BehaviorSubject, type Subject } from 'rxjs';
import type { Observable, ObservableInput, TimestampProvider } from 'rxjs';
import { ofKind } from '../flow/of-kind.js';
import type { Logger } from '../report/log.js';
import type { DomainStatus, StandbyLossReport } from '../report/reports.js';
import type { Perform } from './performer.js';
import type { Work } from './work.js';

export interface StandingByPorts {
  readonly name: string;
  /** The one that is filled is held from now on. Emits when the one held before is destroyed. */
  adopt(): ObservableInput<void>;
  discardFilling(): ObservableInput<void>;
  discardHeld(): ObservableInput<void>;
  discardSpare(): ObservableInput<void>;
  /** The spare has ended by itself, and why. */
  readonly spareEnded$: Observable<string>;
  readonly losses$: Subject<StandbyLossReport>;
  /** What somebody has to mend. */
  readonly error$: BehaviorSubject<DomainStatus['error']>;
  readonly work: Work;
  readonly log: Logger;
}

export function standingBy(ports: StandingByPorts): Perform {
  const { error$, work } = ports;
  const destroying = (change: () => ObservableInput<void>) => work.attempt('destroy a domain', change);
  return (effects$) =>
    merge(
      effects$.pipe(
        ofKind('adopt'),
        tap(() => error$.next(null)),
        mergeMap(() => destroying(() => ports.adopt())),
      ),
      effects$.pipe(
        ofKind('discard-filling'),
        mergeMap(() => destroying(() => ports.discardFilling())),
      ),
      effects$.pipe(
        ofKind('discard-held'),
        mergeMap(() => destroying(() => ports.discardHeld())),
      ),
    );
}

/** Said of each; the next stream finds no spare then, and makes a domain. */
export function losing(ports: StandingByPorts, clock: TimestampProvider): Perform {
  const { name: domain, spareEnded$, losses$, error$, work, log } = ports;
  const lost = (was: StandbyLossReport['was'], reason: string) => {
    log.warn({ was, reason }, 'the standby was lost, and will be replaced');
    if (was === 'held') {
      error$.next({ code: 'STANDBY_LOST', message: `the standby (${was}) was lost: ${reason}` });
    }
    losses$.next({ domain, was, reason, atMs: clock.now() });
  };
  return (effects$) =>
    merge(
      effects$.pipe(
        ofKind('standby-lost'),
        map(({ was, reason }) => lost(was, reason)),
        ignoreElements(),
      ),
      spareEnded$.pipe(
        tap((reason) => lost('spare', reason)),
        mergeMap(() => work.attempt('destroy a domain', () => ports.discardSpare())),
      ),
    );
}
