// Writes a stream file out of octets, runs of another file, and pages of another file gathered into PAGE_DATA records.
// Measured first where the room is known: the same job, done by one who only counts.

import type { ImageSink } from '../../save/image-sink.js';
import type { Span } from '../../stream/examine/merge.js';
import type { PageIndex } from '../../stream/examine/page-index.js';
import { pageDataLength } from '../../stream/examine/walk.js';
import { HEADROOM } from '../../stream/flow.js';
import {
  MAX_BATCH_SIZE,
  PAGE_SIZE,
  RECORD_HEADER_BYTES,
  RecordType,
  hasPageData,
} from '../../stream/format.js';
import { writePageDataHeader, writePfnEntry, writeRecordHeader } from '../../stream/writer.js';
import type { InputFile } from './input.js';

const PIECE_BYTES = HEADROOM + RECORD_HEADER_BYTES + pageDataLength(MAX_BATCH_SIZE, MAX_BATCH_SIZE);

/** What an image is made of, in order. */
export interface ImageMaker {
  octets(octets: Uint8Array): Promise<void>;
  /** A run of the input, as it is. */
  copy(span: Span): Promise<void>;
  /** The pages of an index, by rising pfn, in as many PAGE_DATA records as they take. Returns the pages of data. */
  pages(index: PageIndex): Promise<number>;
}

export class ImageWriter implements ImageMaker {
  readonly #input: InputFile;
  readonly #sink: ImageSink;
  readonly #onPiece: () => void;
  // One buffer: each piece has left it before the next is laid out.
  readonly #memory = Buffer.allocUnsafe(PIECE_BYTES);

  /** @param onPiece called between pieces; what it throws ends the job */
  constructor(input: InputFile, sink: ImageSink, onPiece: () => void) {
    this.#input = input;
    this.#sink = sink;
    this.#onPiece = onPiece;
  }

  async octets(octets: Uint8Array): Promise<void> {
    const memory = new Uint8Array(HEADROOM + octets.length);
    memory.set(octets, HEADROOM);
    await this.#sink.write({ memory, start: HEADROOM, end: memory.length });
  }

  async copy({ offset, length }: Span): Promise<void> {
    const most = this.#memory.length - HEADROOM;
    for (let done = 0; done < length;) {
      const part = Math.min(most, length - done);
      await this.#input.readAt(this.#memory, HEADROOM, part, offset + done);
      await this.#write(HEADROOM + part);
      done += part;
    }
  }

  async pages(index: PageIndex): Promise<number> {
    const pfns = index.sortedPfns();
    let written = 0;
    for (let from = 0; from < pfns.length; from += MAX_BATCH_SIZE) {
      written += await this.#batch(index, pfns.subarray(from, from + MAX_BATCH_SIZE));
    }
    return written;
  }

  async #batch(index: PageIndex, pfns: Uint32Array): Promise<number> {
    const memory = this.#memory;
    const body = HEADROOM + RECORD_HEADER_BYTES;
    writePageDataHeader(memory, body, pfns.length);
    let entry = body + 8;
    let page = entry + pfns.length * 8;
    const firstPage = page;
    // Pages that follow each other in the file are read together.
    let runStart = 0;
    let runPages = 0;
    for (const pfn of pfns) {
      const type = index.typeOf(pfn);
      writePfnEntry(memory, entry, pfn, type);
      entry += 8;
      if (!hasPageData(type)) continue;
      const offset = index.offsetOf(pfn);
      if (runPages > 0 && offset !== runStart + runPages * PAGE_SIZE) {
        await this.#input.readAt(memory, page, runPages * PAGE_SIZE, runStart);
        page += runPages * PAGE_SIZE;
        runPages = 0;
      }
      runStart = runPages === 0 ? offset : runStart;
      runPages += 1;
    }
    await this.#input.readAt(memory, page, runPages * PAGE_SIZE, runStart);
    page += runPages * PAGE_SIZE;
    writeRecordHeader(memory, HEADROOM, RecordType.PAGE_DATA, page - body);
    await this.#write(page);
    return (page - firstPage) / PAGE_SIZE;
  }

  async #write(end: number): Promise<void> {
    this.#onPiece();
    await this.#sink.write({ memory: this.#memory, start: HEADROOM, end });
  }
}

/** Counts the octets that an image will have. */
export class ImageMeasure implements ImageMaker {
  bytes = 0;

  octets({ length }: Uint8Array): Promise<void> {
    this.bytes += length;
    return Promise.resolve();
  }

  copy({ length }: Span): Promise<void> {
    this.bytes += length;
    return Promise.resolve();
  }

  pages(index: PageIndex): Promise<number> {
    const dataPages = index.dataPages();
    for (let left = index.size; left > 0; left -= MAX_BATCH_SIZE) {
      this.bytes += RECORD_HEADER_BYTES + pageDataLength(Math.min(left, MAX_BATCH_SIZE), 0);
    }
    this.bytes += dataPages * PAGE_SIZE;
    return Promise.resolve(dataPages);
  }
}
