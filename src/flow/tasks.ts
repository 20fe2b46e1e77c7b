// What a domain has under way: every promise that it starts and does not wait for is kept here, so that its failure is
// logged and its end can be waited for when the service stops.

import { asError } from '../errors.js';

export class Tasks {
  readonly #failed: (error: Error, what: string) => void;
  readonly #running = new Set<Promise<void>>();

  constructor(failed: (error: Error, what: string) => void) {
    this.#failed = failed;
  }

  /** Starts the work at once. `what` completes "could not …". */
  run(what: string, work: () => Promise<unknown>): void {
    const task = work().then(
      () => undefined,
      (error: unknown) => this.#failed(asError(error), what),
    );
    this.#running.add(task);
    void task.then(() => this.#running.delete(task));
  }

  /** Resolves to true when nothing is under way any more, to false when the time is over before. */
  async settle(timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), timeoutMs);
    });
    try {
      while (this.#running.size > 0) {
        const settled = Promise.all(this.#running).then(() => true);
        if (!(await Promise.race([settled, timeout]))) return false;
      }
      return true;
    } finally {
      clearTimeout(timer);
    }
  }
}
