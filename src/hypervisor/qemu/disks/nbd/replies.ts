// What a server answers to our requests: octets in, the requests settled. Data of a read are put where the request
// wants them, from the socket's buffer, or, if the socket reads into what `target` names, by the kernel itself.
//
//   simple       magic | error | cookie | data of a read
//   structured   magic | flags, type | cookie | length | payload      a request may have several, the last says so:
//                OFFSET_DATA   offset | data         OFFSET_HOLE  offset | u32 length: zeroes
//                BLOCK_STATUS  u32 context | (u32 length | u32 flags) …       ERROR…  u32 error | u16 length | text …
//
// Data come in the order of their offsets, without a gap: so does QEMU send them, and what was left out is seen.

import { NbdError } from './error.js';
import {
  Command,
  ReplyFlag,
  ReplyType,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_BYTES,
  STRUCTURED_REPLY_MAGIC,
  offsetAt,
} from './protocol.js';

/** Of a payload that is kept: a block status of QEMU's is no longer, nor is any error's text. */
const PAYLOAD_BYTES_MAX = 1024 * 1024 + 4;
const MAGIC_BYTES = 4;
/** Octets of data that are worth a call of the kernel's of their own. */
const TARGET_BYTES_MIN = 16 * 1024;

/** A request that waits for its answer. */
export interface Pending {
  readonly command: Command;
  readonly offset: number;
  readonly length: number;
  /** READ: where the data go; as long as the request. */
  readonly into: Uint8Array | null;
  /** BLOCK_STATUS: the context that is asked for. */
  readonly context: number;
  readonly resolve: (status: Uint32Array) => void;
  readonly reject: (error: NbdError) => void;
  /** Octets of data that are here. */
  received: number;
  /** Lengths and flags in turn. */
  status: Uint32Array | null;
  errno: number;
}

const NO_STATUS = new Uint32Array(0);

export class Replies {
  readonly #pending: Map<number, Pending>;
  readonly #isStructured: boolean;
  readonly #header = new DataView(new ArrayBuffer(STRUCTURED_REPLY_BYTES + 12));
  readonly #headerOctets = new Uint8Array(this.#header.buffer);
  #headerFilled = 0;
  #headerLength = MAGIC_BYTES;
  /** The request that the present reply is to. */
  #request: Pending | null = null;
  /** Octets of its data that are still to come. */
  #dataLeft = 0;
  /** Its payload, where it is neither data nor fixed. */
  #payload: Uint8Array | null = null;
  #payloadFilled = 0;

  /** @param pending by cookie: whatever is settled is taken out of it */
  constructor(pending: Map<number, Pending>, isStructured: boolean) {
    this.#pending = pending;
    this.#isStructured = isStructured;
  }

  /** Where the next octets of the socket may be read to; null: to be given to feed(). */
  target(): Uint8Array | null {
    if (this.#dataLeft < TARGET_BYTES_MIN || !this.#request?.into) return null;
    const { into, received } = this.#request;
    return into.subarray(received, received + this.#dataLeft);
  }

  /** So many octets have been read to target(). */
  filled(count: number): void {
    if (this.#request) this.#gotData(this.#request, count);
  }

  /** Takes the whole chunk. @throws NbdError PROTOCOL */
  feed(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#dataLeft > 0 && this.#request?.into) {
        const { into, received } = this.#request;
        const count = Math.min(this.#dataLeft, chunk.length - at);
        into.set(chunk.subarray(at, at + count), received);
        this.#gotData(this.#request, count);
        at += count;
      } else if (this.#payload !== null) {
        const count = Math.min(this.#payload.length - this.#payloadFilled, chunk.length - at);
        this.#payload.set(chunk.subarray(at, at + count), this.#payloadFilled);
        this.#payloadFilled += count;
        at += count;
        if (this.#payloadFilled === this.#payload.length) this.#gotPayload(this.#payload);
      } else {
        const count = Math.min(this.#headerLength - this.#headerFilled, chunk.length - at);
        this.#headerOctets.set(chunk.subarray(at, at + count), this.#headerFilled);
        this.#headerFilled += count;
        at += count;
        if (this.#headerFilled === this.#headerLength) this.#gotHeader();
      }
    }
  }

  /** A header grows as it becomes known what it is the header of. */
  #gotHeader(): void {
    const magic = this.#header.getUint32(0);
    if (this.#headerLength === MAGIC_BYTES) {
      if (magic === SIMPLE_REPLY_MAGIC) this.#headerLength = SIMPLE_REPLY_BYTES;
      else if (magic === STRUCTURED_REPLY_MAGIC && this.#isStructured)
        this.#headerLength = STRUCTURED_REPLY_BYTES;
      else throw new NbdError('PROTOCOL', 'what should be a reply is none', { magic });
    } else if (magic === SIMPLE_REPLY_MAGIC) this.#gotSimple();
    else this.#gotStructured();
  }

  #gotSimple(): void {
    const request = (this.#request = this.#find());
    request.errno = this.#header.getUint32(4);
    if (
      request.command === Command.BLOCK_STATUS ||
      (request.command === Command.READ && this.#isStructured)
    ) {
      if (request.errno === 0) throw this.#wrong('a simple reply where it must be structured');
    }
    if (request.errno === 0 && request.into !== null) this.#dataLeft = request.length;
    if (this.#dataLeft === 0) this.#nextReply(true);
  }

  #gotStructured(): void {
    const type = this.#header.getUint16(6);
    const length = this.#header.getUint32(16);
    const request = (this.#request ??= this.#find());
    const fixed = type === ReplyType.OFFSET_DATA ? 8 : type === ReplyType.OFFSET_HOLE ? 12 : 0;
    if (length < fixed) throw this.#wrong('a payload is too short');
    if (this.#headerLength < STRUCTURED_REPLY_BYTES + fixed) {
      this.#headerLength = STRUCTURED_REPLY_BYTES + fixed;
      return;
    }
    switch (type) {
      case ReplyType.OFFSET_DATA:
      case ReplyType.OFFSET_HOLE: {
        const isHole = type === ReplyType.OFFSET_HOLE;
        const bytes = isHole ? this.#header.getUint32(28) : length - fixed;
        const isNext = offsetAt(this.#header, 20) === request.offset + request.received;
        const isWithin =
          bytes > 0 && request.received + bytes <= request.length && (!isHole || length === fixed);
        if (request.into === null || !isNext || !isWithin) throw this.#wrong('data that were not asked for');
        this.#dataLeft = bytes;
        if (isHole) {
          request.into.fill(0, request.received, request.received + bytes);
          this.#gotData(request, bytes);
        }
        return;
      }
      case ReplyType.NONE:
        if (length > 0 || !this.#isLast) throw this.#wrong('it says nothing, and is not the last');
        this.#nextReply(true);
        return;
      default:
        if (type < ReplyType.ERROR && type !== ReplyType.BLOCK_STATUS)
          throw this.#wrong('its type is not known');
        if (length > PAYLOAD_BYTES_MAX || length === 0)
          throw this.#wrong('its payload has no length that may be');
        this.#payload = new Uint8Array(length);
        this.#payloadFilled = 0;
    }
  }

  #gotData(request: Pending, count: number): void {
    request.received += count;
    this.#dataLeft -= count;
    if (this.#dataLeft === 0) this.#nextReply(this.#isLast);
  }

  #gotPayload(payload: Uint8Array): void {
    const request = this.#request;
    if (request === null) return;
    const view = new DataView(payload.buffer);
    const isError = this.#header.getUint16(6) >= ReplyType.ERROR;
    if (isError) {
      if (payload.length < 6 || view.getUint32(0) === 0) throw this.#wrong('an error that is none');
      request.errno = view.getUint32(0);
    } else {
      const isWhole = payload.length >= 12 && payload.length % 8 === 4;
      if (request.command !== Command.BLOCK_STATUS || !isWhole)
        throw this.#wrong('a block status that is none');
      if (view.getUint32(0) === request.context) request.status = this.#statusOf(request, view);
    }
    this.#payload = null;
    this.#nextReply(this.#isLast);
  }

  /** Clipped to what was asked for. */
  #statusOf({ length }: Pending, view: DataView): Uint32Array {
    const status = new Uint32Array((view.byteLength - 4) / 4);
    let covered = 0;
    for (let i = 0; i < status.length; i += 2) {
      const bytes = Math.min(view.getUint32(4 + 4 * i), length - covered);
      if (bytes === 0) throw this.#wrong('a block status of nothing');
      status[i] = bytes;
      status[i + 1] = view.getUint32(8 + 4 * i);
      covered += bytes;
    }
    return status;
  }

  get #isLast(): boolean {
    const isSimple = this.#header.getUint32(0) === SIMPLE_REPLY_MAGIC;
    return isSimple || (this.#header.getUint16(4) & ReplyFlag.DONE) !== 0;
  }

  /** The present reply is over, and with it, if `isLast`, its request. */
  #nextReply(isLast: boolean): void {
    const request = this.#request;
    this.#request = null;
    this.#headerFilled = 0;
    this.#headerLength = MAGIC_BYTES;
    if (!isLast || request === null) return;
    const { command, offset, length, errno } = request;
    const isWhole = request.into === null || request.received === length;
    const hasStatus = command !== Command.BLOCK_STATUS || request.status !== null;
    // As long as it is pending it fails with the connection, if that is what it comes to.
    if (errno === 0 && !(isWhole && hasStatus)) throw this.#wrong('something is missing at its end');
    this.#pending.delete(this.#cookie);
    if (errno === 0) request.resolve(request.status ?? NO_STATUS);
    else {
      const message = `the server failed a request with error ${errno}`;
      request.reject(new NbdError('REQUEST_FAILED', message, { errno, command, offset, length }));
    }
  }

  get #cookie(): number {
    return this.#header.getUint32(12);
  }

  #find(): Pending {
    const request = this.#header.getUint32(8) === 0 ? this.#pending.get(this.#cookie) : undefined;
    if (!request) throw this.#wrong('nobody has asked for it');
    return request;
  }

  #wrong(what: string): NbdError {
    const facts = { type: this.#header.getUint16(6), length: this.#header.getUint32(16) };
    return new NbdError('PROTOCOL', `a reply that cannot be: ${what}`, facts);
  }
}
