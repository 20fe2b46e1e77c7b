// How what was written to a disk is told: a disk is an array of octets, and a block write is
//
//   offset   octets from the disk's first (guests write whole sectors of 512; nothing here depends on it)
//   length   octets
//   kind     DATA      these octets, which lie in a slab
//            ZERO      zeroes, which need none
//            DISCARD   what the disk holds there is undefined: whoever wants to know must read it
//
// Many of them are columns of numbers, not objects: an epoch has thousands.

import { outOfBounds, valueAt } from '../stream/bounds.js';

export const WriteKind = { DATA: 0, ZERO: 1, DISCARD: 2 } as const;
export type WriteKind = (typeof WriteKind)[keyof typeof WriteKind];

/** Extents that do not overlap, in ascending order; each column has `count` values. */
export interface Extents {
  readonly count: number;
  readonly offsets: Float64Array<ArrayBuffer>;
  readonly lengths: Float64Array<ArrayBuffer>;
  readonly kinds: Uint8Array<ArrayBuffer>;
  /** DATA: where it begins, in octets of all slabs laid end to end. It ends in the same slab. */
  readonly places: Uint32Array<ArrayBuffer>;
}

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
