// The requests of a client that has chosen an export: octets in, writes done, replies out. Octets of a write go on as
// they come, in pieces cut anywhere, from the socket's buffer to where they stay; its reply is made when the last is
// there. (A seal between two pieces would put one write into two epochs. There is none while the guest runs: a pause
// waits until all of its writes are replied to.)
//
//   header 28 ─▶ WRITE ─▶ data, piece by piece ─▶ reply
//              └ TRIM, WRITE_ZEROES, READ and what is refused ─▶ reply

import { WriteKind } from '../../../../disk/extents.js';
import { NbdError } from './error.js';
import type { DiskExport } from './export.js';
import {
  Command,
  CommandFlag,
  NbdErrno,
  REQUEST_BYTES,
  REQUEST_LENGTH_MAX,
  REQUEST_MAGIC,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  offsetAt,
} from './protocol.js';

/** Replies that are made at a time. */
const REPLIES_BYTES = 4096 * SIMPLE_REPLY_BYTES;

export class Transmission {
  readonly #disk: DiskExport;
  readonly #header = new DataView(new ArrayBuffer(REQUEST_BYTES));
  readonly #headerOctets = new Uint8Array(this.#header.buffer);
  /** Octets of the header that are here. All: its data are under way. */
  #headerFilled = 0;
  /** Where on the disk the next octet of data belongs, and how many are still to come. */
  #offset = 0;
  #dataLeft = 0;
  /** What the request will be answered with, once its data are here; 0: it is done. */
  #errno = 0;
  readonly #replies = Buffer.alloc(REPLIES_BYTES);
  readonly #repliesView = new DataView(this.#replies.buffer, this.#replies.byteOffset, REPLIES_BYTES);
  #repliesFilled = 0;
  #isHeld = false;
  #isOver = false;

  constructor(disk: DiskExport) {
    this.#disk = disk;
  }

  /** True: the last feed() ended before its end because there is no room on the disk's side. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** The client has taken its leave. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /**
   * Takes octets of the chunk from `from` on: the index behind the last. Not all: it is held, or over, or replies must
   * be taken first.
   * @throws NbdError PROTOCOL: where the next request begins is not known
   */
  feed(chunk: Uint8Array, from: number): number {
    this.#isHeld = false;
    let at = from;
    while (at < chunk.length && !this.#isOver && this.#repliesFilled < REPLIES_BYTES) {
      if (this.#headerFilled < REQUEST_BYTES) {
        at = this.#feedHeader(chunk, at);
        continue;
      }
      const here = Math.min(this.#dataLeft, chunk.length - at);
      const taken = this.#errno === 0 ? this.#disk.write(this.#offset, chunk, at, here) : here;
      at += taken;
      this.#offset += taken;
      this.#dataLeft -= taken;
      if (this.#dataLeft === 0) {
        if (this.#errno === 0) this.#disk.countWrite();
        this.#reply(this.#errno);
      } else if (taken < here) {
        this.#isHeld = true;
        break;
      }
    }
    return at;
  }

  /** What is to be sent to the client, in memory of its own; null: nothing. */
  takeReplies(): Buffer | null {
    if (this.#repliesFilled === 0) return null;
    const octets = Buffer.from(this.#replies.subarray(0, this.#repliesFilled));
    this.#repliesFilled = 0;
    return octets;
  }

  #feedHeader(chunk: Uint8Array, from: number): number {
    const taken = Math.min(REQUEST_BYTES - this.#headerFilled, chunk.length - from);
    for (let i = 0; i < taken; i++) this.#headerOctets[this.#headerFilled + i] = chunk[from + i] ?? 0;
    this.#headerFilled += taken;
    if (this.#headerFilled === REQUEST_BYTES) this.#request();
    return from + taken;
  }

  #request(): void {
    const header = this.#header;
    const magic = header.getUint32(0);
    if (magic !== REQUEST_MAGIC)
      throw new NbdError('PROTOCOL', 'what should be a request is none', { magic });
    const flags = header.getUint16(4);
    const type = header.getUint16(6);
    const offset = offsetAt(header, 16);
    const length = header.getUint32(24);
    if (type === Command.DISC) {
      this.#isOver = true;
      return;
    }
    if (type === Command.WRITE) {
      // More than any client may send: what it was that came would be anybody's guess.
      if (length > REQUEST_LENGTH_MAX) throw new NbdError('PROTOCOL', 'a write is too long', { length });
      this.#errno = flags !== 0 ? NbdErrno.EINVAL : this.#isOnDisk(offset, length) ? 0 : NbdErrno.ENOSPC;
      this.#offset = offset;
      this.#dataLeft = length;
      if (length === 0) this.#reply(NbdErrno.EINVAL);
      return;
    }
    this.#reply(this.#withoutData(type, flags, offset, length));
  }

  /** What the request is answered with. */
  #withoutData(type: number, flags: number, offset: number, length: number): number {
    const isOnDisk = length > 0 && this.#isOnDisk(offset, length);
    switch (type) {
      case Command.TRIM:
        if (flags !== 0 || !isOnDisk) return NbdErrno.EINVAL;
        this.#disk.cover(WriteKind.DISCARD, offset, length);
        return 0;
      case Command.WRITE_ZEROES:
        // Whether there is a hole behind the zeroes is for whoever keeps them.
        if ((flags & ~CommandFlag.NO_HOLE) !== 0) return NbdErrno.EINVAL;
        if (!isOnDisk) return length > 0 ? NbdErrno.ENOSPC : NbdErrno.EINVAL;
        this.#disk.cover(WriteKind.ZERO, offset, length);
        return 0;
      case Command.READ:
        // The disk is elsewhere. A mirror does not read its target (QEMU 7.2); zeroes would be a lie.
        this.#disk.countRead();
        return NbdErrno.EIO;
      default:
        return NbdErrno.EINVAL;
    }
  }

  #isOnDisk(offset: number, length: number): boolean {
    return offset + length <= this.#disk.bytes; // false for NaN
  }

  #reply(errno: number): void {
    const view = this.#repliesView;
    const at = this.#repliesFilled;
    view.setUint32(at, SIMPLE_REPLY_MAGIC);
    view.setUint32(at + 4, errno);
    view.setUint32(at + 8, this.#header.getUint32(8));
    view.setUint32(at + 12, this.#header.getUint32(12));
    this.#repliesFilled = at + SIMPLE_REPLY_BYTES;
    this.#headerFilled = 0;
    this.#errno = 0;
  }
}
