// Reading by an index that must be within. Outside, an array says undefined, and what is put in its place (frame 0)
// would go into a machine's memory: it is an error instead, in production too.

import { RomulusError } from '../errors.js';

/** An error of ours, not of what came in: that was checked before. */
export class BoundsError extends RomulusError<'OUT_OF_BOUNDS'> {}

interface Indexed<T> {
  readonly length: number;
  readonly [index: number]: T;
}

/**
 * The element at the index. Costs a comparison: loops over pages may use it.
 * @throws BoundsError
 */
export function valueAt<T>(array: Indexed<T>, index: number): T {
  const value = array[index];
  if (value === undefined) throw outOfBounds(array.length, index);
  return value;
}

/** For loops that check by themselves. */
export function outOfBounds(length: number, index: number): BoundsError {
  return new BoundsError('OUT_OF_BOUNDS', `index ${index} in an array of ${length}`, { index, length });
}
