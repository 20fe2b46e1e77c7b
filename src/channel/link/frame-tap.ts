// Reads the large messages of a WebSocket from the kernel straight into the memory that they stay in. The library
// reads a socket in chunks of 64 KiB and copies each message together; at the rate of pages that costs more than
// everything else on this side. So the socket reads into memory that the tap names (net's onread), and the tap looks
// at the frames as they pass:
//
//   socket ─▶ scratch 64 KiB ─┬─ HTTP, small frames, control frames, anything unusual ─▶ ws
//             │               └─ header of a large frame
//             ▼                        │ names the next memory to read into
//             message, whole ◀─────────┘                                    ─▶ deliver
//
// Only the shape that our primary sends is taken past ws: final, binary, not masked, no extension, within the limit.
// From the first frame on that is not, or cannot be followed, ws sees every octet, and judges it. The order of the
// messages is kept: ws delivers what it is given before it returns.

import type { OnReadOpts, Socket } from 'node:net';
import { valueAt } from '../../stream/bounds.js';
import type { MessagePool } from './pool.js';

const SCRATCH_BYTES = 64 * 1024;
/** Payloads shorter than this go through ws. */
const LARGE_BYTES = 16 * 1024;
const FINAL_BINARY = 0x82;
const FINAL = 0x80;
const MASKED = 0x80;
/** The longest frame header without a mask: 2 octets and a length of 8. */
const HEADER_BYTES_MAX = 10;

export class FrameTap {
  /** For net.connect or tls.connect. */
  readonly onread: OnReadOpts = {
    buffer: () => this.#target ?? this.#scratch,
    callback: (count, memory) => {
      if (this.#target === null) this.#read(memory.subarray(0, count));
      else this.#filled(count);
      return true;
    },
  };

  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  readonly #messageBytesMax: number;
  readonly #pool: MessagePool;
  #socket: Socket | null = null;
  #deliver: ((message: Buffer) => void) | null = null;
  /** The large message that is being read, and what of it is still to come. */
  #message: Buffer | null = null;
  #target: Buffer | null = null;
  /** Octets of the present frame that are still to be passed to ws. */
  #passing = 0;
  /** A frame header of which not all is there. */
  #header = Buffer.alloc(0);
  #lastOctets = '';

  constructor(messageBytesMax: number, pool: MessagePool) {
    this.#messageBytesMax = messageBytesMax;
    this.#pool = pool;
  }

  /** The socket that reads with `onread`; what ws shall see it emits as data. */
  attach(socket: Socket): void {
    this.#socket = socket;
  }

  /**
   * The HTTP upgrade is done: the frames begin. Where octets came with the answer, they are with ws already, and the
   * rest goes the same way.
   */
  start(deliver: (message: Buffer) => void): void {
    if (this.#lastOctets === '\r\n\r\n') this.#deliver = deliver;
  }

  /** ws sees everything from here on. */
  stop(): void {
    this.#deliver = null;
  }

  #read(chunk: Uint8Array): void {
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    if (this.#header.length > 0) {
      rest = Buffer.concat([this.#header, rest]);
      this.#header = Buffer.alloc(0);
    }
    while (rest.length > 0) {
      if (this.#deliver === null) {
        if (this.#passing === 0) this.#lastOctets = rest.toString('latin1', Math.max(0, rest.length - 4));
        this.#pass(rest);
        return;
      }
      const passed = Math.min(this.#passing, rest.length);
      if (passed > 0) {
        this.#passing -= passed;
        this.#pass(rest.subarray(0, passed));
        rest = rest.subarray(passed);
      } else {
        rest = this.#frame(rest);
      }
    }
  }

  /** What of `rest` is left after the frame header that it begins with has been dealt with. */
  #frame(rest: Buffer): Buffer {
    const length = rest.length < 2 ? null : payloadLength(rest);
    if (length === null) {
      // Copied: the scratch will be overwritten. At most nine octets.
      this.#header = Buffer.from(rest);
      return rest.subarray(rest.length);
    }
    const header = headerLength(rest);
    const first = valueAt(rest, 0);
    const plain = (first & FINAL) !== 0 && (valueAt(rest, 1) & MASKED) === 0;
    if (!plain || length > this.#messageBytesMax) {
      this.stop();
      return rest;
    }
    if (first !== FINAL_BINARY || length < LARGE_BYTES) {
      this.#passing = header + length;
      return rest;
    }
    const message = this.#pool.take(length);
    const here = rest.copy(message, 0, header);
    if (here === length) {
      this.#deliver?.(message);
    } else {
      this.#message = message;
      this.#target = message.subarray(here);
    }
    return rest.subarray(header + here);
  }

  #filled(count: number): void {
    const target = this.#target;
    if (target === null) return;
    if (count < target.length) {
      this.#target = target.subarray(count);
      return;
    }
    const message = this.#message;
    this.#message = null;
    this.#target = null;
    if (message !== null) this.#deliver?.(message);
  }

  /** Copied: ws may keep it, and the scratch will be overwritten. */
  #pass(octets: Buffer): void {
    this.#socket?.emit('data', Buffer.from(octets));
  }
}

/** Octets of the payload, as the frame header says; null if not all of the header is there. */
function payloadLength(frame: Buffer): number | null {
  const short = valueAt(frame, 1) & 0x7f;
  if (short < 126) return short;
  if (short === 126) return frame.length < 4 ? null : frame.readUInt16BE(2);
  // 2^53 and more are far above any limit, exact or not.
  return frame.length < HEADER_BYTES_MAX ? null : Number(frame.readBigUInt64BE(2));
}

function headerLength(frame: Buffer): number {
  const short = valueAt(frame, 1) & 0x7f;
  return short < 126 ? 2 : short === 126 ? 4 : HEADER_BYTES_MAX;
}
