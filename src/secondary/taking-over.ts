// Taking over, once it is decided: the standby is started, and the world hears it. What becomes of it is told to the vigil,
// which says what to report: the domain may run from an epoch before the one that was meant.
//
// The one failover of a domain is reported as started, then completed or failed; or failed at once, where there is nothing
// left to take over.

import { EMPTY, catchError, merge, mergeMap, of, tap, throwError } from 'rxjs';
import type { Observable, TimestampProvider } from 'rxjs';
import { asError, codeOf } from '../errors.js';
import { HypervisorError } from '../hypervisor/port.js';
import { ServiceError } from '../report/error.js';
import type { FailoverStarted } from '../report/reports.js';
import type { SecondaryPorts, Takeable } from './ports.js';
import type { StreamProgress } from './restore-news.js';
import { HANDED_OVER, TAKEN_BACK, type Held, type SecondaryEvent } from './vigil-state.js';

export function takingOver(
  ports: Pick<SecondaryPorts, 'held' | 'confirm' | 'failed' | 'error$' | 'work'>,
  clock: TimestampProvider,
): Observable<SecondaryEvent> {
  let runsSinceMs = NaN;
  const { error$, work } = ports;
  const standby = ports.held() ?? NOTHING;
  const epochsBack = () => standby.domain.checkpointsBack ?? 0;
  return work
    .keep(() => standby.start())
    .pipe(
      // It may be its owner's still, so nothing is heard of it before.
      mergeMap(() => {
        runsSinceMs = clock.now();
        return ports.confirm();
      }),
      mergeMap((answer) => (answer === 'granted' ? standby.speak() : throwError(takenBack))),
      tap(() => error$.next(null)),
      mergeMap(() => {
        const started = { epochsBack: epochsBack(), runsSinceMs };
        return merge(
          work.attempt('announce the domain', () => standby.domain.announce?.() ?? EMPTY),
          of<SecondaryEvent>({ kind: 'started', ...started }),
        );
      }),
      catchError((thrown: unknown) => {
        const error = asError(thrown);
        ports.failed(error);
        const why = { code: codeOf(error), message: error.message };
        return of<SecondaryEvent>({ kind: 'start-failed', ...why, epochsBack: epochsBack() });
      }),
    );
}

function takenBack(): ServiceError {
  return new ServiceError(TAKEN_BACK, 'its owner has taken it back before it was known that it runs here');
}

const NOTHING: Takeable = {
  start: () => throwError(() => new HypervisorError('DOMAIN_GONE', 'there is no standby to be taken over')),
  speak: () => EMPTY,
  domain: {},
};

/** The code of a failover that could not be. */
const NO_STANDBY = 'NO_STANDBY';

export interface FailoverPorts extends Pick<SecondaryPorts, 'name' | 'failover$' | 'error$' | 'log'> {
  readonly stream$: { readonly value: Pick<StreamProgress, 'acknowledgedAtMs'> | null };
}

export class FailoverReport {
  #started: FailoverStarted | null = null;
  /** From the last acknowledgement to the decision; the primary died in this time. */
  #detectMs: number | null = null;
  /** The code that the last attempt failed with. */
  #failure: string | null = null;

  readonly #ports: FailoverPorts;
  readonly #clock: TimestampProvider;

  constructor(ports: FailoverPorts, clock: TimestampProvider) {
    this.#ports = ports;
    this.#clock = clock;
  }

  started({ streamUuid, epoch }: Held, reason: string): void {
    const { name: domain, stream$, log, failover$ } = this.#ports;
    // Tried again: it is the same failover.
    if (this.#started?.streamUuid === streamUuid && this.#started.epoch === epoch) return;
    const atMs = this.#clock.now();
    this.#failure = null;
    const planned = reason === HANDED_OVER;
    this.#started = { phase: 'started', domain, streamUuid, epoch, reason, planned, atMs };
    const acknowledgedAtMs = stream$.value?.acknowledgedAtMs ?? null;
    this.#detectMs = acknowledgedAtMs === null ? null : atMs - acknowledgedAtMs;
    log.warn({ streamUuid, epoch, reason }, 'failover: taking the domain over');
    failover$.next(this.#started);
  }

  /** `held`: what it runs from, the epoch that was meant or one before it. */
  completed({ epoch }: Held): void {
    if (!this.#started) return;
    const { log, failover$ } = this.#ports;
    const atMs = this.#clock.now();
    const { reason } = this.#started;
    const takeoverMs = atMs - this.#started.atMs;
    const takeoverSeconds = takeoverMs / 1000;
    log.warn(
      {
        epoch,
        reason,
        takeoverMs: rounded(takeoverMs),
        ...(this.#detectMs !== null && {
          detectMs: rounded(this.#detectMs),
          totalMs: rounded(this.#detectMs + takeoverMs),
        }),
      },
      'failover: the domain runs here',
    );
    failover$.next({ ...this.#started, epoch, phase: 'completed', atMs, takeoverSeconds });
  }

  /** Said once for each reason, not for each attempt. */
  failed(code: string, message: string): void {
    if (!this.#started || this.#failure === code) return;
    const { log, failover$ } = this.#ports;
    this.#failure = code;
    log.error({ epoch: this.#started.epoch, code, reason: message }, 'failover: the domain does not start');
    failover$.next({ ...this.#started, phase: 'failed', atMs: this.#clock.now(), error: { code, message } });
  }

  /** There was nothing left to take over: no failover was begun. */
  impossible({ streamUuid, epoch }: Held, reason: string): void {
    const { name: domain, error$, log, failover$ } = this.#ports;
    const message = `the primary died before its lost standby was replaced; ${error$.value?.message ?? ''}`;
    const error = { code: NO_STANDBY, message };
    log.error({ streamUuid, epoch, reason, error }, 'failover: there is no standby to take over');
    error$.next(error);
    const atMs = this.#clock.now();
    failover$.next({ phase: 'failed', domain, streamUuid, epoch, reason, planned: false, atMs, error });
  }
}

function rounded(milliseconds: number): number {
  return Math.round(milliseconds * 10) / 10;
}
