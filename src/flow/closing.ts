// What was opened is closed, whatever happened, and one error tells of all that failed.

import { RomulusError, asError } from '../errors.js';

export interface Closable {
  /** Once. Resolves to the one error that tells of `failure` and of what failed in closing, or null. */
  close(failure: Error | null): Promise<Error | null>;
}

/** Does the work with what is open, and closes it. @throws what close() makes of the failures */
export async function closing<T>(open: Closable, work: () => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    const failure = asError(error);
    throw (await open.close(failure)) ?? failure;
  }
  const failed = await open.close(null);
  if (failed !== null) throw failed;
  return result;
}

/**
 * Does every part of a clean-up, whatever fails. Resolves to the one error that tells of `failure`, which came before
 * it, and of what failed in it; null if nothing did.
 * @param done what succeeded if nothing failed before: 'saved'
 * @param coded gives the failure of a clean-up its code, where no error of ours came before it
 */
export async function cleanUp(
  failure: Error | null,
  done: string,
  parts: readonly (() => Promise<unknown>)[],
  coded: (message: string, options: ErrorOptions) => RomulusError,
): Promise<Error | null> {
  const failed: Error[] = [];
  for (const part of parts) {
    try {
      await part();
    } catch (error) {
      failed.push(asError(error));
    }
  }
  if (failed.length === 0) return failure;
  const told = failure instanceof RomulusError ? failure : named(failure ?? failed.shift());
  told.suppressed.push(...failed);
  return told;

  function named(cause: Error | undefined): RomulusError {
    const message =
      failure === null ? `${done}, but the clean-up failed` : `${failure.message} (and the clean-up failed)`;
    return coded(message, { cause });
  }
}
