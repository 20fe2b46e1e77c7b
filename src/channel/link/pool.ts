// Memory for the large messages of a link, used again when the restorer has done with what lay in it. Fresh memory
// for each would cost a page fault per page of the guest, and a garbage collection every few messages: more than the
// copy of the pages itself.
//
//   take ─▶ message ─▶ one PAGE_DATA record ─▶ restorer ─▶ release(record) ─▶ free, or dropped beyond the limit
//
// Only a message that holds exactly one record comes back: other records could still be views of the same memory.
// What is never released is left to the garbage collector.

import { valueAt } from '../../stream/bounds.js';
import { RECORD_HEADER_BYTES, paddedLength } from '../../stream/format.js';
import type { StreamRecord } from '../../stream/record.js';

/**
 * Where a message begins in its buffer: the stream, after the kind, is aligned to words, and so are the pages in it.
 * V8 copies into shared memory word by word where both sides are aligned alike, and octet by octet where not.
 */
const MESSAGE_OFFSET = 7;
/** The message's kind and the record's header, before the body. */
const BODY_OFFSET = MESSAGE_OFFSET + 1 + RECORD_HEADER_BYTES;
const GRANULE_BYTES = 64 * 1024;

export class MessagePool {
  readonly #limitBytes: number;
  readonly #free: ArrayBuffer[] = [];
  #freeBytes = 0;
  /** Octets of the message in each buffer that is out. A buffer that was released is not in it. */
  readonly #taken = new WeakMap<ArrayBufferLike, number>();

  /** @param limitBytes octets that are kept free for the next messages, at most */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Memory for a message of `length` octets; its content is undefined. */
  take(length: number): Buffer {
    const bytes = MESSAGE_OFFSET + length;
    const memory = this.#find(bytes) ?? fresh(bytes);
    this.#taken.set(memory, length);
    return Buffer.from(memory, MESSAGE_OFFSET, length);
  }

  /** The record's body may be overwritten from now on. Whatever is not from here, or was released, is ignored. */
  release(record: StreamRecord): void {
    const { buffer, byteOffset, length } = record.body;
    const messageLength = this.#taken.get(buffer);
    if (messageLength === undefined || !(buffer instanceof ArrayBuffer)) return;
    if (byteOffset !== BODY_OFFSET || BODY_OFFSET + paddedLength(length) !== MESSAGE_OFFSET + messageLength)
      return;
    this.#taken.delete(buffer);
    this.#free.push(buffer);
    this.#freeBytes += buffer.byteLength;
    while (this.#freeBytes > this.#limitBytes) {
      this.#freeBytes -= valueAt(this.#free, 0).byteLength;
      this.#free.shift();
    }
  }

  /** The first that is large enough and not twice as large. */
  #find(bytes: number): ArrayBuffer | null {
    for (let i = 0; i < this.#free.length; i++) {
      const memory = this.#free[i];
      if (memory === undefined || memory.byteLength < bytes || memory.byteLength > 2 * bytes) continue;
      this.#free.splice(i, 1);
      this.#freeBytes -= memory.byteLength;
      return memory;
    }
    return null;
  }
}

/** Not zeroed, and with a buffer of its own, which Buffer.allocUnsafe would share. */
function fresh(bytes: number): ArrayBuffer {
  const { buffer } = Buffer.allocUnsafeSlow(Math.ceil(bytes / GRANULE_BYTES) * GRANULE_BYTES);
  return buffer;
}
