// Guest RAM as a file: pages in and out of it by their frame numbers, where neighbouring frames go in one call.

import { closeSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { asError } from '../../errors.js';
import { PAGE_SIZE } from '../../stream/format.js';
import { HypervisorError } from '../port.js';

const SHARED_MEMORY = '/dev/shm';
const TMPFS_MAGIC = 0x01021994;

/**
 * A file in memory without a name, which the kernel frees with its last descriptor, however its holders end.
 * Where there is no tmpfs it lies in the directory for temporary files. Fails with FAILED.
 */
export async function openAnonymousFile(bytes: number): Promise<number> {
  const directory = (await isTmpfs(SHARED_MEMORY)) ? SHARED_MEMORY : tmpdir();
  const path = join(directory, `romulus-${randomUUID()}`);
  let fd: number | null = null;
  try {
    fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    ftruncateSync(fd, bytes);
    return fd;
  } catch (error) {
    if (fd !== null) closeSync(fd);
    throw new HypervisorError(
      'FAILED',
      'No file for the guest’s RAM.',
      { directory, bytes },
      { cause: asError(error) },
    );
  }
}

async function isTmpfs(directory: string): Promise<boolean> {
  try {
    return (await statfs(directory)).type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}

/** How many of the frames from `from` on follow one another. */
function runLength(gfns: Uint32Array, from: number, count: number): number {
  const first = gfns[from] ?? 0;
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
    transfer(readSync, fd, slab, offset + k * PAGE_SIZE, run * PAGE_SIZE, (gfns[k] ?? 0) * PAGE_SIZE);
    k += run;
  }
}

/** Writes `count` pages, one after another in `data`, to the frames. @throws HypervisorError FAILED */
export function writeFrames(fd: number, gfns: Uint32Array, count: number, data: Uint8Array): void {
  for (let k = 0; k < count;) {
    const run = runLength(gfns, k, count);
    transfer(writeSync, fd, data, k * PAGE_SIZE, run * PAGE_SIZE, (gfns[k] ?? 0) * PAGE_SIZE);
    k += run;
  }
}

function transfer(
  call: (fd: number, memory: Uint8Array, offset: number, length: number, position: number) => number,
  fd: number,
  memory: Uint8Array,
  offset: number,
  length: number,
  position: number,
): void {
  let done = 0;
  try {
    while (done < length) {
      const count = call(fd, memory, offset + done, length - done, position + done);
      if (count === 0) throw new Error('the RAM file ends too early');
      done += count;
    }
  } catch (error) {
    throw new HypervisorError(
      'FAILED',
      'Guest RAM cannot be accessed.',
      { position: position + done, length },
      { cause: asError(error) },
    );
  }
}
