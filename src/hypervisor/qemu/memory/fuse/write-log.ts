// What was written, told by the process that serves guest RAM to the one that saves it, through a file in memory: a ring
// of entries, each the pages of one write request. Reading it is two system calls that wait for nobody.
//
//   entry  u32 first page   u32 pages   u32 0   u32 its number, from 1 on, modulo 2^32
//   entry n stands at n modulo ENTRIES; a number that is ahead of the one expected: entries were overwritten unread
//
// The number is the last to be written, and is seen before the rest is read.

import { readSync, writeSync } from 'node:fs';
import { valueAt } from '../../../../stream/bounds.js';
import type { Bitmap } from '../../../bitmap.js';

const ENTRY_BYTES = 16;
const ENTRY_WORDS = ENTRY_BYTES / 4;
/** Requests between two readings; more of them make all of RAM count as written. */
export const LOG_ENTRIES = 2 ** 16;
export const LOG_BYTES = LOG_ENTRIES * ENTRY_BYTES;
/** Entries that are read at a time. */
const CHUNK = 256;

export class WriteLogWriter {
  readonly #fd: number;
  readonly #entry = new Uint32Array(ENTRY_WORDS);
  #number = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  append(firstPage: number, pages: number): void {
    const number = (this.#number = (this.#number + 1) >>> 0);
    this.#entry[0] = firstPage;
    this.#entry[1] = pages;
    this.#entry[3] = number;
    writeSync(this.#fd, this.#entry, 0, ENTRY_BYTES, (number % LOG_ENTRIES) * ENTRY_BYTES);
  }
}

export class WriteLogReader {
  readonly #fd: number;
  readonly #chunk = new Uint32Array(CHUNK * ENTRY_WORDS);
  #expected = 1;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Sets the bits of the pages that were written since the last call; of all pages, if there were too many writes. */
  read(into: Bitmap): void {
    for (;;) {
      const at = this.#expected % LOG_ENTRIES;
      const room = Math.min(CHUNK, LOG_ENTRIES - at);
      this.#load(at, room);
      const count = this.#inOrder(room);
      if (count > 0) {
        this.#load(at, count);
        if (this.#inOrder(count) === count) this.#take(count, into);
      }
      if (count === room) continue;
      // What stands next is from the round before (or nothing), unless the writer has come around.
      const ahead = (valueAt(this.#chunk, count * ENTRY_WORDS + 3) - this.#expected) >>> 0;
      if (count === 0 && ahead < 2 ** 31) {
        into.setAll();
        this.#expected = (this.#expected + ahead + 1) >>> 0;
        continue;
      }
      if (count === 0) return;
    }
  }

  #load(at: number, entries: number): void {
    const length = entries * ENTRY_BYTES;
    for (let done = 0; done < length;) {
      const octets = readSync(this.#fd, this.#chunk, done, length - done, at * ENTRY_BYTES + done);
      if (octets === 0) throw new Error('the log of writes ends too early');
      done += octets;
    }
  }

  /** How many of the first `limit` entries in the chunk have the numbers that are expected. */
  #inOrder(limit: number): number {
    let count = 0;
    while (count < limit && this.#chunk[count * ENTRY_WORDS + 3] === (this.#expected + count) >>> 0) count++;
    return count;
  }

  #take(count: number, into: Bitmap): void {
    for (let k = 0; k < count; k++) {
      const first = valueAt(this.#chunk, k * ENTRY_WORDS);
      const end = Math.min(into.size, first + valueAt(this.#chunk, k * ENTRY_WORDS + 1));
      for (let page = first; page < end; page++) into.set(page);
    }
    this.#expected = (this.#expected + count) >>> 0;
  }
}
