// What is asked of a witness ends: with an answer, after its time, when the caller does not want it any more, or when
// the witness is closed.

import { WitnessError } from '../error.js';

export interface LimitOptions {
  /** Of the witness, for the error. */
  readonly name: string;
  readonly limitMs: number;
  /** The caller's, and the one that is aborted when the witness is closed. */
  readonly signal: AbortSignal | undefined;
  readonly closed: AbortSignal;
}

/**
 * Settles as the work does, but not later than one of the ends, of which the work hears by its signal.
 * @throws WitnessError TIMEOUT, ABORTED, CLOSED
 */
export function limited<T>(options: LimitOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { name, limitMs, signal, closed } = options;
  return new Promise<T>((resolve, reject) => {
    const inner = new AbortController();
    const end = (error: WitnessError) => {
      done();
      reject(error);
      inner.abort(error);
    };
    const onClosed = () => end(new WitnessError('CLOSED', `${name} was closed`));
    const onAbort = () =>
      end(new WitnessError('ABORTED', `not waited for ${name} any longer`, {}, { cause: signal?.reason }));
    const onLimit = () => end(new WitnessError('TIMEOUT', `no answer of ${name} in time`, { limitMs }));
    const limit = setTimeout(onLimit, limitMs);
    const done = () => {
      clearTimeout(limit);
      closed.removeEventListener('abort', onClosed);
      signal?.removeEventListener('abort', onAbort);
    };
    closed.addEventListener('abort', onClosed, { once: true });
    signal?.addEventListener('abort', onAbort, { once: true });
    if (closed.aborted) onClosed();
    else if (signal?.aborted) onAbort();
    else void work(inner.signal).then(resolve, reject).finally(done);
  });
}
