// The sum of a chunk's content, by which two hosts find out what their disks have in common without sending it: xxh3 of
// 128 bits, as 16 octets, the highest first. The last chunk of a disk may be shorter than the others, and so is what is
// summed.

import xxhash from '@node-rs/xxhash';
import { CHUNK_BYTES } from './dirty-map.js';

export const SUM_BYTES = 16;

const LOW = 2n ** 64n - 1n;
const zeroSums = new Map<number, Uint8Array>();

/** Writes the sum of each chunk that `data` has, which begins with one, into `sums` from `at` on. */
export function putSums(data: Uint8Array, sums: Uint8Array, at: number): void {
  const view = new DataView(sums.buffer, sums.byteOffset, sums.byteLength);
  for (let start = 0; start < data.length; start += CHUNK_BYTES) {
    const sum = xxhash.xxh3.xxh128(data.subarray(start, start + CHUNK_BYTES));
    const place = at + (start / CHUNK_BYTES) * SUM_BYTES;
    view.setBigUint64(place, sum >> 64n);
    view.setBigUint64(place + 8, sum & LOW);
  }
}

/** That of so many zeroes. */
export function zeroSum(length: number): Uint8Array {
  let sum = zeroSums.get(length);
  if (sum === undefined) {
    sum = new Uint8Array(SUM_BYTES);
    putSums(new Uint8Array(length), sum, 0);
    zeroSums.set(length, sum);
  }
  return sum;
}
