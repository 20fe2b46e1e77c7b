// How many pages of files wait to be written back on this host, as the kernel counts them. Guest RAM in a file is among
// them, so the growth since our last flush tells roughly how much the next one will have to do. Roughly: others write
// files, too, and each CPU may keep up to 125 pages to itself before it tells.

import { closeSync, openSync, readSync } from 'node:fs';

const FILE = '/proc/vmstat';
const NAME = Buffer.from('\nnr_dirty ');

export class HostDirtyPages {
  readonly #fd: number | null;
  /** The line stands in the first kilobyte or two. */
  readonly #text = Buffer.alloc(4096);

  constructor() {
    let fd: number | null = null;
    try {
      fd = openSync(FILE, 'r');
    } catch {
      // No /proc: the count is not known.
    }
    this.#fd = fd;
  }

  /** Takes some 20 microseconds. Null: not known. */
  count(): number | null {
    if (this.#fd === null) return null;
    const length = readSync(this.#fd, this.#text, 0, this.#text.length, 0);
    const at = this.#text.subarray(0, length).indexOf(NAME);
    if (at < 0) return null;
    return Number.parseInt(this.#text.toString('latin1', at + NAME.length, at + NAME.length + 20), 10);
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
  }
}
