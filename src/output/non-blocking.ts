// Standard output and standard error are shared with whoever started us, so their open file descriptions are left as they
// are found: a pipe or a terminal is opened once more, by way of /proc, and only that description is made not to block.
//
//   fd 1 ─────────────┐
//                     ├─▶ the pipe, the terminal
//   ours, O_NONBLOCK ─┘
//
// A socket cannot be opened twice: that one is made not to block itself, as Node does with it anyway.

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { codeOf } from '../errors.js';

export type StandardFd = 1 | 2;

/** A descriptor that does not block; 'gone': nobody reads it any more; 'blocking': it is a file, or cannot be reopened. */
export type NonBlocking = number | 'gone' | 'blocking';

export function openNonBlocking(fd: StandardFd): NonBlocking {
  const kind = fstatSync(fd);
  if (kind.isSocket()) {
    // Node's stream for it: made for its side effect.
    const stream = fd === 1 ? process.stdout : process.stderr;
    stream.on('error', () => undefined);
    return fd;
  }
  if (!kind.isFIFO() && !kind.isCharacterDevice()) return 'blocking';
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    return codeOf(error) === 'ENXIO' ? 'gone' : 'blocking';
  }
}

/** Whether a write to it may take for ever. */
export function mayHang(fd: StandardFd): boolean {
  const opened = openNonBlocking(fd);
  if (typeof opened === 'number' && opened !== fd) closeSync(opened);
  return opened === 'blocking';
}
