// The file server: what it answers to each request. A request lies in one buffer, the answer is put into another.
//
//   ram    READ   the image, as it is
//          WRITE  into the image, then into the log of writes: whoever reads of a write finds the pages
//
//   FSYNC, FLUSH  not needed (ENOSYS): a page that was written is safe here already, and the kernel asks only once

import { PAGE_SIZE } from '../../../../stream/format.js';
import {
  Errno,
  FOPEN_KEEP_CACHE,
  FOPEN_NOFLUSH,
  IN_HEADER_BYTES,
  READAHEAD_BYTES_MAX,
  WRITE_BYTES_MAX,
  OUT_HEADER_BYTES,
  Opcode,
  RAM_NAME,
  RAM_NODE,
  Request,
  ROOT_NODE,
  WRITE_IN_BYTES,
  putAttributeAnswer,
  putEntry,
  putHeader,
  putInit,
  putOpen,
  putStatfs,
} from './protocol.js';

/** No request is larger. (The kernel refuses reads into less than 8 KiB, or less than a write and its header.) */
export const REQUEST_BYTES_MAX = WRITE_BYTES_MAX + 4096;
const ANSWER_BYTES_MAX = OUT_HEADER_BYTES + Math.max(WRITE_BYTES_MAX, READAHEAD_BYTES_MAX);
/** The part of an answer that must be zeroed before it is filled in. */
const FIXED_ANSWER_BYTES = 256;
/** SETATTR: the size is to be set. */
const FATTR_SIZE = 1 << 3;

/** Where the image is. */
export interface ImageStore {
  readonly bytes: number;
  get(at: number, to: Uint8Array): void;
  set(data: Uint8Array, at: number): void;
}

export type Wrote = (firstPage: number, pages: number) => void;

export class RamFileServer {
  /** Put the request here. */
  readonly request = Buffer.alloc(REQUEST_BYTES_MAX);
  readonly answer = Buffer.alloc(ANSWER_BYTES_MAX);
  readonly #request = new Request(this.request);
  readonly #head: DataView;
  readonly #body: DataView;
  readonly #image: ImageStore;
  readonly #wrote: Wrote;

  /** `wrote` is called for each write, once it is in the image and before it is answered. */
  constructor(image: ImageStore, wrote: Wrote) {
    this.#image = image;
    this.#wrote = wrote;
    const { buffer, byteOffset, length } = this.answer;
    this.#head = new DataView(buffer, byteOffset, length);
    this.#body = new DataView(buffer, byteOffset + OUT_HEADER_BYTES, length - OUT_HEADER_BYTES);
  }

  /** Answers the request of `length` octets: how many octets of `answer` are the answer, 0 if none is wanted. */
  serve(length: number): number {
    const request = this.#request;
    if (length < IN_HEADER_BYTES) return 0;
    const { opcode, unique } = request;
    switch (opcode) {
      case Opcode.FORGET:
      case Opcode.BATCH_FORGET:
      case Opcode.INTERRUPT: // what it is about is answered already
        return 0;
      default: {
        this.answer.fill(0, 0, FIXED_ANSWER_BYTES);
        const result = this.#handle(opcode, length);
        return putHeader(this.#head, unique, Math.max(0, -result), Math.max(0, result));
      }
    }
  }

  /** Octets of the answer's body, or an error number, negative. */
  #handle(opcode: number, length: number): number {
    const request = this.#request;
    const { bytes } = this.#image;
    const { node } = request;
    switch (opcode) {
      case Opcode.INIT:
        return putInit(this.#body, request) ?? -Errno.EINVAL;
      case Opcode.LOOKUP:
        if (node !== ROOT_NODE || request.name(length) !== RAM_NAME) return -Errno.ENOENT;
        return putEntry(this.#body, RAM_NODE, bytes);
      case Opcode.GETATTR:
        if (node !== ROOT_NODE && node !== RAM_NODE) return -Errno.ENOENT;
        return putAttributeAnswer(this.#body, node, node === RAM_NODE ? bytes : 0);
      case Opcode.SETATTR:
        // Times and the like are nobody's business; the size is what it is.
        if (node !== RAM_NODE) return -Errno.EPERM;
        if ((request.u32(0) & FATTR_SIZE) !== 0 && request.u64(16) !== bytes) return -Errno.EINVAL;
        return putAttributeAnswer(this.#body, node, bytes);
      case Opcode.OPEN:
        return node === RAM_NODE ? putOpen(this.#body, FOPEN_KEEP_CACHE | FOPEN_NOFLUSH) : -Errno.EPERM;
      case Opcode.OPENDIR:
        return node === ROOT_NODE ? putOpen(this.#body, 0) : -Errno.EPERM;
      case Opcode.READ:
        return this.#read(node, request.u64(8), request.u32(16));
      case Opcode.WRITE:
        return node === RAM_NODE ? this.#write(request.u64(8), request.u32(16), length) : -Errno.EINVAL;
      case Opcode.STATFS:
        return putStatfs(this.#body, bytes);
      case Opcode.RELEASE:
      case Opcode.RELEASEDIR:
      case Opcode.DESTROY:
        return 0;
      default:
        return -Errno.ENOSYS;
    }
  }

  #read(node: number, offset: number, size: number): number {
    if (node !== RAM_NODE || size > this.#body.byteLength) return -Errno.EINVAL;
    const count = Math.max(0, Math.min(size, this.#image.bytes - offset));
    this.#image.get(offset, this.answer.subarray(OUT_HEADER_BYTES, OUT_HEADER_BYTES + count));
    return count;
  }

  #write(offset: number, size: number, length: number): number {
    const from = IN_HEADER_BYTES + WRITE_IN_BYTES;
    if (from + size > length || offset + size > this.#image.bytes) return -Errno.EINVAL;
    this.#image.set(this.request.subarray(from, from + size), offset);
    const firstPage = Math.floor(offset / PAGE_SIZE);
    this.#wrote(firstPage, Math.ceil((offset + size) / PAGE_SIZE) - firstPage);
    this.#body.setUint32(0, size, true);
    return 8;
  }
}
