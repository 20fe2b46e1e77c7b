// Waiting for a value: where a stream of events meets a program that goes on when something has happened.

import { filter, firstValueFrom, type Observable } from 'rxjs';

/**
 * The first value that is so.
 * @throws as the source, or RxJS's EmptyError if it completes without one
 */
export function firstWhere<T, Sought extends T>(
  source$: Observable<T>,
  is: (value: T) => value is Sought,
): Promise<Sought>;
export function firstWhere<T>(source$: Observable<T>, is: (value: T) => boolean): Promise<T>;
export function firstWhere<T>(source$: Observable<T>, is: (value: T) => boolean): Promise<T> {
  return firstValueFrom(source$.pipe(filter(is)));
}
