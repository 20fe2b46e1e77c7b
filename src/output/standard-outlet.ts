// Standard output and standard error as outlets. What does not block (a pipe, a terminal, a socket) is written here: a
// write costs a system call and never waits, and nothing is ever under way. What may is written by the process that may
// hang (file-outlet.ts).

import { writeSync } from 'node:fs';
import { asError, codeOf, RomulusError } from '../errors.js';
import { FileOutlet, type FileOutletOptions } from './file-outlet.js';
import { openNonBlocking, type StandardFd } from './non-blocking.js';
import type { Outlet } from './outlet.js';

export interface StandardOutlet extends Outlet {
  /** Resolves when the reader has gone for good. From then on everything is taken, and goes nowhere. */
  readonly gone: Promise<Error>;
}

/** The kernel takes so much at once or not at all (PIPE_BUF), so that the lines of two writers do not mix. */
const ATOMIC_BYTES = 4096;
const LINE_FEED = 10;
/** The other end of a pipe, a terminal, a socket does not come back. */
const GONE: ReadonlySet<string> = new Set(['EPIPE', 'EIO', 'ENXIO', 'ECONNRESET', 'ENOTCONN', 'EBADF']);

const opened = new Map<StandardFd, StandardOutlet>();

/** There is one for the process, which owns it: close() does nothing. The options are for a file. */
export function standardOutlet(fd: StandardFd, options: FileOutletOptions = {}): StandardOutlet {
  let outlet = opened.get(fd);
  if (!outlet) {
    outlet = open(fd, options);
    opened.set(fd, outlet);
  }
  return outlet;
}

function open(fd: StandardFd, options: FileOutletOptions): StandardOutlet {
  const ours = openNonBlocking(fd);
  if (ours !== 'blocking') return new NonBlockingOutlet(ours);
  const file = new FileOutlet({ fd }, options);
  return {
    gone: new Promise(() => undefined),
    write: (bytes, untilMs) => file.write(bytes, untilMs),
    settled: () => file.settled(),
    close: () => undefined,
  };
}

class NonBlockingOutlet implements StandardOutlet {
  readonly gone: Promise<Error>;
  readonly #fd: number;
  #isGone = false;
  #tellGone: (error: Error) => void = () => undefined;

  constructor(fd: number | 'gone') {
    this.gone = new Promise((resolve) => (this.#tellGone = resolve));
    this.#fd = fd === 'gone' ? -1 : fd;
    if (fd === 'gone') this.#lost(new RomulusError('EPIPE', 'nobody reads it'));
  }

  write(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length) {
      const part = wholeLines(bytes.subarray(at, at + ATOMIC_BYTES), bytes.length - at);
      const taken = this.#write(part);
      if (this.#isGone) return bytes.length;
      at += taken;
      if (taken < part.length) break;
    }
    return at;
  }

  close(): void {
    return;
  }

  #write(part: Uint8Array): number {
    if (this.#isGone) return 0;
    try {
      return writeSync(this.#fd, part);
    } catch (error) {
      if (codeOf(error) === 'EAGAIN') return 0;
      if (!GONE.has(codeOf(error))) throw error;
      this.#lost(asError(error));
      return 0;
    }
  }

  #lost(error: Error): void {
    this.#isGone = true;
    this.#tellGone(error);
  }
}

/** The whole lines of a part, if there is more to come and it has any. */
function wholeLines(part: Uint8Array, left: number): Uint8Array {
  if (part.length === left) return part;
  const end = part.lastIndexOf(LINE_FEED) + 1;
  return end > 0 ? part.subarray(0, end) : part;
}
