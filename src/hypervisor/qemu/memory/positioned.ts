// All of a part of memory, from a file or into it, at a position: a call may do less than it was asked to.

import { readSync, writeSync } from 'node:fs';

/** @throws Error as fs.writeSync() */
export function writeAt(
  fd: number,
  data: Uint8Array,
  offset: number,
  length: number,
  position: number,
): void {
  for (let done = 0; done < length;)
    done += writeSync(fd, data, offset + done, length - done, position + done);
}

/** @throws Error as fs.readSync(), or if the file ends before */
export function readAt(fd: number, into: Uint8Array, offset: number, length: number, position: number): void {
  for (let done = 0; done < length;) {
    const count = readSync(fd, into, offset + done, length - done, position + done);
    if (count === 0) throw new Error(`the file ends at ${position + done}`);
    done += count;
  }
}
