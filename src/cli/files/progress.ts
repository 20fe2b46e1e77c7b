// How far a long job on a file is: a bar on standard error, on a terminal only, and not before the job turns out to be
// a long one.

import { monotonicMs } from '../../flow/clock.js';

const FIRST_AFTER_MS = 300;
const INTERVAL_MS = 100;
const WIDTH = 30;

export class Progress {
  readonly #out: NodeJS.WriteStream;
  readonly #what: string;
  readonly #total: number | null;
  #nextMs: number;
  #shown = false;

  /** @param total octets; null if that is not known */
  constructor(what: string, total: number | null, out: NodeJS.WriteStream = process.stderr) {
    this.#what = what;
    this.#total = total;
    this.#out = out;
    this.#nextMs = out.isTTY ? monotonicMs() + FIRST_AFTER_MS : Infinity;
  }

  at(done: number): void {
    const now = monotonicMs();
    if (now < this.#nextMs) return;
    this.#nextMs = now + INTERVAL_MS;
    this.#shown = true;
    this.#out.write(`\r\x1b[K${progressLine(this.#what, done, this.#total)}`);
  }

  /** The bar goes. */
  end(): void {
    if (this.#shown) {
      this.#out.write('\r\x1b[K');
      this.#shown = false;
    }
    this.#nextMs = Infinity;
  }
}

export function progressLine(what: string, done: number, total: number | null): string {
  const mib = (done / 1024 ** 2).toFixed(0);
  if (total === null || total === 0) return `${what}  ${mib} MiB`;
  const share = Math.min(1, done / total);
  const full = Math.round(share * WIDTH);
  const bar = '█'.repeat(full) + '░'.repeat(WIDTH - full);
  return `${what}  ${bar}  ${(share * 100).toFixed(0).padStart(3)} %  ${mib} of ${(total / 1024 ** 2).toFixed(0)} MiB`;
}
