// What carries out the vigil's effects, in a few shapes.

import { concatMap, ignoreElements, mergeMap, tap, type Observable } from 'rxjs';
import type { Performer } from '../flow/feedback.js';
import { ofKind } from '../flow/of-kind.js';
import type { SecondaryEffect, SecondaryEvent } from './vigil-state.js';

type Kind = SecondaryEffect['kind'];
export type Perform = Performer<SecondaryEvent, SecondaryEffect>;
export type Effect<Of extends Kind> = SecondaryEffect & { readonly kind: Of };
type Work<Of extends Kind> = (effect: Effect<Of>) => Observable<SecondaryEvent>;

/** What is done about each effect of a kind, and what comes of it. */
export function atOnce<Of extends Kind>(kind: Of, work: Work<Of>): Perform {
  return (effects$) => effects$.pipe(ofKind<SecondaryEffect, Of>(kind), mergeMap(work));
}

/** When what was done about the one before is over. */
export function inTurn<Of extends Kind>(kind: Of, work: Work<Of>): Perform {
  return (effects$) => effects$.pipe(ofKind<SecondaryEffect, Of>(kind), concatMap(work));
}

export function told<Of extends Kind>(kind: Of, tell: (effect: Effect<Of>) => void): Perform {
  return (effects$) => effects$.pipe(ofKind<SecondaryEffect, Of>(kind), tap(tell), ignoreElements());
}
