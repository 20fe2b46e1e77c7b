// What an image holds, without reading what it does not: whether it is blank, and the sums of its chunks.

import { CHUNK_BYTES, DirtyMap } from '../../../../disk/dirty-map.js';
import { SUM_BYTES, putSum } from '../../../../disk/sums.js';
import { HypervisorError } from '../../../port.js';
import type { Images } from './images.js';

/** Looked up at a time. */
const WINDOW_BYTES = 2 ** 30;
/** Read at a time. */
const SUM_CHUNKS = 32;
/** QEMU gives the first block of a raw image its room when it makes it, full of zeroes. */
const CHUNKS_READ_MAX = 4;
const ZEROES = new Uint8Array(CHUNK_BYTES);

/** All of it is zeroes, as far as that is to be known without reading much. @throws as Images.read() */
export async function isBlankImage(images: Images, disk: number, bytes: number): Promise<boolean> {
  const data = new DirtyMap(bytes);
  const chunk = new Uint8Array(CHUNK_BYTES);
  let chunksRead = 0;
  for (let offset = 0; offset < bytes; offset += WINDOW_BYTES) {
    await images.markData(disk, offset, Math.min(WINDOW_BYTES, bytes - offset), data);
    for (let run = data.nextRun(0, CHUNK_BYTES); run !== null; run = data.nextRun(0, CHUNK_BYTES)) {
      if (++chunksRead > CHUNKS_READ_MAX) return false;
      const octets = chunk.subarray(0, run.length);
      await images.read(disk, run.offset, octets);
      if (octets.some((octet) => octet !== 0)) return false;
      data.clear(run.offset, run.length);
    }
  }
  return true;
}

/**
 * Of chunks first … first + count - 1 of a disk of so many octets; `look`: has some of them looked at.
 * @throws HypervisorError FAILED if the disk has no such chunks; as `look`
 */
export async function sumsIn(
  disk: number,
  bytes: number,
  [first, count]: readonly [number, number],
  look: (work: (images: Images) => Promise<void>) => Promise<void>,
): Promise<Uint8Array> {
  const map = new DirtyMap(bytes);
  if (first < 0 || count < 0 || first + count > map.chunks) {
    const facts = { first, count, chunks: map.chunks, chunkBytes: CHUNK_BYTES };
    throw new HypervisorError('FAILED', 'sums of chunks that the disk does not have', facts);
  }
  const sums = new Uint8Array(count * SUM_BYTES);
  for (let k = 0; k < count; k += SUM_CHUNKS) {
    const range = [first + k, Math.min(SUM_CHUNKS, count - k)] as const;
    await look((images) => sumChunks(images, disk, map, range, sums, k * SUM_BYTES));
  }
  return sums;
}

/**
 * Of chunks first … first + count - 1, SUM_CHUNKS of them at most, into `sums` at `at`. `map`: an empty one, of the disk.
 * @throws as Images.read()
 */
async function sumChunks(
  images: Images,
  disk: number,
  map: DirtyMap,
  [first, count]: readonly [number, number],
  sums: Uint8Array,
  at: number,
): Promise<void> {
  const { bytes } = map;
  const start = first * CHUNK_BYTES;
  const length = Math.min((first + count) * CHUNK_BYTES, bytes) - start;
  await images.markData(disk, start, length, map);
  const octets = new Uint8Array(length);
  const reads: Promise<void>[] = [];
  for (const run of map.runs()) {
    const from = run.offset - start;
    reads.push(images.read(disk, run.offset, octets.subarray(from, from + run.length)));
  }
  await Promise.all(reads);
  const view = new DataView(sums.buffer, sums.byteOffset, sums.byteLength);
  for (let k = 0; k < count; k++) {
    const from = k * CHUNK_BYTES;
    const chunk = map.has(first + k) ? octets.subarray(from, from + CHUNK_BYTES) : ZEROES;
    putSum(chunk.subarray(0, Math.min(CHUNK_BYTES, length - from)), view, at + k * SUM_BYTES);
  }
  map.clear(start, length);
}
