// Taking over, once it is decided: the standby is started, and the world hears it. What becomes of it is told to the vigil,
// which says what to report: the domain may run from an epoch before the one that was meant.

import { EMPTY, catchError, concatMap, filter, map, merge, mergeMap, of, tap, throwError } from 'rxjs';
import type { BehaviorSubject, Observable, ObservableInput, OperatorFunction, TimestampProvider } from 'rxjs';
import { asError, codeOf } from '../errors.js';
import { ofKind } from '../flow/of-kind.js';
import { HypervisorError } from '../hypervisor/port.js';
import type { Logger } from '../report/log.js';
import type { DomainStatus, FailoverEvent } from '../report/reports.js';
import { FailoverReport, NO_STANDBY } from './failover-report.js';
import type { Effect, Perform } from './performer.js';
import type { StreamProgress } from './restoring.js';
import type { SecondaryEffect, SecondaryEvent } from './vigil-state.js';
import type { Work } from './work.js';

/** What is taken over. */
export interface Takeable {
  /** It runs, and what it says is let out. If it fails with another code than DOMAIN_GONE, it can be tried again. */
  takeOver(): ObservableInput<void>;
  readonly domain: {
    readonly checkpointsBack?: number;
    announce?(): ObservableInput<void>;
  };
}

export interface TakingOverPorts {
  /** What is held. */
  readonly standby: () => Takeable | null;
  /** It does not start. */
  readonly failed: (error: Error) => void;
  readonly error$: BehaviorSubject<DomainStatus['error']>;
  readonly work: Work;
}

export function takingOver({ standby, failed, error$, work }: TakingOverPorts): Perform {
  const takeOver = (held: Takeable): Observable<SecondaryEvent> => {
    const epochsBack = () => held.domain.checkpointsBack ?? 0;
    return work
      .keep(() => held.takeOver())
      .pipe(
        tap(() => error$.next(null)),
        mergeMap(() =>
          merge(
            work.attempt('announce the domain', () => held.domain.announce?.() ?? EMPTY),
            of({ kind: 'started' as const, epochsBack: epochsBack() }),
          ),
        ),
        catchError((thrown: unknown) => {
          const error = asError(thrown);
          failed(error);
          const { message } = error;
          return of({
            kind: 'start-failed' as const,
            code: codeOf(error),
            message,
            epochsBack: epochsBack(),
          });
        }),
      );
  };
  return (effects$) =>
    effects$.pipe(
      ofKind('take-over'),
      concatMap(() => takeOver(standby() ?? NOTHING)),
    );
}

const NOTHING: Takeable = {
  takeOver: () =>
    throwError(() => new HypervisorError('DOMAIN_GONE', 'There is no standby to be taken over.')),
  domain: {},
};

export interface FailoverPorts {
  readonly name: string;
  /** The stream that is restored, or was last. */
  readonly stream$: { readonly value: Pick<StreamProgress, 'acknowledgedAtMs'> | null };
  readonly error$: BehaviorSubject<DomainStatus['error']>;
  readonly log: Logger;
}

/** The failover as it is reported. */
export function failovers(
  { name, stream$, error$, log }: FailoverPorts,
  clock: TimestampProvider,
): OperatorFunction<SecondaryEffect, FailoverEvent> {
  const report = new FailoverReport(name, clock, log);
  const impossible = ({ gone, reason }: Effect<'report-impossible'>) => {
    const message = `the primary died before its lost standby was replaced; ${error$.value?.message ?? ''}`;
    error$.next({ code: NO_STANDBY, message });
    return report.impossible(gone, reason, message);
  };
  return (effects$) =>
    merge(
      effects$.pipe(
        ofKind('take-over'),
        map(({ held, reason }) => report.started(held, reason, stream$.value?.acknowledgedAtMs ?? null)),
      ),
      effects$.pipe(
        ofKind('report-completed'),
        map(({ held }) => report.completed(held)),
      ),
      effects$.pipe(
        ofKind('report-failed'),
        map(({ code, message }) => report.failed(code, message)),
      ),
      effects$.pipe(ofKind('report-impossible'), map(impossible)),
    ).pipe(filter((event) => event !== null));
}
