// A decision in the middle of a pipeline: events go through the pure step one at a time, performers turn its effects
// into work, and the outcomes of the work come back as events.
//
//   sources$ ─▶ events ─▶ scan(step) ─┬─▶ effects ─▶ performers ─┐
//                 ▲                   └─▶ transitions            │
//                 └──────────────────────── outcomes ◀───────────┘
//
// A step that throws, or a performer that fails, is a fault of ours and ends the pipeline with that error: performers
// turn whatever can go wrong in their work into events.

import {
  Observable,
  Subject,
  filter,
  mergeMap,
  observeOn,
  queueScheduler,
  scan,
  share,
  type TimestampProvider,
} from 'rxjs';

/** `atMs`: when the event was looked at, by the clock that the pipeline was given. */
export type Step<State, Event, Effect> = (
  state: State,
  event: Event,
  atMs: number,
) => readonly [State, readonly Effect[]];
/** Carries out those effects that it knows; what became of them are events. */
export type Performer<Event, Effect> = (effects$: Observable<Effect>) => Observable<Event>;
export type Transition<State, Effect> = readonly [State, readonly Effect[]];

/** Emits where each event led, before the effects are performed. */
export function feedback<State, Event, Effect>(
  step: Step<State, Event, Effect>,
  initial: State,
  sources$: Observable<Event>,
  performers: readonly Performer<Event, Effect>[],
  clock: TimestampProvider,
): Observable<Transition<State, Effect>> {
  return new Observable((subscriber) => {
    const events$ = new Subject<Event>();
    const transitions$ = events$.pipe(
      // All effects of one event are performed before the next event is looked at.
      observeOn(queueScheduler),
      scan<Event, Transition<State, Effect>>(
        ([state], event) => step(state, event, clock.now()),
        [initial, []],
      ),
      share(),
    );
    // Shared: each effect reaches its performer before the next effect is handed out.
    const effects$ = transitions$.pipe(
      // Most events have none, and it is cheaper to see that here.
      filter(([, effects]) => effects.length > 0),
      mergeMap(([, effects]) => effects),
      share(),
    );
    subscriber.add(transitions$.subscribe(subscriber));
    for (const outcomes$ of performers.map((perform) => perform(effects$))) {
      subscriber.add(
        outcomes$.subscribe({
          next: (event) => events$.next(event),
          error: (error: unknown) => subscriber.error(error),
        }),
      );
    }
    // Last: what a source says at once finds everybody there.
    subscriber.add(
      sources$.subscribe({
        next: (event) => events$.next(event),
        error: (error: unknown) => subscriber.error(error),
      }),
    );
  });
}
