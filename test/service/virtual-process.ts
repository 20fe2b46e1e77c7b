// Virtual time, and processes in it that can be stopped for a while, or killed.

/** A process: what it is given while it is stopped waits. */
export class Process {
  alive = true;
  stoppedUntil = 0;

  constructor(private readonly clock: Clock) {}

  run(work: () => void): void {
    if (!this.alive) return;
    if (this.clock.now < this.stoppedUntil) this.clock.at(this.stoppedUntil, () => this.run(work));
    else work();
  }

  every(periodMs: number, work: () => boolean): void {
    this.clock.after(periodMs, () => {
      this.run(() => {
        if (work()) this.every(periodMs, work);
      });
    });
  }
}

interface Due {
  readonly at: number;
  readonly order: number;
  readonly work: () => void;
}

export class Clock {
  now = 0;
  #order = 0;
  readonly #due: Due[] = [];

  at(at: number, work: () => void): void {
    this.#due.push({ at, order: this.#order++, work });
  }

  after(delayMs: number, work: () => void): void {
    this.at(this.now + delayMs, work);
  }

  advance(toMs: number): void {
    for (;;) {
      const next = this.#next();
      if (next === null || next.at > toMs) break;
      this.#due.splice(this.#due.indexOf(next), 1);
      this.now = Math.max(this.now, next.at);
      next.work();
    }
    this.now = toMs;
  }

  #next(): Due | null {
    let first: Due | null = null;
    for (const due of this.#due) {
      if (first === null || due.at < first.at || (due.at === first.at && due.order < first.order))
        first = due;
    }
    return first;
  }
}
