// How what was written to a disk is told: a disk is an array of octets, and a block write is
//
//   offset   octets from the disk's first (guests write whole sectors of 512; nothing here depends on it)
//   length   octets
//   kind     DATA      these octets, which lie in a slab
//            ZERO      zeroes, which need none
//            DISCARD   what the disk holds there is undefined: whoever wants to know must read it
//
// Many of them are columns of numbers, not objects: an epoch has thousands. Here a place of DATA is in octets of all slabs
// laid end to end, and an extent's data end in the slab in which they begin.

import { outOfBounds, valueAt } from '../stream/bounds.js';
import { type Extents, WriteKind } from '../stream/records/disks.js';

export { type Extents, WriteKind };

/** Data are handed from thread to thread in memory of this size, which is used again and again. */
export const SLAB_BYTES = 1024 * 1024;
export type Slab = Uint8Array<ArrayBuffer>;

/** A view of the data of the extent at this index, which must be DATA. */
export function dataAt(extents: Extents, slabs: readonly Slab[], index: number): Uint8Array {
  const place = u32At(extents.places, index);
  const slab = valueAt(slabs, Math.floor(place / SLAB_BYTES));
  const start = place % SLAB_BYTES;
  return slab.subarray(start, start + f64At(extents.lengths, index));
}

/** valueAt() for one kind of array each: for every block write, many times. @throws BoundsError */
export function u32At(column: Uint32Array, index: number): number {
  const value = column[index];
  if (value === undefined) throw outOfBounds(column.length, index);
  return value;
}

/** @throws BoundsError */
export function f64At(column: Float64Array, index: number): number {
  const value = column[index];
  if (value === undefined) throw outOfBounds(column.length, index);
  return value;
}
