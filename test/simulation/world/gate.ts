// The gate of a counter (output/byte-gate.ts): what the guest has said so far is a number, and so is what may leave.
//
//   hold, pass, restart, release: one after another, each takes a while (primary/ordered-gate.ts)       discard: at once

import type { Release } from '../../../src/primary/ledger.js';
import type { Process } from './process.js';

interface Mark {
  readonly epoch: number;
  readonly position: number;
}

export interface GateOptions {
  readonly process: Process;
  /** What it takes to be told something: 0, at once. */
  readonly takesMs: number;
  /** The world hears all up to here. */
  readonly hears: (position: number) => void;
  readonly emitted?: number;
  readonly released?: number;
}

export class Gate {
  mode: 'holding' | 'passing' | 'discarded' = 'holding';
  released: number;
  /** Until when what may leave may leave (output/fresh-outlet.ts). */
  untilMs: () => number = () => Infinity;
  readonly #process: Process;
  readonly #takesMs: number;
  readonly #hears: (position: number) => void;
  readonly #asked: (() => void)[] = [];
  #asking = false;
  #marks: Mark[] = [];
  #emitted: number;
  #bar = 0;

  constructor({ process, takesMs, hears, emitted = 0, released = 0 }: GateOptions) {
    this.#process = process;
    this.#takesMs = takesMs;
    this.#hears = hears;
    this.#emitted = emitted;
    this.released = released;
    this.#bar = released;
  }

  get size(): number {
    return this.#marks.length + this.#asked.length;
  }

  /** The guest has said so much. */
  push(position: number): void {
    this.#emitted = Math.max(this.#emitted, position);
    this.#pump();
  }

  seal(epoch: number, position: number): void {
    if (this.mode === 'holding') this.#marks.push({ epoch, position });
  }

  release({ epoch, untilMs }: Release): void {
    this.#ask(() => {
      if (this.#process.nowMs > untilMs || this.mode !== 'holding') return;
      for (let mark = this.#marks[0]; mark !== undefined && mark.epoch <= epoch; mark = this.#marks[0]) {
        this.#bar = mark.position;
        this.#marks.shift();
      }
      this.#pump();
    });
  }

  pass(): void {
    this.#ask(() => {
      if (this.mode === 'discarded') return;
      this.mode = 'passing';
      this.#marks = [];
      this.#bar = Infinity;
      this.#pump();
    });
  }

  /** `done`: it holds. */
  hold(done: () => void = () => undefined): void {
    this.#ask(() => {
      if (this.mode !== 'discarded') {
        this.mode = 'holding';
        this.#bar = this.released;
      }
      done();
    });
  }

  /** `done`: what was let out before has left. */
  settled(done: () => void): void {
    this.#ask(done);
  }

  restart(): void {
    this.#ask(() => (this.#marks = []));
  }

  discard(): void {
    this.mode = 'discarded';
    this.#marks = [];
  }

  #ask(work: () => void): void {
    if (this.#takesMs === 0) {
      work();
      return;
    }
    this.#asked.push(work);
    if (!this.#asking) this.#answer();
  }

  #answer(): void {
    this.#asking = true;
    this.#process.after(
      this.#takesMs,
      () => {
        this.#asking = false;
        this.#asked.shift()?.();
        if (this.#asked.length > 0) this.#answer();
      },
      this,
    );
  }

  #pump(): void {
    if (this.mode === 'discarded') return;
    const upTo = Math.min(this.#bar, this.#emitted);
    if (upTo <= this.released || this.#process.nowMs > this.untilMs()) return;
    this.released = upTo;
    this.#hears(upTo);
  }
}
