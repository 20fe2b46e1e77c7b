// The tap: a copy, for finding out what was lost, of all that a domain says before it is held. Nobody may act on it, so
// it is kept whole only as long as that costs nobody anything: what its file does not take in time is dropped and
// counted.

import type { Logger } from 'pino';
import { ByteQueue } from './byte-queue.js';
import { LAST_OUTPUT_MS } from './console.js';
import { FileOutlet } from './file-outlet.js';
import { PIECE_BYTES, type Outlet } from './outlet.js';
import { Pump } from './pump.js';

/** Beside what is on its way to the file. */
const KEPT_BYTES = 1024 * 1024;

export class Tap {
  readonly #queue = new ByteQueue();
  readonly #outlet: Outlet;
  readonly #pump: Pump;
  readonly #log: Logger;
  #lostBytes = 0;

  /** @throws Node's system error if the file cannot be opened */
  static async open(path: string, log: Logger): Promise<Tap> {
    const outlet = new FileOutlet(
      { path },
      { eager: true, lost: (bytes, why) => tap.#lost(bytes.length, why) },
    );
    const tap = new Tap(outlet, log);
    try {
      await outlet.open();
      return tap;
    } catch (error) {
      outlet.close();
      throw error;
    }
  }

  constructor(outlet: Outlet, log: Logger) {
    this.#outlet = outlet;
    this.#log = log;
    this.#pump = new Pump(outlet, {
      next: () => this.#queue.peek(PIECE_BYTES),
      taken: (count) => this.#queue.drop(count),
    });
  }

  push(bytes: Uint8Array): void {
    if (this.#queue.length + bytes.length > KEPT_BYTES) {
      this.#lost(bytes.length, null);
      return;
    }
    this.#queue.push(bytes);
    this.#pump.run();
  }

  async reopen(): Promise<void> {
    await this.#outlet.reopen?.();
  }

  async close(): Promise<void> {
    await this.#pump.settled(LAST_OUTPUT_MS);
    this.#pump.end();
    this.#outlet.close();
    const lostBytes = this.#lostBytes + this.#queue.length;
    if (lostBytes > 0) this.#log.warn({ lostBytes }, 'the tap is not whole');
  }

  /** Said once: how much it was is said at the end. */
  #lost(count: number, why: Error | null): void {
    if (this.#lostBytes === 0) {
      this.#log.warn({ err: why ?? undefined }, 'the tap is not written in time: it is not whole any more');
    }
    this.#lostBytes += count;
  }
}
