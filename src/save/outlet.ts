// Pieces of a stream to wherever octets go, one after another, and counted: what the sinks of images have in common.

import type { StreamPiece } from '../stream/flow.js';

/** How octets leave. */
export interface Outlet {
  /** Resolves when they have left; how many, at least one. */
  write(memory: Uint8Array, start: number, length: number): Promise<number>;
  /** What was written has arrived, as far as that can be known. */
  sync(): Promise<void>;
  /** Called once. */
  close(): Promise<void>;
}

export class PieceWriter {
  readonly #outlet: Outlet;
  readonly #named: (cause: unknown, left: number) => unknown;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;
  #bytes = 0;

  /** @param named what a failed write fails with, given its cause and how many octets of the piece had not left */
  constructor(outlet: Outlet, named: (cause: unknown, left: number) => unknown = (cause) => cause) {
    this.#outlet = outlet;
    this.#named = named;
  }

  /** Octets written. */
  get bytes(): number {
    return this.#bytes;
  }

  write(piece: StreamPiece): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write(piece));
    return this.#writing;
  }

  /** Resolves when all pieces have left; rejects if one could not. */
  drain(): Promise<void> {
    return this.#writing;
  }

  /** All pieces have arrived. */
  async sync(): Promise<void> {
    await this.#writing;
    await this.#outlet.sync();
  }

  /** Waits for what is being written. Safe to call twice, and after a failed write: whoever wrote was told of it. */
  async close(): Promise<void> {
    await this.#writing.catch(() => undefined);
    if (this.#closed) return;
    this.#closed = true;
    await this.#outlet.close();
  }

  async #write({ memory, start, end }: StreamPiece): Promise<void> {
    let at = start;
    while (at < end) {
      const left = end - at;
      const written = await this.#outlet.write(memory, at, left).catch((cause: unknown) => {
        throw this.#named(cause, left);
      });
      at += written;
      this.#bytes += written;
    }
  }
}
