// The incremental reader: fed with chunks cut anywhere, it yields the headers once and then the records, in order.
//
//          40 octets                  END
//   HEADERS ───────▶ RECORDS (next) ───────▶ FINISHED (remaining)
//
// It never waits and never reads ahead of a record: null means "push more". A record's length is checked when its
// header is there, its memory is taken when its body is there. An error leaves the reader where it was, so asking
// again gives the same error.

import type { StreamHeaders } from './flow.js';
import {
  DOMAIN_HEADER_BYTES,
  IMAGE_HEADER_BYTES,
  RECORD_LENGTH_MAX,
  RecordType,
  recordTypeName,
} from './format.js';
import { RecordFramer } from './framing.js';
import { decodeDomainHeader, decodeImageHeader } from './headers.js';
import type { StreamRecord } from './record.js';

export interface StreamReaderOptions {
  /** Octets, padding included, that a record's body may have. Default and most: RECORD_LENGTH_MAX. */
  readonly recordLengthMax?: number;
  /** The stream begins with records, as a back channel does. Default: false. */
  readonly withoutHeaders?: boolean;
}

export class StreamReader {
  readonly #framer: RecordFramer;
  readonly #withoutHeaders: boolean;
  #headers: StreamHeaders | null = null;
  #finished = false;

  constructor(options: StreamReaderOptions = {}) {
    this.#framer = new RecordFramer(options.recordLengthMax ?? RECORD_LENGTH_MAX, recordTypeName);
    this.#withoutHeaders = options.withoutHeaders ?? false;
  }

  /** Octets that were yielded: where the next header or record begins, from the image header on. */
  get offset(): number {
    return this.#framer.offset;
  }

  /** Octets that were pushed and not yet yielded. */
  get pendingBytes(): number {
    return this.#framer.pendingBytes;
  }

  /** True between records (and after END), with nothing pending: the stream may end or be cut here. */
  get atBoundary(): boolean {
    return this.#framer.pendingBytes === 0 && (this.#withoutHeaders || this.#headers !== null);
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
    this.#framer.push(chunk);
  }

  /**
   * The headers, or null as long as they have not come (and for a stream without).
   * @throws StreamError BAD_MARKER, BAD_ID, UNSUPPORTED_VERSION, BIG_ENDIAN, UNKNOWN_DOMAIN_TYPE, BAD_PAGE_SHIFT
   */
  headers(): StreamHeaders | null {
    if (this.#headers === null && !this.#withoutHeaders) {
      this.#headers = takeHeaders(this.#framer);
    }
    return this.#headers;
  }

  /**
   * The next record, or null as long as it has not come whole, and after END. Padding is not looked at.
   * @throws StreamError RECORD_TOO_LONG, and what headers() throws
   */
  next(): StreamRecord | null {
    if (this.#finished || (!this.#withoutHeaders && this.headers() === null)) {
      return null;
    }
    const record = this.#framer.next();
    this.#finished = record?.type === RecordType.END;
    return record;
  }

  /** Takes what is pending out of the reader, as the chunks that it lies in. */
  remaining(): Uint8Array[] {
    return this.#framer.drain();
  }

  /**
   * Says that no more octets come, after next() has returned null.
   * @throws StreamError TRUNCATED inside a header or record; TRAILING_DATA if octets after END were left pending
   */
  end(): void {
    if (this.atBoundary) {
      return;
    }
    if (this.#finished) {
      throw this.#framer.trailing();
    }
    const inHeaders = !this.#withoutHeaders && this.headers() === null;
    throw this.#framer.truncated(inHeaders ? 'its headers' : null);
  }
}

/**
 * Takes the image and domain headers, or returns null as long as they have not come. The image header is judged as
 * soon as it is there.
 */
export function takeHeaders(framer: RecordFramer): StreamHeaders | null {
  const imageBytes = framer.peek(IMAGE_HEADER_BYTES);
  if (imageBytes === null) {
    return null;
  }
  const image = decodeImageHeader(imageBytes, framer.offset);
  const bytes = framer.peek(IMAGE_HEADER_BYTES + DOMAIN_HEADER_BYTES);
  if (bytes === null) {
    return null;
  }
  const domain = decodeDomainHeader(bytes.subarray(IMAGE_HEADER_BYTES), framer.offset + IMAGE_HEADER_BYTES);
  framer.skip(bytes.length);
  return { ...image, ...domain };
}
