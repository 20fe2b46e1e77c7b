// Waiting for what a demo is to show, but not for ever, nor past the end of one of its processes or a Ctrl-C.

import { EmptyError } from 'rxjs';
import { asError, RomulusError } from '../../errors.js';

/** How long any single step may take before the demo gives up. */
export const STEP_TIMEOUT_MS = 30_000;

/** `endings`: how the processes are, in words. */
export class Steps {
  readonly #interruption: AbortSignal;
  readonly #endings: () => string;

  constructor(interruption: AbortSignal, endings: () => string) {
    this.#interruption = interruption;
    this.#endings = endings;
  }

  /**
   * `what`: in words, the beginning of a sentence. The promise fails with RxJS's EmptyError if a process has ended.
   * @throws RomulusError TIMEOUT, CHILD_ENDED; the interruption's reason; as the promise
   */
  async wait<T>(what: string, promise: Promise<T>, limitMs = STEP_TIMEOUT_MS): Promise<T> {
    const interruption = this.#interruption;
    let onAbort: (() => void) | undefined;
    let timer: NodeJS.Timeout | undefined;
    const stop = new Promise<never>((_resolve, reject) => {
      onAbort = () => reject(asError(interruption.reason));
      interruption.addEventListener('abort', onAbort, { once: true });
      if (interruption.aborted) onAbort();
      timer = setTimeout(
        () => reject(new RomulusError('TIMEOUT', `${what} took longer than ${limitMs} ms`)),
        limitMs,
      );
    });
    try {
      return await Promise.race([promise, stop]);
    } catch (error) {
      if (!(error instanceof EmptyError)) throw error;
      const message = `${what} did not come: ${this.#endings()}`;
      throw new RomulusError('CHILD_ENDED', message, {}, { cause: error });
    } finally {
      clearTimeout(timer);
      if (onAbort) interruption.removeEventListener('abort', onAbort);
    }
  }
}
