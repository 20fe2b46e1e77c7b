// A pure step and those who carry out its effects (flow/feedback.ts): all effects of one event are performed before the
// next event is looked at.

import type { Process } from '../world/process.js';

export class Loop<State, Event, Effect> {
  state: State;
  readonly #step: (state: State, event: Event) => readonly [State, readonly Effect[]];
  readonly #perform: (effect: Effect) => void;
  readonly #changed: () => void;
  readonly #events: Event[] = [];
  #busy = false;

  constructor(
    state: State,
    step: (state: State, event: Event) => readonly [State, readonly Effect[]],
    perform: (effect: Effect) => void,
    changed: () => void = () => undefined,
  ) {
    this.state = state;
    this.#step = step;
    this.#perform = perform;
    this.#changed = changed;
  }

  tell(event: Event): void {
    this.#events.push(event);
    if (this.#busy) return;
    this.#busy = true;
    for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
      const [state, effects] = this.#step(this.state, next);
      this.state = state;
      this.#changed();
      for (const effect of effects) this.#perform(effect);
    }
    this.#busy = false;
  }
}

/** One piece of work after another (concatMap). */
export class InTurn<Work> {
  readonly #begin: (work: Work, done: () => void) => void;
  readonly #waiting: Work[] = [];
  #busy = false;

  constructor(begin: (work: Work, done: () => void) => void) {
    this.#begin = begin;
  }

  get size(): number {
    return this.#waiting.length + (this.#busy ? 1 : 0);
  }

  do(work: Work): void {
    this.#waiting.push(work);
    this.#next();
  }

  #next(): void {
    if (this.#busy) return;
    const work = this.#waiting.shift();
    if (work === undefined) return;
    this.#busy = true;
    let over = false;
    this.#begin(work, () => {
      if (over) return;
      over = true;
      this.#busy = false;
      this.#next();
    });
  }
}

/** One timer of a process. */
export class OneTimer {
  readonly #process: Process;
  readonly #fired: () => void;
  #arming = 0;

  constructor(process: Process, fired: () => void) {
    this.#process = process;
    this.#fired = fired;
  }

  arm(delayMs: number): void {
    const arming = ++this.#arming;
    this.#process.after(delayMs, () => {
      if (arming === this.#arming) this.#fired();
    });
  }

  disarm(): void {
    this.#arming++;
  }
}
