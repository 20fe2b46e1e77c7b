// Pages for a standby, put into the image and into the kernel's page cache by the process that serves the file, many with
// one order: a page that is written through the file costs a request, and two changes of the process, each.
//
//   we ── frames, pages ──▶ slab (a file in memory)          slab ──▶ image
//      ── how many ───────▶ the server's second thread ──────────┴──▶ page cache (NOTIFY_STORE)
//      ◀── done ───────────
//
// A thread of its own: the kernel may hold a page until its reading is answered, and who stores it waits for that.
//
//   slab   u32 frame …   | at SLAB_PAGES_AT: the pages, one after another

import type { Duplex } from 'node:stream';
import { PAGE_SIZE } from '../../../../stream/format.js';
import { writeAt } from '../positioned.js';
import type { PageStoring } from '../ram-access.js';
import { STORE_HEADER_BYTES, RAM_NODE, putStoreHeader } from './protocol.js';

/** Pages of one order. */
export const STORE_PAGES = 256;
const SLAB_PAGES_AT = PAGE_SIZE;
export const SLAB_BYTES = SLAB_PAGES_AT + STORE_PAGES * PAGE_SIZE;
/** An order: how many pages, u32. The answer: one octet. */
export const ORDER_BYTES = 4;

/** Reads a part of the slab. */
export type SlabReader = (into: Uint8Array, offset: number, length: number, position: number) => void;

export interface StoreFiles {
  /** Into the image. */
  image(data: Uint8Array, offset: number, length: number, position: number): void;
  /** To the device, one message. */
  device(message: Uint8Array, length: number): void;
}

/** In the server. */
export class PageStore {
  readonly #slab = Buffer.alloc(SLAB_BYTES);
  readonly #message = Buffer.alloc(STORE_HEADER_BYTES + STORE_PAGES * PAGE_SIZE);
  readonly #header: DataView;
  readonly #files: StoreFiles;

  constructor(files: StoreFiles) {
    this.#files = files;
    const { buffer, byteOffset, length } = this.#message;
    this.#header = new DataView(buffer, byteOffset, length);
  }

  /** The first `count` pages of the slab. Neighbours go together. */
  apply(count: number, read: SlabReader): void {
    read(this.#slab, 0, count * 4, 0);
    read(this.#slab, SLAB_PAGES_AT, count * PAGE_SIZE, SLAB_PAGES_AT);
    for (let from = 0; from < count;) {
      const gfn = this.#frame(from);
      let pages = 1;
      while (from + pages < count && this.#frame(from + pages) === gfn + pages) pages++;
      this.#store(gfn * PAGE_SIZE, SLAB_PAGES_AT + from * PAGE_SIZE, pages * PAGE_SIZE);
      from += pages;
    }
  }

  #frame(index: number): number {
    return this.#slab.readUInt32LE(index * 4);
  }

  /** Into the image first: whoever reads what the page cache has dropped finds it there. */
  #store(position: number, at: number, length: number): void {
    this.#files.image(this.#slab, at, length, position);
    const total = putStoreHeader(this.#header, RAM_NODE, position, length);
    this.#slab.copy(this.#message, STORE_HEADER_BYTES, at, at + length);
    this.#files.device(this.#message, total);
  }
}

/** Who orders. One order at a time. */
export class StoreClient implements PageStoring {
  readonly pages = STORE_PAGES;
  readonly #slabFd: number;
  readonly #orders: Duplex;
  readonly #frames = new Uint32Array(STORE_PAGES);
  readonly #octets = new Uint8Array(this.#frames.buffer);
  readonly #order = Buffer.alloc(ORDER_BYTES);
  #waiting: { readonly resolve: () => void; readonly reject: (error: Error) => void } | null = null;
  #ended = false;

  constructor(slabFd: number, orders: Duplex) {
    this.#slabFd = slabFd;
    this.#orders = orders;
    orders.on('data', () => {
      const waiting = this.#waiting;
      this.#waiting = null;
      waiting?.resolve();
    });
    orders.on('error', () => undefined); // and 'close' follows
    orders.on('close', () => this.#end());
  }

  write(gfns: Uint32Array, count: number, data: Uint8Array, offset: number): Promise<void> {
    if (this.#ended) return Promise.reject(gone());
    this.#frames.set(gfns);
    writeAt(this.#slabFd, this.#octets, 0, count * 4, 0);
    writeAt(this.#slabFd, data, offset, count * PAGE_SIZE, SLAB_PAGES_AT);
    this.#order.writeUInt32LE(count);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#orders.write(this.#order);
    });
  }

  close(): void {
    this.#orders.destroy();
  }

  #end(): void {
    this.#ended = true;
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.reject(gone());
  }
}

function gone(): Error {
  return new Error('the process that serves it has ended');
}
