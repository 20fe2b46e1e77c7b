// What a person sees of the demo: the machine's console, line by line with the side that it comes from, and one live
// line of the replication that is rewritten in place on a terminal and printed once a second elsewhere.

import type { CheckpointReport } from '../../report/reports.js';
import { formatBytes } from '../text.js';

/** Milliseconds between two prints of the live line where it cannot be rewritten. */
const PLAIN_INTERVAL_MS = 1000;

export class Screen {
  readonly #out: NodeJS.WriteStream;
  readonly #live: boolean;
  #liveLine = '';
  #lastPlainMs = 0;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    this.#live = out.isTTY;
  }

  /** A line that stays. */
  say(line: string): void {
    if (this.#live) this.#out.write(`\r\x1b[K${line}\n${this.#liveLine}`);
    else this.#out.write(`${line}\n`);
  }

  /** The live line; `now` in milliseconds. */
  status(line: string, now: number): void {
    if (this.#live) {
      this.#liveLine = line.slice(0, Math.max(20, this.#out.columns - 1));
      this.#out.write(`\r\x1b[K${this.#liveLine}`);
    } else if (now - this.#lastPlainMs >= PLAIN_INTERVAL_MS) {
      this.#lastPlainMs = now;
      this.#out.write(`${line}\n`);
    }
  }

  /** The live line goes; what comes now is printed plainly. */
  endStatus(): void {
    if (this.#live) this.#out.write('\r\x1b[K');
    this.#liveLine = '';
  }
}

/** One line about an epoch; `lagMs` is how old the state was that the secondary held until now, null if it held none. */
export function formatCheckpoint(report: CheckpointReport, lagMs: number | null): string {
  return [
    `epoch ${String(report.epoch).padStart(4)}`,
    `${String(report.dirtyPages).padStart(5)} dirty pages`,
    `pause ${(report.pause * 1000).toFixed(1).padStart(5)} ms`,
    formatBytes(report.bytes).padStart(9),
    `lag ${(lagMs?.toFixed(0) ?? '–').padStart(3)} ms`,
  ].join(' │ ');
}
