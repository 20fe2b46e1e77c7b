// What the tests of this room share: whole streams read at once, small streams made of real ones, bytes compared.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import { StreamError, type StreamErrorCode } from '../../src/stream/error.js';
import { PAGE_DATA_HEADER_BYTES, PAGE_SIZE, RecordType, hasPageData } from '../../src/stream/format.js';
import { PageBatch, decodePageData } from '../../src/stream/page-data.js';
import { RecordReader, type RecordReaderOptions } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { concatenate, encodeRecord, writePageDataHeader, writePfnEntry } from '../../src/stream/writer.js';

/** Compared as memory: the assertion library would walk millions of octets one by one. */
export function expectSameBytes(actual: Uint8Array, expected: Uint8Array, what = 'bytes'): void {
  expect(actual.length, `length of ${what}`).to.equal(expected.length);
  expect(Buffer.compare(actual, expected), what).to.equal(0);
}

export function expectStreamError(code: StreamErrorCode, action: () => unknown): StreamError {
  try {
    action();
  } catch (error) {
    expect(error).to.be.instanceOf(StreamError);
    expect(error).to.be.instanceOf(RomulusError);
    const streamError = error as StreamError;
    expect(streamError.code, streamError.message).to.equal(code);
    return streamError;
  }
  throw new Error(`no error, where ${code} was expected`);
}

export function readAll(bytes: Uint8Array, options?: RecordReaderOptions): StreamRecord[] {
  const reader = new RecordReader(options);
  reader.push(bytes);
  return takeAll(reader);
}

export function takeAll(reader: RecordReader): StreamRecord[] {
  const records: StreamRecord[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) {
    records.push(record);
  }
  return records;
}

/** A record as if it had been read at offset 0. */
export function recordOf(type: number, body: Uint8Array = new Uint8Array(0)): StreamRecord {
  return { type, body, offset: 0 };
}

/** Octets that differ from each other in a way that is easily told. */
export function counting(length: number, from = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => index + from);
}

/** The body of a PAGE_DATA record: entries, then a page filled with `fill` for each entry with data. */
export function pageDataBody(
  entries: readonly (readonly [pfn: number, type: number])[],
  fill = 0xa5,
): Uint8Array {
  const pages = entries.filter(([, type]) => hasPageData(type)).length;
  const dataOffset = PAGE_DATA_HEADER_BYTES + entries.length * 8;
  const body = new Uint8Array(dataOffset + pages * PAGE_SIZE).fill(fill, dataOffset);
  writePageDataHeader(body, 0, entries.length);
  entries.forEach(([pfn, type], index) => {
    writePfnEntry(body, PAGE_DATA_HEADER_BYTES + index * 8, pfn, type);
  });
  return body;
}

/**
 * A real stream made small: its PAGE_DATA records keep their first two pages of data and first entries, at most
 * `batches` of them are kept, everything else is as Xen wrote it.
 */
export function shrunk(stream: Uint8Array, batches: number): Uint8Array {
  const parts = [stream.subarray(0, 40)];
  const batch = new PageBatch();
  let kept = 0;
  for (const record of readAll(stream)) {
    if (record.type !== RecordType.PAGE_DATA) {
      parts.push(encodeRecord(record.type, record.body));
    } else if (kept < batches) {
      kept += 1;
      decodePageData(record, batch);
      parts.push(encodeRecord(record.type, shrunkPageData(record, batch)));
    }
  }
  return concatenate(parts);
}

function shrunkPageData(record: StreamRecord, batch: PageBatch): Uint8Array {
  const entries: [number, number][] = [];
  let pages = 0;
  for (let index = 0; index < Math.min(batch.count, 6); index += 1) {
    const type = batch.types[index] ?? 0;
    if (pages < 2 || !hasPageData(type)) {
      pages += hasPageData(type) ? 1 : 0;
      entries.push([batch.pfns[index] ?? 0, type]);
    }
  }
  const body = pageDataBody(entries);
  body.set(
    record.body.subarray(batch.dataOffset, batch.dataOffset + pages * PAGE_SIZE),
    body.length - pages * PAGE_SIZE,
  );
  return body;
}

/** A seeded generator of whole numbers (mulberry32): the same tests every time. */
export function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}
