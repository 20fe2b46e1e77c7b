// Memory that is promised is there: a file that guest RAM lives in is written with zeroes when it is made, so that each
// of its pages is its own from then on. A file that is only as long as RAM takes its pages as they are touched, and
// whoever touches one when the place is full gets SIGBUS, or loses it: perhaps in the middle of a takeover.
//
//   file    |■ ■ ■ ■ ■ ■ ■ ■ ■|     all written: nobody else can fill its place
//   place   | file … |  free  |     asked first, for an answer in both sizes
//   host    | used … |  available |   a tmpfs may be larger than what the host has: asked at each piece
//
// Zeroes and not fallocate: Node has none, the tool's is only twice as fast (0.4 s a GiB), and this works in every file
// system. It lasts, so it can be interrupted.

import { fstatSync, write } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { asError, codeOf } from '../../../errors.js';
import { MEBIBYTE, inMebibytes, requireHostMemory } from '../../host-memory.js';
import { HypervisorError, failed, unsupported } from '../../port.js';

const SHARED_MEMORY = '/dev/shm';
const TMPFS_MAGIC = 0x01021994;
/** What a file's `blocks` count. */
const BLOCK_BYTES = 512;
/** Others reserve, too: the host's memory is asked again after so much. */
const ASK_EVERY_BYTES = 64 * MEBIBYTE;

const writeAt = promisify(write);

/** Where memory is to come from. */
export interface MemoryPlace {
  /** Default: /dev/shm, or where that is no tmpfs the directory for temporary files. */
  readonly memoryDirectory?: string | undefined;
  /** Gives up, with FAILED. */
  readonly signal?: AbortSignal | undefined;
}

export async function memoryDirectory({ memoryDirectory: chosen }: MemoryPlace): Promise<string> {
  if (chosen !== undefined) return chosen;
  return (await isTmpfs(SHARED_MEMORY)) ? SHARED_MEMORY : tmpdir();
}

/** Makes an empty file's `bytes` its own. @throws HypervisorError OUT_OF_MEMORY, with both sizes, or FAILED */
export async function reserve(
  fd: number,
  bytes: number,
  directory: string,
  signal?: AbortSignal,
): Promise<void> {
  const free = await freeIn(directory);
  if (bytes > free) throw noRoom(directory, bytes, free);
  const inMemory = await isTmpfs(directory);
  const zeroes = Buffer.alloc(Math.min(MEBIBYTE, bytes));
  for (let at = 0; at < bytes;) {
    if (signal?.aborted === true) throw failed('interrupted while memory was reserved');
    if (inMemory && at % ASK_EVERY_BYTES === 0) requireHostMemory(bytes - at, 'the guest’s RAM');
    try {
      const { bytesWritten } = await writeAt(fd, zeroes, 0, Math.min(zeroes.length, bytes - at), at);
      at += bytesWritten;
    } catch (error) {
      if (codeOf(error) !== 'ENOSPC' && codeOf(error) !== 'EDQUOT') throw error;
      throw noRoom(directory, bytes, at + (await freeIn(directory)), asError(error));
    }
  }
  if (missing(fd, bytes) === 0) return;
  throw unsupported(
    `${directory} does not keep room for what is written there (does it compress?): memoryDirectory must be a tmpfs`,
    { directory, bytes },
  );
}

/**
 * A file that somebody else made has its pages, or its place has room for them.
 * @throws HypervisorError OUT_OF_MEMORY
 */
export async function requireBacking(fd: number, bytes: number, path: string): Promise<void> {
  const needed = missing(fd, bytes);
  if (needed === 0) return;
  const free = await freeIn(`/proc/self/fd/${fd}`);
  if (needed <= free) return;
  throw new HypervisorError(
    'OUT_OF_MEMORY',
    `the file of guest RAM, ${path}, lacks ${inMebibytes(needed)}, and its file system has ${inMebibytes(free)} left: ` +
      'make that larger, and start QEMU with prealloc=on for its memory backend',
    { path, needed, free },
  );
}

async function freeIn(path: string): Promise<number> {
  const { blocks, bavail, bsize } = await statfs(path);
  return blocks === 0 ? Infinity : bavail * bsize; // 0: it has no limit of its own
}

/** Octets of the file that have no room yet. */
function missing(fd: number, bytes: number): number {
  return Math.max(0, bytes - fstatSync(fd).blocks * BLOCK_BYTES);
}

function noRoom(directory: string, needed: number, free: number, cause?: Error): HypervisorError {
  return new HypervisorError(
    'OUT_OF_MEMORY',
    `the guest’s RAM needs ${inMebibytes(needed)} in ${directory}, where ${inMebibytes(free)} are free: make it larger ` +
      `(mount -o remount,size=SIZE ${directory}), or give another tmpfs as memoryDirectory`,
    { directory, needed, free },
    { cause },
  );
}

async function isTmpfs(directory: string): Promise<boolean> {
  try {
    return (await statfs(directory)).type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}
