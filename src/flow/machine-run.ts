// How a pure state machine is run: events from many sources go through scan(step) one at a time, and what the step
// decides is carried out by a performer. An event that a performer causes waits its turn (queueScheduler), so that all
// effects of one event are performed before the next event is looked at.

import { Subject, observeOn, queueScheduler, scan, type Subscription } from 'rxjs';

export type Step<State, Event, Effect> = (state: State, event: Event) => readonly [State, readonly Effect[]];

export class MachineRun<State, Event, Effect> {
  private readonly events = new Subject<Event>();
  private readonly subscription: Subscription;
  private current: State;

  constructor(step: Step<State, Event, Effect>, initial: State, perform: (effect: Effect) => void) {
    this.current = initial;
    this.subscription = this.events
      .pipe(
        observeOn(queueScheduler),
        scan<Event, readonly [State, readonly Effect[]]>(
          ([state], event) => step(state, event),
          [initial, []],
        ),
      )
      .subscribe(([state, effects]) => {
        this.current = state;
        for (const effect of effects) perform(effect);
      });
  }

  get state(): State {
    return this.current;
  }

  /** After end() events are ignored: sources may be slower to stop than the machine. */
  send(event: Event): void {
    this.events.next(event);
  }

  end(): void {
    this.events.complete();
    this.subscription.unsubscribe();
  }
}

/** A step that passes through several states on its way reports where it arrived: the last transition counts. */
export function withOneTransition<Effect extends { readonly kind: string }>(
  effects: readonly Effect[],
): readonly Effect[] {
  const last = effects.findLastIndex((effect) => effect.kind === 'transition');
  return effects.filter((effect, index) => effect.kind !== 'transition' || index === last);
}
