// A decision in the middle of a pipeline: events go through the pure step one at a time, performers turn its effects
// into work, and the outcomes of the work come back as events.
//
//   sources$ ─▶ events ─▶ scan(step) ─┬─▶ effects ─▶ performers ─┐
//                 ▲                   └─▶ transitions            │
//                 └──────────────────────── outcomes ◀───────────┘
//
// A step that throws, or a performer that fails, is a fault of ours and ends the pipeline with that error: performers
// turn whatever can go wrong in their work into events, or log it where it is done.

import {
  Observable,
  Subject,
  concatMap,
  filter,
  ignoreElements,
  mergeMap,
  observeOn,
  queueScheduler,
  scan,
  share,
  tap,
  type TimestampProvider,
} from 'rxjs';
import type { Of } from './kinds.js';
import { ofKind } from './of-kind.js';

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

/** What is done about each effect of the kind, and what comes of it (`Answer`). */
type OfKind<Event, Effect extends { readonly kind: string }, Answer> = <Kind extends Effect['kind']>(
  kind: Kind,
  work: (effect: Of<Effect, Kind>) => Answer,
) => Performer<Event, Effect>;

/** Each makes a sentence about what is done, and when; inTurn: when what was done about the one before is over. */
export function performersOf<Event, Effect extends { readonly kind: string }>(): {
  readonly atOnce: OfKind<Event, Effect, Observable<Event>>;
  readonly inTurn: OfKind<Event, Effect, Observable<Event>>;
  readonly told: OfKind<Event, Effect, void>;
} {
  return {
    atOnce: (kind, work) => (effects$) => effects$.pipe(ofKind(kind), mergeMap(work)),
    inTurn: (kind, work) => (effects$) => effects$.pipe(ofKind(kind), concatMap(work)),
    told: (kind, tell) => (effects$) => effects$.pipe(ofKind(kind), tap(tell), ignoreElements()),
  };
}
