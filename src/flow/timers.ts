// Named timers as a performer: armed again they start anew. One that fires much too late tells that this process was
// stopped.

import {
  EMPTY,
  groupBy,
  map,
  mergeMap,
  switchMap,
  timer,
  type Observable,
  type TimestampProvider,
} from 'rxjs';

export type TimerEffect<Name extends string> =
  | { readonly kind: 'arm'; readonly timer: Name; readonly delayMs: number }
  | { readonly kind: 'disarm'; readonly timer: Name };

export interface TimerEvent<Name extends string> {
  readonly kind: 'timer';
  readonly timer: Name;
  /** How long after its time it fired, milliseconds. */
  readonly lateMs: number;
}

export function timers<Name extends string>(
  effects$: Observable<TimerEffect<Name>>,
  clock: TimestampProvider,
): Observable<TimerEvent<Name>> {
  return effects$.pipe(
    groupBy((effect) => effect.timer),
    mergeMap((ofOne$) =>
      ofOne$.pipe(
        switchMap((effect) => {
          if (effect.kind === 'disarm') return EMPTY;
          const dueMs = clock.now() + effect.delayMs;
          return timer(effect.delayMs).pipe(
            map((): TimerEvent<Name> => ({
              kind: 'timer',
              timer: effect.timer,
              lateMs: Math.max(0, clock.now() - dueMs),
            })),
          );
        }),
      ),
    ),
  );
}
