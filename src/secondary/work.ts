// What a domain has under way: counted, so that its end can be waited for when the service stops.

import {
  BehaviorSubject,
  EMPTY,
  catchError,
  defer,
  finalize,
  first,
  ignoreElements,
  type Observable,
  type ObservableInput,
} from 'rxjs';
import type { Logger } from '../report/log.js';

export class Work {
  readonly #count$ = new BehaviorSubject(0);
  readonly #log: Pick<Logger, 'warn'>;

  constructor(log: Pick<Logger, 'warn'>) {
    this.#log = log;
  }

  /** The work itself, under way as long as somebody is subscribed to it. */
  keep<T>(work: () => ObservableInput<T>): Observable<T> {
    return defer(() => {
      this.#count$.next(this.#count$.value + 1);
      return defer(work).pipe(finalize(() => this.#count$.next(this.#count$.value - 1)));
    });
  }

  /** Nothing follows from it but a line in the log if it fails. `what` completes "could not …". */
  attempt(what: string, work: () => ObservableInput<unknown>): Observable<never> {
    return this.keep(work).pipe(
      ignoreElements(),
      catchError((error: unknown) => {
        this.#log.warn({ err: error }, `could not ${what}`);
        return EMPTY;
      }),
    );
  }

  /** Emits once, when nothing is under way any more. */
  get idle$(): Observable<number> {
    return this.#count$.pipe(first((count) => count === 0));
  }
}
