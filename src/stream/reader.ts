// The incremental reader: fed with chunks cut anywhere, it yields the headers once and then the records, in order.
//
//          40 octets                  END
//   HEADERS ───────▶ RECORDS (next) ───────▶ FINISHED (remaining)
//
// It never waits and never reads ahead of a record: null means "push more". A record's length is checked when its
// header is there, its memory is taken when its body is there. An error leaves the reader where it was, so asking
// again gives the same error.

import { StreamError } from './error.js';
import type { StreamHeaders } from './flow.js';
import {
  DOMAIN_HEADER_BYTES,
  IMAGE_HEADER_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_LENGTH_MAX,
  RecordType,
  paddedLength,
  recordTypeName,
} from './format.js';
import { decodeDomainHeader, decodeImageHeader } from './headers.js';
import { OctetQueue } from './octets.js';
import type { StreamRecord } from './record.js';

const HEADERS_BYTES = IMAGE_HEADER_BYTES + DOMAIN_HEADER_BYTES;

export interface StreamReaderOptions {
  /** Octets, padding included, that a record's body may have. Default and most: RECORD_LENGTH_MAX. */
  readonly recordLengthMax?: number;
  /** The stream begins with records, as a back channel does. Default: false. */
  readonly withoutHeaders?: boolean;
}

export class StreamReader {
  readonly #queue = new OctetQueue();
  readonly #recordLengthMax: number;
  readonly #withoutHeaders: boolean;
  #headers: StreamHeaders | null = null;
  #offset = 0;
  #finished = false;
  // The header of the record that stands first in the queue, once it was there and found good.
  #headerSeen = false;
  #type = 0;
  #length = 0;

  constructor(options: StreamReaderOptions = {}) {
    this.#recordLengthMax = Math.min(options.recordLengthMax ?? RECORD_LENGTH_MAX, RECORD_LENGTH_MAX);
    this.#withoutHeaders = options.withoutHeaders ?? false;
  }

  /** Octets that were yielded: where the next header or record begins, from the image header on. */
  get offset(): number {
    return this.#offset;
  }

  /** Octets that were pushed and not yet yielded. */
  get pendingBytes(): number {
    return this.#queue.length;
  }

  /** True between records (and after END), with nothing pending: the stream may end or be cut here. */
  get atBoundary(): boolean {
    return this.#queue.length === 0 && (this.#withoutHeaders || this.#headers !== null);
  }

  /** True when END was yielded: what is pending after that is not libxc's. */
  get finished(): boolean {
    return this.#finished;
  }

  /**
   * Gives the reader the stream's next octets. They are not copied: the chunk must keep its content for as long as
   * the records that come of it are used.
   */
  push(chunk: Uint8Array): void {
    this.#queue.push(chunk);
  }

  /**
   * The headers, or null as long as they have not come (and for a stream without).
   * @throws StreamError BAD_MARKER, BAD_ID, UNSUPPORTED_VERSION, BIG_ENDIAN, UNKNOWN_DOMAIN_TYPE, BAD_PAGE_SHIFT
   */
  headers(): StreamHeaders | null {
    if (this.#headers === null && !this.#withoutHeaders && this.#queue.length >= IMAGE_HEADER_BYTES) {
      const image = decodeImageHeader(this.#queue.peek(IMAGE_HEADER_BYTES));
      if (this.#queue.length >= HEADERS_BYTES) {
        const domain = decodeDomainHeader(this.#queue.peek(HEADERS_BYTES).subarray(IMAGE_HEADER_BYTES));
        this.#headers = { ...image, ...domain };
        this.#queue.skip(HEADERS_BYTES);
        this.#offset = HEADERS_BYTES;
      }
    }
    return this.#headers;
  }

  /**
   * The next record, or null as long as it has not come whole, and after END. Padding is not looked at.
   * @throws StreamError RECORD_TOO_LONG, and what headers() throws
   */
  next(): StreamRecord | null {
    if (this.#finished || (!this.#withoutHeaders && this.headers() === null) || !this.#readRecordHeader()) {
      return null;
    }
    const padded = paddedLength(this.#length);
    if (this.#queue.length < RECORD_HEADER_BYTES + padded) {
      return null;
    }
    this.#queue.skip(RECORD_HEADER_BYTES);
    const record = { type: this.#type, body: this.#queue.take(this.#length), offset: this.#offset };
    this.#queue.skip(padded - this.#length);
    this.#offset += RECORD_HEADER_BYTES + padded;
    this.#headerSeen = false;
    this.#finished = this.#type === RecordType.END;
    return record;
  }

  /** Takes what is pending out of the reader, as the chunks that it lies in: after END, or when a layer above goes on. */
  remaining(): Uint8Array[] {
    this.#headerSeen = false;
    return this.#queue.drain();
  }

  /**
   * Says that no more octets come, after next() has returned null.
   * @throws StreamError TRUNCATED inside a header or record; TRAILING_DATA if octets after END were left pending
   */
  end(): void {
    if (this.atBoundary) {
      return;
    }
    const facts = { offset: this.#offset, pending: this.#queue.length };
    if (this.#finished) {
      throw new StreamError('TRAILING_DATA', 'octets follow the END record', facts);
    }
    if (!this.#withoutHeaders && this.headers() === null) {
      throw new StreamError('TRUNCATED', 'the stream ends inside its headers', facts);
    }
    if (this.#readRecordHeader()) {
      throw new StreamError('TRUNCATED', `the stream ends inside a record (${recordTypeName(this.#type)})`, {
        ...facts,
        type: this.#type,
        length: this.#length,
      });
    }
    throw new StreamError('TRUNCATED', 'the stream ends inside a record header', facts);
  }

  /** True when the header of the next record is there; looked at once per record however often it is asked for. */
  #readRecordHeader(): boolean {
    if (!this.#headerSeen && this.#queue.length >= RECORD_HEADER_BYTES) {
      const type = this.#queue.peekUint32(0);
      const length = this.#queue.peekUint32(4);
      if (paddedLength(length) > this.#recordLengthMax) {
        throw new StreamError(
          'RECORD_TOO_LONG',
          `a record (${recordTypeName(type)}) of ${length} octets, at most ${this.#recordLengthMax} are taken`,
          { offset: this.#offset, type, length, limit: this.#recordLengthMax },
        );
      }
      this.#type = type;
      this.#length = length;
      this.#headerSeen = true;
    }
    return this.#headerSeen;
  }
}
