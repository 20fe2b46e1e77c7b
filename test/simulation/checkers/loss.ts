// No single failure loses what was heard or acknowledged, or the domain.
//
//   taken over     from a point that what was heard, and what was acknowledged to the owner, is the past of
//   booted anew    only if what ran last has died, and not by our hand; and not by the first fault since it was protected

import type { Point } from './history.js';
import type { History } from './history.js';

/** How a guest came to its end. */
export type End = 'crash' | 'let go';

export class Loss {
  readonly #history: History;
  /** Faults since it was protected last, as if there had been one before that; those of the witness take nothing away. */
  #faults = 1;
  #crashes = 0;
  /** Whom the register gave the domain to last, and what became of it there. */
  #last: { readonly host: string; end: End | null } | null = null;
  #forced = false;
  #acknowledged: Point | null = null;

  constructor(history: History) {
    this.#history = history;
  }

  /** `crash`: it takes a copy of the domain away. */
  fault(kind: 'crash' | 'other' | 'witness', isProtected: boolean): void {
    if (isProtected) {
      this.#faults = 0;
      this.#crashes = 0;
    }
    if (kind !== 'witness') this.#faults++;
    if (kind === 'crash') this.#crashes++;
  }

  /** More than one fault, one of them a crash: it may be lost. */
  get mayBeLost(): boolean {
    return this.#faults > 1 && this.#crashes > 0;
  }

  acknowledged(point: Point): void {
    this.#acknowledged = point;
  }

  /** The register has given the domain to another host; `died`: whoever asked for it has died meanwhile. */
  given(host: string, died: boolean): void {
    if (!this.#forced) this.#last = { host, end: died ? 'crash' : null };
  }

  /** By the register nobody protects it, be it for a switchover, or one that came to nothing. */
  alone(died: boolean): void {
    this.#faults = Math.max(this.#faults, 1);
    // Whoever has written that had the only copy, and is dead: as if it had died a moment later.
    if (died) this.#faults++;
  }

  /** An operator has it started somewhere: whatever is left of it is lost. */
  forced(): void {
    this.#last = null;
    this.#forced = true;
  }

  /** What the host had of it has come to its end. */
  ended(host: string, end: End): void {
    if (this.#last?.host === host) this.#last.end ??= end;
  }

  taken(from: Point): void {
    const history = this.#history;
    const acknowledged = this.#acknowledged;
    if (!history.follows(from)) {
      history.wrong(`taken over from ${history.name(from)}, where ${history.heardName} was heard`);
    } else if (acknowledged?.branch === from.branch && acknowledged.count > from.count) {
      history.wrong(
        `taken over from ${history.name(from)}, where ${history.name(acknowledged)} was acknowledged`,
      );
    }
  }

  booted(host: string): void {
    const last = this.#last;
    const history = this.#history;
    if (last !== null && last.end !== 'crash') {
      const what = last.end === null ? 'still is there' : 'was let go';
      history.wrong(`booted anew, where what ${last.host} had ${what}`);
    } else if (last !== null && !this.mayBeLost) {
      history.wrong(
        `booted anew after ${this.#faults} faults (${this.#crashes} crashes) since it was protected`,
      );
    }
    this.#last = { host, end: null };
    this.#forced = false;
  }
}
