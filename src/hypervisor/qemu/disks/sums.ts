// The sums of a disk's chunks, read from QEMU's export of it. What QEMU knows to be zeroes is not read.

import { CHUNK_BYTES, DirtyMap } from '../../../disk/dirty-map.js';
import { SUM_BYTES, putSum } from '../../../disk/sums.js';
import { ALLOCATION, markData, stretches } from './nbd/block-status.js';
import { NbdClient } from './nbd/client.js';
import type { Readable } from './reader.js';

/** Whole chunks, read at once. */
const READ_BYTES = 1024 * 1024;
const ZEROES = new Uint8Array(CHUNK_BYTES);

/** Of chunks first … first + count - 1, which the disk must have. @throws NbdError */
export async function diskSums(
  { path, exportName, isKept }: Readable,
  first: number,
  count: number,
): Promise<Uint8Array> {
  const client = await NbdClient.connect({ path, exportName, isKept, contexts: [ALLOCATION] });
  try {
    const sums = new Uint8Array(count * SUM_BYTES);
    const view = new DataView(sums.buffer);
    const offset = first * CHUNK_BYTES;
    const length = Math.min(count * CHUNK_BYTES, client.bytes - offset);
    const data = new DirtyMap(client.bytes);
    await markData(client, offset, length, data);
    const memory = new Uint8Array(READ_BYTES);
    const zeroes = new Uint8Array(SUM_BYTES);
    putSum(ZEROES, new DataView(zeroes.buffer), 0);
    const placeOf = (at: number) => ((at - offset) / CHUNK_BYTES) * SUM_BYTES;
    for (const stretch of stretches(data, offset, length)) {
      const end = stretch.offset + stretch.length;
      for (let at = stretch.offset; at < end;) {
        const octets = Math.min(stretch.isData ? READ_BYTES : CHUNK_BYTES, end - at);
        if (!stretch.isData && octets === CHUNK_BYTES) {
          sums.set(zeroes, placeOf(at));
        } else {
          const into = memory.subarray(0, octets);
          await client.read(at, into);
          for (let from = 0; from < octets; from += CHUNK_BYTES) {
            putSum(into.subarray(from, from + CHUNK_BYTES), view, placeOf(at + from));
          }
        }
        at += octets;
      }
    }
    return sums;
  } finally {
    client.close();
  }
}
