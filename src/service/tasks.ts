// What a runner has under way: every promise that it starts and does not wait for is kept here, so that its failure is
// logged and its end can be waited for when the service stops.

import { asError } from '../errors.js';

export class Tasks {
  private readonly running = new Set<Promise<void>>();

  constructor(private readonly failed: (error: Error, what: string) => void) {}

  /** Starts the work at once. `what` completes "could not …". */
  run(what: string, work: () => Promise<unknown>): void {
    const task = work().then(
      () => undefined,
      (error: unknown) => {
        this.failed(asError(error), what);
      },
    );
    this.running.add(task);
    void task.then(() => this.running.delete(task));
  }

  /** Resolves to true when nothing is under way any more, to false when the time is over before. */
  async settle(timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<false>((resolve) => {
      timer = setTimeout(() => {
        resolve(false);
      }, timeoutMs);
    });
    try {
      while (this.running.size > 0) {
        const settled = Promise.all(this.running).then(() => true);
        if (!(await Promise.race([settled, timeout]))) return false;
      }
      return true;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Runs what it is given one after another, in the order given. */
export class InOrder {
  private tail: Promise<unknown> = Promise.resolve();

  do<T>(work: () => Promise<T>): Promise<T> {
    const result = this.tail.then(work);
    this.tail = result.catch(() => undefined);
    return result;
  }
}

/** Work that anybody may ask for at any time: it runs once at a time, and all who ask meanwhile share the run after it. */
export class Coalesced {
  private running: Promise<void> | null = null;
  private next: Promise<void> | null = null;

  constructor(private readonly work: () => Promise<void>) {}

  /** Settles as the run does that began after this was called. */
  run(): Promise<void> {
    if (this.next) return this.next;
    if (!this.running) return this.begin();
    this.next = this.running
      .catch(() => undefined)
      .then(() => {
        this.next = null;
        return this.begin();
      });
    return this.next;
  }

  private begin(): Promise<void> {
    const running = this.work().finally(() => {
      if (this.running === running) this.running = null;
    });
    this.running = running;
    return running;
  }
}
