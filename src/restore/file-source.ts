// A stream out of a file, a pipe or anything else that yields chunks: bare, or in libxl's or xl's layer.

import type { RecordSource, StreamHeaders } from '../stream/flow.js';
import { RecordReader, type RecordReaderOptions } from '../stream/record-reader.js';
import type { StreamRecord } from '../stream/record.js';
import { RestoreError } from './error.js';

export interface ChunkSourceOptions extends RecordReaderOptions {
  /** What is read ends with the stream: octets after END are an error, and END waits for the end. Default: true. */
  readonly nothingAfterEnd?: boolean;
}

export class ChunkSource implements RecordSource {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #reader: RecordReader;
  readonly #withoutHeaders: boolean;
  readonly #nothingAfterEnd: boolean;
  #done = false;
  #closed = false;

  constructor(chunks: AsyncIterable<Uint8Array>, options: ChunkSourceOptions = {}) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#withoutHeaders = options.withoutHeaders ?? false;
    this.#reader = new RecordReader(options);
    this.#nothingAfterEnd = options.nothingAfterEnd ?? true;
  }

  async headers(): Promise<StreamHeaders> {
    if (this.#withoutHeaders) {
      throw new RestoreError('BAD_OPTIONS', 'the headers of a stream without headers were asked for');
    }
    let headers = this.#reader.headers();
    while (headers === null) {
      if (!(await this.#pull())) this.#reader.end();
      headers = this.#reader.headers();
    }
    return headers;
  }

  async read(): Promise<StreamRecord | null> {
    if (this.#closed) return null;
    let record = this.#reader.next();
    while (record === null) {
      if (!(await this.#pull())) return null;
      record = this.#reader.next();
    }
    if (this.#reader.finished && this.#nothingAfterEnd) {
      while (await this.#pull()) this.#reader.end();
      this.#reader.end();
    }
    return record;
  }

  /** Lets go of what the chunks come from; nothing is read any more. Safe to call twice. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#done = true;
    await this.#chunks.return?.();
  }

  async #pull(): Promise<boolean> {
    if (this.#done) return false;
    const next = await this.#chunks.next();
    if (next.done === true) {
      this.#done = true;
      return false;
    }
    this.#reader.push(next.value);
    return true;
  }
}
