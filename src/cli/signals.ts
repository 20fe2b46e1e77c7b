// Ctrl-C and SIGTERM as an AbortSignal: whoever waits for something waits for this too, and cleans up on the way out.
// A second Ctrl-C ends the process at once, for the case that the cleaning up itself hangs.

import { RomulusError } from '../errors.js';
import { ExitCode } from './exit-codes.js';

export class InterruptedError extends RomulusError<'INTERRUPTED'> {
  constructor(signal: NodeJS.Signals) {
    super('INTERRUPTED', `ended by ${signal}`, { signal });
  }
}

export interface Interruption {
  readonly signal: AbortSignal;
  /** Stops listening; the default behaviour of the signals is back. */
  dispose(): void;
}

export function onInterruption(): Interruption {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(ExitCode.INTERRUPTED);
    controller.abort(new InterruptedError(name));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  return {
    signal: controller.signal,
    dispose: () => {
      process.off('SIGINT', stop);
      process.off('SIGTERM', stop);
    },
  };
}

/** Resolves when the signal is aborted (at once if it is already). */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
