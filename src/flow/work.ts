// What a domain has under way: counted, so that its end can be waited for when the service stops.

import {
  BehaviorSubject,
  EMPTY,
  ReplaySubject,
  catchError,
  defer,
  finalize,
  first,
  firstValueFrom,
  ignoreElements,
  map,
  merge,
  timer,
  type Observable,
  type ObservableInput,
} from 'rxjs';
import { asError } from '../errors.js';

export class Work {
  readonly #count$ = new BehaviorSubject(0);
  readonly #failed: (error: Error, what: string) => void;

  constructor(failed: (error: Error, what: string) => void) {
    this.#failed = failed;
  }

  /** The work itself, under way as long as somebody is subscribed to it. */
  keep<T>(work: () => ObservableInput<T>): Observable<T> {
    return defer(() => {
      this.#count$.next(this.#count$.value + 1);
      return defer(work).pipe(finalize(() => this.#count$.next(this.#count$.value - 1)));
    });
  }

  /**
   * Begun when it is subscribed to, and under way until it is over, whoever listens. If it fails, `failed` is told, and
   * nothing else follows. `what` completes "could not …".
   */
  attempt(what: string, work: () => ObservableInput<unknown>): Observable<never> {
    return defer(() => {
      const over$ = new ReplaySubject<never>();
      this.keep(work)
        .pipe(
          ignoreElements(),
          catchError((error: unknown) => {
            this.#failed(asError(error), what);
            return EMPTY;
          }),
        )
        .subscribe(over$);
      return over$;
    });
  }

  /** The same, begun at once. Resolves when it is over, well or badly. Without operators: each checkpoint has some. */
  async run(what: string, work: () => Promise<unknown>): Promise<void> {
    this.#count$.next(this.#count$.value + 1);
    try {
      await work();
    } catch (error) {
      this.#failed(asError(error), what);
    } finally {
      this.#count$.next(this.#count$.value - 1);
    }
  }

  /** Emits once, when nothing is under way any more. */
  get idle$(): Observable<number> {
    return this.#count$.pipe(first((count) => count === 0));
  }

  /** Resolves to true when nothing is under way any more, to false when the time is over before. */
  settled(limitMs: number): Promise<boolean> {
    return firstValueFrom(merge(this.idle$.pipe(map(() => true)), timer(limitMs).pipe(map(() => false))));
  }
}
