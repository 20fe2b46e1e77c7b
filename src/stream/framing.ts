// What the records of all layers share: type u32 | length u32 | body | padding to 8 octets. The framer takes records
// and runs of octets off the front of a stream, knows where it is, and says where the stream is broken. Which layer
// the next record belongs to is its owner's business.
//
//   ── taken (offset) ──▶│ record header │ body … │ padding │ …   pending
//                        └ looked at once, kept until the rest is there

import { StreamError } from './error.js';
import { RECORD_HEADER_BYTES, RECORD_LENGTH_MAX, paddedLength } from './format.js';
import { OctetQueue } from './octets.js';
import type { StreamRecord } from './record.js';

export interface RecordHeader {
  readonly type: number;
  /** Of the body, without padding. */
  readonly length: number;
}

export class RecordFramer {
  readonly #queue = new OctetQueue();
  readonly #recordLengthMax: number;
  readonly #typeName: (type: number) => string;
  #offset = 0;
  // The header of the record that stands first in the queue, once it was there and found good.
  #headerSeen = false;
  #type = 0;
  #length = 0;

  /**
   * @param recordLengthMax octets, padding included, that a body may have; RECORD_LENGTH_MAX at most
   * @param typeName what errors call the type of the record that comes next
   */
  constructor(recordLengthMax: number, typeName: (type: number) => string) {
    this.#recordLengthMax = Math.min(recordLengthMax, RECORD_LENGTH_MAX);
    this.#typeName = typeName;
  }

  /** Octets taken so far: where the next record begins. */
  get offset(): number {
    return this.#offset;
  }

  /** Octets pushed and not yet taken. */
  get pendingBytes(): number {
    return this.#queue.length;
  }

  push(chunk: Uint8Array): void {
    this.#queue.push(chunk);
  }

  /** The next `length` octets without taking them, or null as long as they have not come. */
  peek(length: number): Uint8Array | null {
    return this.#queue.length < length ? null : this.#queue.peek(length);
  }

  /** Drops octets that were looked at. */
  skip(length: number): void {
    this.#queue.skip(length);
    this.#offset += length;
    this.#headerSeen = false;
  }

  /** Type and length of the next record, or null as long as they have not come. @throws StreamError RECORD_TOO_LONG */
  peekHeader(): RecordHeader | null {
    return this.#readHeader() ? { type: this.#type, length: this.#length } : null;
  }

  /**
   * Takes the next record, or returns null as long as it has not come whole. Padding is not looked at.
   * @throws StreamError RECORD_TOO_LONG
   */
  next(): StreamRecord | null {
    if (!this.#readHeader()) return null;
    const padded = paddedLength(this.#length);
    if (this.#queue.length < RECORD_HEADER_BYTES + padded) return null;
    this.#queue.skip(RECORD_HEADER_BYTES);
    const record = { type: this.#type, body: this.#queue.take(this.#length), offset: this.#offset };
    this.#queue.skip(padded - this.#length);
    this.#offset += RECORD_HEADER_BYTES + padded;
    this.#headerSeen = false;
    return record;
  }

  /** The error of a stream that ends where something is pending; `what` is cut, or (null) the next record is. */
  truncated(what: string | null): StreamError {
    const facts = { offset: this.#offset, pending: this.#queue.length };
    if (what !== null) return new StreamError('TRUNCATED', `the stream ends inside ${what}`, facts);
    if (!this.#readHeader()) {
      return new StreamError('TRUNCATED', 'the stream ends inside a record header', facts);
    }
    return new StreamError('TRUNCATED', `the stream ends inside a record (${this.#typeName(this.#type)})`, {
      ...facts,
      type: this.#type,
      length: this.#length,
    });
  }

  /** The error of octets after the end. */
  trailing(): StreamError {
    return new StreamError('TRAILING_DATA', 'octets follow the END record', {
      offset: this.#offset,
      pending: this.#queue.length,
    });
  }

  /** True when the next record's header is there; looked at once per record however often it is asked for. */
  #readHeader(): boolean {
    if (!this.#headerSeen && this.#queue.length >= RECORD_HEADER_BYTES) {
      const type = this.#queue.peekUint32(0);
      const length = this.#queue.peekUint32(4);
      if (paddedLength(length) > this.#recordLengthMax) {
        throw new StreamError(
          'RECORD_TOO_LONG',
          `a record (${this.#typeName(type)}) of ${length} octets, at most ${this.#recordLengthMax} are taken`,
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
