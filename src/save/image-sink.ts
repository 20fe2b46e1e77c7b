// Where an image goes: a stream whose pieces leave one after another, and are counted; which ends well, by commit, or is
// given up.

import type { StreamPiece, StreamSink } from '../stream/flow.js';

/** How octets leave. */
export interface Outlet {
  /** Resolves when they have left; how many, at least one. */
  write(memory: Uint8Array, start: number, length: number): Promise<number>;
  /** What was written has arrived, as far as that can be known. */
  sync(): Promise<void>;
  /** Called once. */
  close(): Promise<void>;
}

export abstract class ImageSink implements StreamSink {
  /** Octets that there is room for; null where nobody knows before. */
  readonly room: number | null = null;
  /** What was written cannot be taken back. */
  abstract readonly through: boolean;
  readonly #outlet: Outlet;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;
  #bytes = 0;

  constructor(outlet: Outlet) {
    this.#outlet = outlet;
  }

  /** Octets written. */
  get bytes(): number {
    return this.#bytes;
  }

  write(piece: StreamPiece): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write(piece));
    return this.#writing;
  }

  boundary(): Promise<void> {
    return Promise.resolve();
  }

  drain(): Promise<void> {
    return this.#writing;
  }

  /** The image is whole. */
  abstract commit(): Promise<void>;
  /** The image is given up. Safe to call twice, and after a failed write. */
  abstract discard(): Promise<void>;

  /** What a failed write fails with; `left`: octets of the piece that had not left. */
  protected named(cause: unknown, left: number): unknown;
  protected named(cause: unknown): unknown {
    return cause;
  }

  /** All pieces have arrived. */
  protected async sync(): Promise<void> {
    await this.#writing;
    await this.#outlet.sync();
  }

  /** Waits for what is being written. Safe to call twice, and after a failed write: whoever wrote was told of it. */
  protected async close(): Promise<void> {
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
        throw this.named(cause, left);
      });
      at += written;
      this.#bytes += written;
    }
  }
}
