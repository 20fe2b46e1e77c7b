// The thread that compares: it reads the RAM file a chunk at a time (a chunk stays in the processor's cache), compares
// strides of 64 KiB with the image, and the pages of strides that differ.
//
//   file    ─read─▶ | chunk: stride, stride, … |
//   image           |   =       ≠ ──▶ its pages: =, ≠ ──▶ into the image, marked
//
// A stride that was always zeroes has nothing in the image, and is compared with one block of zeroes.

import { readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { asError } from '../../../errors.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { Marks } from './dirty.js';
import { RamImage, SEGMENT_BYTES } from './image.js';

export interface CompareStart {
  readonly ramFd: number;
  readonly image: readonly SharedArrayBuffer[];
  readonly marks: SharedArrayBuffer;
}

/** The answer to "scan". */
export interface CompareAnswer {
  readonly error: string | null;
}

const CHUNK_BYTES = 256 * 1024;
const STRIDE_BYTES = 64 * 1024;

class Comparison {
  readonly #ramFd: number;
  readonly #image: RamImage;
  readonly #marks: Marks;
  readonly #chunk = Buffer.alloc(CHUNK_BYTES);
  readonly #zeroes = Buffer.alloc(STRIDE_BYTES);
  /** 1: the image holds something of this stride. */
  readonly #touched: Uint8Array;

  constructor(start: CompareStart) {
    this.#ramFd = start.ramFd;
    this.#image = new RamImage(start.image);
    this.#marks = new Marks(this.#image.bytes / PAGE_SIZE, start.marks);
    this.#touched = new Uint8Array(Math.ceil(this.#image.bytes / STRIDE_BYTES));
  }

  scan(): void {
    const image = this.#image;
    const chunk = this.#chunk;
    for (let at = 0; at < image.bytes; at += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, image.bytes - at);
      for (let have = 0; have < length;) {
        const count = readSync(this.#ramFd, chunk, have, length - have, at + have);
        if (count === 0) throw new Error(`the RAM file ends at octet ${at + have}`);
        have += count;
      }
      // Chunks never cross segments: a segment is a multiple of them.
      const segment = image.segment(at);
      this.#compareChunk(segment, at % SEGMENT_BYTES, length, at);
    }
  }

  #compareChunk(segment: Buffer, segmentAt: number, length: number, ramAt: number): void {
    const chunk = this.#chunk;
    const zeroes = this.#zeroes;
    const touched = this.#touched;
    const marks = this.#marks;
    for (let start = 0; start < length; start += STRIDE_BYTES) {
      const end = Math.min(start + STRIDE_BYTES, length);
      const stride = (ramAt + start) / STRIDE_BYTES;
      if (touched[stride] === 0) {
        if (zeroes.compare(chunk, start, end, 0, end - start) === 0) continue;
        touched[stride] = 1;
      } else if (segment.compare(chunk, start, end, segmentAt + start, segmentAt + end) === 0) {
        continue;
      }
      for (let page = start; page < end; page += PAGE_SIZE) {
        const imageAt = segmentAt + page;
        if (segment.compare(chunk, page, page + PAGE_SIZE, imageAt, imageAt + PAGE_SIZE) === 0) continue;
        segment.set(chunk.subarray(page, page + PAGE_SIZE), imageAt);
        marks.set((ramAt + page) / PAGE_SIZE);
      }
    }
  }
}

if (parentPort) {
  const port = parentPort;
  const comparison = new Comparison(workerData as CompareStart);
  port.on('message', () => {
    let error: string | null = null;
    try {
      comparison.scan();
    } catch (thrown) {
      error = asError(thrown).message;
    }
    port.postMessage({ error } satisfies CompareAnswer);
  });
}
