// Between the log and whoever reads standard error. Writing a line never waits: what is not taken is kept, up to a
// limit, and then the oldest lines are dropped, for the newest are the ones that tell what has happened. When the reader
// goes on, a line in their place says how many they were.
//
//   lines ──▶ [ 6 7 8 9 ] ──▶ piece being offered: 1 2 ──pump──▶ standard error
//               ▲
//               3 4 5 were dropped: a line says so before 6

import { monotonicMs } from '../flow/clock.js';
import { PIECE_BYTES, type Outlet } from '../output/outlet.js';
import { Pump } from '../output/pump.js';

/** Of lines that wait. */
const KEPT_BYTES = 1024 * 1024;
const LINE_FEED = 10;

export class LogSink {
  readonly #outlet: Outlet;
  readonly #pump: Pump;
  readonly #notice: (count: number) => string;
  #lines: Buffer[] = [];
  #bytes = 0;
  #piece: Buffer | null = null;
  #dropped = 0;
  /** Of the dropped ones, those that no line has told of. */
  #untold = 0;

  /** `notice`: the line that tells of so many dropped lines. */
  constructor(outlet: Outlet, notice: (count: number) => string) {
    this.#outlet = outlet;
    this.#notice = notice;
    this.#pump = new Pump(outlet, { next: () => this.#next(), taken: (count) => this.#taken(count) });
  }

  /** Since the start. */
  get linesDropped(): number {
    return this.#dropped;
  }

  /** A line, with its end. */
  write(line: string): void {
    const bytes = Buffer.from(line);
    this.#lines.push(bytes);
    this.#bytes += bytes.length;
    let oldest = 0;
    for (; this.#bytes > KEPT_BYTES; oldest++) this.#bytes -= this.#lines[oldest]?.length ?? this.#bytes;
    if (oldest > 0) {
      this.#lines.splice(0, oldest);
      this.#count(oldest);
    }
    this.#pump.run();
  }

  /** The outlet has lost what it had taken. */
  lost(bytes: Uint8Array): void {
    let lines = 0;
    for (const byte of bytes) if (byte === LINE_FEED) lines++;
    this.#count(lines);
  }

  /** Resolves when all is written, or the time is over. */
  async flush(timeoutMs: number): Promise<void> {
    this.#pump.hurry();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, timeoutMs)));
    const written = this.#pump.settled(timeoutMs).then(() => this.#outlet.settled?.());
    await Promise.race([written, late]);
    clearTimeout(timer);
  }

  /** The same for a process that ends, and can only stand still for it. */
  flushNow(timeoutMs: number): void {
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    const limit = monotonicMs() + timeoutMs;
    for (;;) {
      this.#pump.hurry();
      if (this.#next() === null || monotonicMs() > limit) return;
      Atomics.wait(sleeper, 0, 0, 1);
    }
  }

  #count(lines: number): void {
    this.#dropped += lines;
    this.#untold += lines;
  }

  #next(): Buffer | null {
    if (this.#piece) return this.#piece;
    const parts: Buffer[] = this.#untold > 0 ? [Buffer.from(this.#notice(this.#untold))] : [];
    this.#untold = 0;
    let length = 0;
    let count = 0;
    for (const line of this.#lines) {
      if (count > 0 && length + line.length > PIECE_BYTES) break;
      length += line.length;
      count++;
    }
    parts.push(...this.#lines.splice(0, count));
    this.#bytes -= length;
    this.#piece = parts.length > 1 ? Buffer.concat(parts) : (parts[0] ?? null);
    return this.#piece;
  }

  #taken(count: number): void {
    const rest = this.#piece?.subarray(count);
    this.#piece = rest && rest.length > 0 ? rest : null;
  }
}
