// Whoever reads an agent's log, and at times does not: a collector that is stuck, a pager, Ctrl-S. The agent's standard
// error is a pipe of the smallest size, so that a reader who stops for a second is noticed.
//
//   agent ──▶ pipe (4 KiB) ──▶ read 50 times a second, unless stalled

import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { codeOf } from '../../../src/errors.js';
import type { Lab } from './lab.js';

const READ_MS = 20;
/**
 * fcntl's F_SETPIPE_SZ, which Node does not have; perl is part of every Debian. It opens the pipe by its name: a
 * descriptor of ours that a child is given is a blocking one from then on.
 */
const SHRINK = 'open(PIPE, "+<", $ARGV[0]) && fcntl(PIPE, 1031, 4096) or die $!';

export class LogPipe {
  readonly #fd: number;
  readonly #path: string;
  #writeEnd: number | null = null;
  #timer: NodeJS.Timeout | null = null;
  readonly #piece = Buffer.alloc(64 * 1024);
  /** It is read again at this time (performance.now). */
  #stalledUntil = 0;

  constructor(lab: Lab, name: string) {
    this.#path = lab.outside(name);
    execFileSync('mkfifo', [this.#path]);
    this.#fd = openSync(this.#path, constants.O_RDONLY | constants.O_NONBLOCK);
    execFileSync('perl', ['-e', SHRINK, this.#path]);
  }

  /** For the agent. It is closed here once it was given away. */
  takeWriteEnd(): number {
    this.#writeEnd = openSync(this.#path, constants.O_WRONLY);
    return this.#writeEnd;
  }

  givenAway(heard: (text: string) => void): void {
    if (this.#writeEnd !== null) closeSync(this.#writeEnd);
    this.#timer = setInterval(() => {
      if (performance.now() < this.#stalledUntil) return;
      const text = this.#read();
      if (text !== '') heard(text);
    }, READ_MS);
  }

  stall(ms: number): void {
    this.#stalledUntil = performance.now() + ms;
  }

  close(): void {
    if (this.#timer) clearInterval(this.#timer);
    closeSync(this.#fd);
  }

  #read(): string {
    try {
      return this.#piece.toString('utf8', 0, readSync(this.#fd, this.#piece));
    } catch (error) {
      if (codeOf(error) === 'EAGAIN') return '';
      throw error;
    }
  }
}
