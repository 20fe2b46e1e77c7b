// Guest RAM as a file: pages in and out of it by their frame numbers, where neighbouring frames go in one call.

import { closeSync, openSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { valueAt } from '../../../stream/bounds.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { HypervisorError, failed } from '../../port.js';
import { readAt, writeAt } from './positioned.js';
import { memoryDirectory, reserve, type MemoryPlace } from './reserve.js';

/**
 * A file in memory without a name, which the kernel frees with its last descriptor, however its holders end. Its memory
 * is reserved.
 * @throws HypervisorError OUT_OF_MEMORY, UNSUPPORTED where none can be reserved, or FAILED
 */
export async function openAnonymousFile(bytes: number, place: MemoryPlace = {}): Promise<number> {
  const directory = await memoryDirectory(place);
  const path = join(directory, `romulus-${randomUUID()}`);
  let fd: number | null = null;
  try {
    fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    await reserve(fd, bytes, directory, place.signal);
    return fd;
  } catch (error) {
    if (fd !== null) closeSync(fd);
    if (error instanceof HypervisorError) throw error;
    throw failed('no file for the guest’s RAM', { directory, bytes }, error);
  }
}

/** How many of the frames from `from` on follow one another. */
function runLength(gfns: Uint32Array, from: number, count: number): number {
  const first = valueAt(gfns, from);
  let length = 1;
  while (from + length < count && gfns[from + length] === first + length) length++;
  return length;
}

/** Copies `count` frames into `slab` from `offset` on. @throws HypervisorError FAILED */
export function readFrames(
  fd: number,
  gfns: Uint32Array,
  count: number,
  slab: Uint8Array,
  offset: number,
): void {
  for (let k = 0; k < count;) {
    const run = runLength(gfns, k, count);
    transfer(readAt, fd, slab, offset + k * PAGE_SIZE, run * PAGE_SIZE, valueAt(gfns, k) * PAGE_SIZE);
    k += run;
  }
}

/** Writes `count` pages, one after another in `data`, to the frames. @throws HypervisorError FAILED */
export function writeFrames(fd: number, gfns: Uint32Array, count: number, data: Uint8Array): void {
  for (let k = 0; k < count;) {
    const run = runLength(gfns, k, count);
    transfer(writeAt, fd, data, k * PAGE_SIZE, run * PAGE_SIZE, valueAt(gfns, k) * PAGE_SIZE);
    k += run;
  }
}

function transfer(
  call: typeof readAt,
  fd: number,
  memory: Uint8Array,
  offset: number,
  length: number,
  position: number,
): void {
  try {
    call(fd, memory, offset, length, position);
  } catch (error) {
    throw failed('guest RAM cannot be accessed', { position, length }, error);
  }
}
