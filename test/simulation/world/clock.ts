// Simulated time. What is due is done in the order of its time, and of its asking where that is the same: nothing else
// decides what comes first.

interface Due {
  readonly atMs: number;
  readonly order: number;
  readonly work: () => void;
}

export class Clock {
  nowMs = 0;
  /** A binary heap: none is due before the one at half its place. */
  readonly #heap: Due[] = [];
  #order = 0;

  get waiting(): number {
    return this.#heap.length;
  }

  after(delayMs: number, work: () => void): void {
    const due = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, work };
    const heap = this.#heap;
    let place = heap.length;
    heap.push(due);
    while (place > 0) {
      const above = (place - 1) >> 1;
      const other = heap[above];
      if (other === undefined || !isBefore(due, other)) break;
      heap[place] = other;
      place = above;
    }
    heap[place] = due;
  }

  /** Does what is due next. False: nothing is. */
  next(): boolean {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return false;
    if (last !== first) this.#sink(last);
    this.nowMs = first.atMs;
    first.work();
    return true;
  }

  #sink(due: Due): void {
    const heap = this.#heap;
    let place = 0;
    for (;;) {
      const left = 2 * place + 1;
      const one = heap[left];
      if (one === undefined) break;
      const other = heap[left + 1];
      const isRight = other !== undefined && isBefore(other, one);
      const least = isRight ? other : one;
      if (!isBefore(least, due)) break;
      heap[place] = least;
      place = isRight ? left + 1 : left;
    }
    heap[place] = due;
  }
}

function isBefore(one: Due, other: Due): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}
