// Performers of one kind of effect, in a few shapes: each is a sentence about what is done, and when.

import { concatMap, ignoreElements, mergeMap, tap, type Observable } from 'rxjs';
import type { Performer } from './feedback.js';
import { ofKind } from './of-kind.js';

/** Of the effects, or events, those of one kind. */
export type Of<T extends { readonly kind: string }, Kind extends T['kind']> = T & { readonly kind: Kind };

export interface Performers<Event, Effect extends { readonly kind: string }> {
  /** What is done about each effect of the kind, and what comes of it. */
  readonly atOnce: <Kind extends Effect['kind']>(
    kind: Kind,
    work: (effect: Of<Effect, Kind>) => Observable<Event>,
  ) => Performer<Event, Effect>;
  /** When what was done about the one before is over. */
  readonly inTurn: this['atOnce'];
  readonly told: <Kind extends Effect['kind']>(
    kind: Kind,
    tell: (effect: Of<Effect, Kind>) => void,
  ) => Performer<Event, Effect>;
}

export function performersOf<Event, Effect extends { readonly kind: string }>(): Performers<Event, Effect> {
  return {
    atOnce: (kind, work) => (effects$) => effects$.pipe(ofKind(kind), mergeMap(work)),
    inTurn: (kind, work) => (effects$) => effects$.pipe(ofKind(kind), concatMap(work)),
    told: (kind, tell) => (effects$) => effects$.pipe(ofKind(kind), tap(tell), ignoreElements()),
  };
}
