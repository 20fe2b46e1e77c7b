// What two copies of a disk have in common is found by comparing sums: for each chunk the 128 bits of xxh3 of what it
// holds, most significant octet first. The last chunk of a disk may be shorter than the others.

import xxhash from '@node-rs/xxhash';

export const SUM_BYTES = 16;

/** Puts the sum of a chunk into `sums` at `at`. */
export function putSum(chunk: Uint8Array, sums: DataView, at: number): void {
  const sum = xxhash.xxh3.xxh128(chunk);
  sums.setBigUint64(at, sum >> 64n);
  sums.setBigUint64(at + 8, BigInt.asUintN(64, sum));
}
