// The reader: any cut of the bytes gives the same records, every wrong byte its own error, and a promise of much
// data costs nothing until the data comes.

import { expect } from 'chai';
import fc from 'fast-check';
import { RECORD_LENGTH_MAX, RecordType } from '../../src/stream/format.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import {
  concatenate,
  encodeDomainHeader,
  encodeHeaders,
  encodeImageHeader,
  encodeRecord,
  writeRecordHeader,
} from '../../src/stream/writer.js';
import { readFixture } from '../fixtures/xen.js';
import { counting, expectSameBytes, expectStreamError, readAll, shrunk, takeAll } from './streams.js';

const headers = encodeHeaders({ domainType: 2, xenMajor: 4, xenMinor: 17 });

/** The headers with one octet changed. */
function headersWith(offset: number, octet: number): Uint8Array {
  const changed = headers.slice();
  changed[offset] = octet;
  return changed;
}

function headersOf(bytes: Uint8Array): unknown {
  const reader = new RecordReader();
  reader.push(bytes);
  return reader.headers();
}

function recordHeader(type: number, length: number): Uint8Array {
  const header = new Uint8Array(8);
  writeRecordHeader(header, 0, type, length);
  return header;
}

function expectSameRecords(actual: readonly StreamRecord[], expected: readonly StreamRecord[]): void {
  expect(actual.length).to.equal(expected.length);
  actual.forEach((record, index) => {
    const { type, offset, body } = expected[index] ?? record;
    expect(record.type).to.equal(type);
    expect(record.offset).to.equal(offset);
    expectSameBytes(record.body, body, `body at ${offset}`);
  });
}

/** Pushes the chunks one after another and takes what is there after each. */
function readChunks(chunks: Iterable<Uint8Array>): StreamRecord[] {
  const reader = new RecordReader();
  const records: StreamRecord[] = [];
  for (const chunk of chunks) {
    reader.push(chunk);
    records.push(...takeAll(reader));
  }
  reader.end();
  return records;
}

describe('stream reader', () => {
  let pv: Uint8Array;
  let hvm: Uint8Array;

  before(() => {
    pv = shrunk(readFixture('pv-remus-6ckpt.libxc'), 7);
    hvm = shrunk(readFixture('hvm-save.libxc'), 3);
  });

  describe('chunks', () => {
    it('octet by octet gives the same records', () => {
      for (const bytes of [pv, hvm]) {
        const chunks = Array.from(bytes, (_, index) => bytes.subarray(index, index + 1));
        expectSameRecords(readChunks(chunks), readAll(bytes));
      }
    });

    it('any cut gives the same records', () => {
      const expected = readAll(pv);
      fc.assert(
        fc.property(fc.array(fc.nat({ max: pv.length }), { maxLength: 60 }), (cuts) => {
          const edges = [0, ...cuts.sort((one, other) => one - other), pv.length];
          const chunks = edges.slice(1).map((edge, index) => pv.subarray(edges[index], edge));
          expectSameRecords(readChunks(chunks), expected);
        }),
        { numRuns: 100 },
      );
    });

    it('all chunks pushed before the first record is taken', () => {
      const reader = new RecordReader();
      for (let at = 0; at < pv.length; at += 3) {
        reader.push(pv.subarray(at, at + 3));
      }
      expect(reader.pendingBytes).to.equal(pv.length);
      expectSameRecords(takeAll(reader), readAll(pv));
      expect(reader.pendingBytes).to.equal(0);
    });

    it('a body that lies in one chunk is a view of it, another is a copy of its own', () => {
      const record = encodeRecord(RecordType.TOOLSTACK, counting(100));
      const chunk = concatenate([headers, record, record]);
      const reader = new RecordReader();
      reader.push(chunk.subarray(0, 40 + 108 + 50));
      const first = reader.next();
      expect(first?.body.buffer).to.equal(chunk.buffer);
      expect(first?.body.byteOffset).to.equal(48);
      expect(reader.next()).to.equal(null);
      reader.push(chunk.subarray(40 + 108 + 50));
      const second = reader.next();
      expect(second?.body.buffer).not.to.equal(chunk.buffer);
      expectSameBytes(second?.body ?? headers, counting(100));
    });

    it('10 MiB in chunks of one octet take time that grows with the octets', () => {
      const length = 10 * 1024 * 1024;
      const reader = new RecordReader();
      reader.push(headers);
      reader.push(recordHeader(RecordType.TOOLSTACK, length));
      expect(reader.next()).to.equal(null);
      const octet = Uint8Array.of(0x5a);
      for (let pushed = 0; pushed < length; pushed += 1) {
        reader.push(octet);
        if (pushed % 1000 === 0) {
          expect(reader.next()).to.equal(null);
        }
      }
      const record = reader.next();
      expectSameBytes(record?.body ?? headers, new Uint8Array(length).fill(0x5a));
    });
  });

  describe('ends', () => {
    it('cut anywhere, the stream ends at a boundary or is TRUNCATED', () => {
      const [first] = readAll(pv).filter((record) => record.type === RecordType.CHECKPOINT);
      const whole = pv.subarray(0, (first?.offset ?? 0) + 8);
      const records = readAll(whole);
      const boundaries = new Set([...records.map((record) => record.offset), whole.length]);
      for (let length = 0; length <= whole.length; length += 1) {
        const reader = new RecordReader();
        reader.push(whole.subarray(0, length));
        const taken = takeAll(reader);
        expect(reader.headers() !== null && reader.pendingBytes === 0).to.equal(boundaries.has(length));
        expect(reader.offset + reader.pendingBytes).to.equal(length);
        if (boundaries.has(length)) {
          reader.end();
        } else {
          const { facts } = expectStreamError('TRUNCATED', () => reader.end());
          expect(facts['offset']).to.equal(reader.offset);
        }
        expect(taken.length).to.equal(records.filter((record) => record.offset < reader.offset).length);
      }
    });

    it('TRUNCATED says which record, once its header is there', () => {
      const reader = new RecordReader();
      reader.push(concatenate([headers, recordHeader(RecordType.HVM_CONTEXT, 64), counting(63)]));
      expect(reader.next()).to.equal(null);
      const { facts } = expectStreamError('TRUNCATED', () => reader.end());
      expect(facts).to.deep.equal({ offset: 40, pending: 71, type: RecordType.HVM_CONTEXT, length: 64 });
    });

    it('stops at END: what follows is left, and is TRAILING_DATA', () => {
      const reader = new RecordReader();
      reader.push(concatenate([headers, encodeRecord(RecordType.END), counting(5)]));
      expect(reader.finished).to.equal(false);
      expect(reader.next()?.type).to.equal(RecordType.END);
      expect(reader.finished).to.equal(true);
      expect(reader.next()).to.equal(null);
      expectStreamError('TRAILING_DATA', () => reader.end());
      expect(reader).to.include({ pendingBytes: 5, offset: 48 });
    });

    it('ends with what was pushed with END, if that is all', () => {
      const reader = new RecordReader();
      reader.push(concatenate([headers, encodeRecord(RecordType.CHECKPOINT), encodeRecord(RecordType.END)]));
      expect(reader.next()?.type).to.equal(RecordType.CHECKPOINT);
      expect(reader.next()).to.include({ type: RecordType.END, offset: 48 });
      expect(reader).to.include({ pendingBytes: 0, offset: 56, finished: true });
      reader.end();
    });
  });

  describe('headers', () => {
    it('come once, and stay', () => {
      const reader = new RecordReader();
      expect(reader.headers()).to.equal(null);
      reader.push(headers);
      const expected = { version: 3, domainType: 2, pageShift: 12, xenMajor: 4, xenMinor: 17 };
      expect(reader.headers()).to.deep.equal(expected);
      expect(reader.headers()).to.deep.equal(expected);
      expect(reader.offset).to.equal(40);
    });

    it('version 2 is read', () => {
      const domain = encodeDomainHeader({ domainType: 1, xenMajor: 4, xenMinor: 6 });
      const bytes = concatenate([encodeImageHeader(2), domain, encodeRecord(RecordType.END)]);
      expect(headersOf(bytes)).to.include({ version: 2, domainType: 1, xenMinor: 6 });
      expect(readAll(bytes).map((record) => record.type)).to.deep.equal([RecordType.END]);
    });

    it('reserved fields and options are not looked at', () => {
      for (const offset of [16, 18, 19, 20, 23, 30, 31]) {
        expect(headersOf(headersWith(offset, 0xfe)), `octet ${offset}`).to.include({ version: 3 });
      }
    });

    it('each wrong field has its error', () => {
      expectStreamError('BAD_MARKER', () => headersOf(headersWith(0, 0xfe)));
      expectStreamError('BAD_MARKER', () => headersOf(headersWith(7, 0)));
      expectStreamError('BAD_ID', () => headersOf(headersWith(8, 0)));
      for (const version of [0, 1, 4, 255]) {
        const error = expectStreamError('UNSUPPORTED_VERSION', () => headersOf(headersWith(15, version)));
        expect(error.facts).to.include({ version, offset: 12 });
      }
      expectStreamError('UNSUPPORTED_VERSION', () => headersOf(headersWith(12, 1)));
      expectStreamError('BIG_ENDIAN', () => headersOf(headersWith(17, 1)));
      for (const type of [0, 3, 255]) {
        const error = expectStreamError('UNKNOWN_DOMAIN_TYPE', () => headersOf(headersWith(24, type)));
        expect(error.facts).to.include({ domainType: type });
      }
      for (const shift of [0, 11, 13, 255]) {
        expectStreamError('BAD_PAGE_SHIFT', () => headersOf(headersWith(28, shift)));
      }
    });

    it('an error stays an error, whatever is asked or pushed', () => {
      const reader = new RecordReader();
      reader.push(headersWith(0, 0));
      for (let round = 0; round < 3; round += 1) {
        expectStreamError('BAD_MARKER', () => reader.headers());
        expectStreamError('BAD_MARKER', () => reader.next());
        expectStreamError('TRUNCATED', () => reader.end());
        reader.push(headers);
      }
    });
  });

  describe('lengths', () => {
    it('a record that claims 128 MiB costs nothing', () => {
      const before = process.memoryUsage().arrayBuffers;
      const readers = Array.from({ length: 8 }, () => {
        const reader = new RecordReader();
        reader.push(concatenate([headers, recordHeader(RecordType.PAGE_DATA, RECORD_LENGTH_MAX)]));
        expect(reader.next()).to.equal(null);
        return reader;
      });
      expect(process.memoryUsage().arrayBuffers - before).to.be.below(1024 * 1024);
      for (const reader of readers) {
        expectStreamError('TRUNCATED', () => reader.end());
      }
    });

    it('a longer one is refused from its header alone', () => {
      for (const length of [RECORD_LENGTH_MAX + 1, 0xfffffff9, 0xffffffff]) {
        const reader = new RecordReader();
        reader.push(concatenate([headers, recordHeader(RecordType.PAGE_DATA, length)]));
        const { facts } = expectStreamError('RECORD_TOO_LONG', () => reader.next());
        expect(facts).to.deep.equal({ offset: 40, type: 1, length, limit: RECORD_LENGTH_MAX });
        expectStreamError('RECORD_TOO_LONG', () => reader.next());
      }
    });

    it('a limit of its own counts the padding', () => {
      const bytes = (length: number) =>
        concatenate([headers, encodeRecord(RecordType.TOOLSTACK, counting(length))]);
      expect(readAll(bytes(96), { recordLengthMax: 100 }).length).to.equal(1);
      expectStreamError('RECORD_TOO_LONG', () => readAll(bytes(97), { recordLengthMax: 100 }));
    });

    it('padding belongs to the record, its content does not matter', () => {
      const record = encodeRecord(RecordType.TOOLSTACK, counting(3));
      record.fill(0xff, 11);
      const reader = new RecordReader();
      reader.push(concatenate([headers, record.subarray(0, 15)]));
      expect(reader.next()).to.equal(null);
      reader.push(record.subarray(15));
      expectSameBytes(reader.next()?.body ?? headers, counting(3));
      expect(reader.offset).to.equal(56);
    });
  });
});
