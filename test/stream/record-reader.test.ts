// One reader for every layer: the same records of libxc however they are wrapped, libxl's among them, and what libxl
// must not say, or must have said, is told.

import { expect } from 'chai';
import fc from 'fast-check';
import { RecordType } from '../../src/stream/format.js';
import { LibxlRecordType, encodeLibxlHeader } from '../../src/stream/libxl.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { encodeXlHeader, xlHeaderOf } from '../../src/stream/xl.js';
import { readFixture } from '../fixtures/xen.js';
import { counting, expectSameBytes, expectStreamError, pageDataBody, readAll } from './streams.js';

const { END, LIBXC_CONTEXT, EMULATOR_CONTEXT, CHECKPOINT_END } = LibxlRecordType;

function take(reader: RecordReader): StreamRecord[] {
  const records: StreamRecord[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) {
    records.push(record);
  }
  return records;
}

function read(...parts: Uint8Array[]): StreamRecord[] {
  const reader = new RecordReader();
  reader.push(concatenate(parts));
  const records = take(reader);
  reader.end();
  return records;
}

const header = encodeLibxlHeader();
const begin = encodeRecord(LIBXC_CONTEXT);
const headers = encodeHeaders({ domainType: 2, xenMajor: 4, xenMinor: 17 });
const page = encodeRecord(RecordType.PAGE_DATA, pageDataBody([[1, 0]]));
const checkpoint = encodeRecord(RecordType.CHECKPOINT);
const libxcEnd = encodeRecord(RecordType.END);
const emulator = encodeRecord(
  EMULATOR_CONTEXT,
  concatenate([Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0), counting(13)]),
);
const checkpointEnd = encodeRecord(CHECKPOINT_END);
const end = encodeRecord(END);

describe('record reader', () => {
  for (const name of ['hvm-remus-6ckpt', 'pv-save']) {
    it(`${name}: the same records of libxc in every layer`, () => {
      const whole = readFixture(name);
      const reader = new RecordReader();
      reader.push(whole);
      const records = take(reader);
      reader.end();
      expect(reader.headers()?.layer).to.equal('libxl');
      expect(reader.offset).to.equal(whole.length);
      expect(reader.finished).to.equal(name === 'pv-save');
      const libxc = readAll(readFixture(`${name}.libxc`));
      const inner = records.filter(({ layer }) => layer !== 'libxl');
      expect(inner.map(({ type }) => type)).to.deep.equal(libxc.map(({ type }) => type));
      inner.forEach(({ body }, index) => {
        expectSameBytes(body, libxc[index]?.body ?? new Uint8Array(0));
      });
      expect(records.length - inner.length).to.equal(name === 'pv-save' ? 1 : 6);
      const bare = new RecordReader();
      bare.push(readFixture(`${name}.libxc`));
      expect(bare.headers()).to.not.have.property('layer');
      expect(take(bare)).to.have.lengthOf(libxc.length);
    });
  }

  it('any cut gives the same records, of the same layers', () => {
    const skipped = encodeRecord(0x80000007, counting(5));
    const bytes = concatenate([
      encodeXlHeader(xlHeaderOf('{}')),
      ...[header, skipped, begin, headers],
      ...[page, checkpoint, emulator, checkpointEnd],
      ...[checkpoint, emulator, skipped, checkpointEnd],
      ...[libxcEnd, end],
    ]);
    const expected = read(bytes);
    expect(expected.map(({ layer, type }) => [layer, type])).to.deep.equal([
      [undefined, RecordType.PAGE_DATA],
      [undefined, RecordType.CHECKPOINT],
      ['libxl', EMULATOR_CONTEXT],
      ['libxl', CHECKPOINT_END],
      [undefined, RecordType.CHECKPOINT],
      ['libxl', EMULATOR_CONTEXT],
      ['libxl', 0x80000007],
      ['libxl', CHECKPOINT_END],
      [undefined, RecordType.END],
      ['libxl', END],
    ]);
    fc.assert(
      fc.property(fc.array(fc.nat({ max: bytes.length }), { maxLength: 20 }), (cuts) => {
        const edges = [0, ...cuts.sort((one, other) => one - other), bytes.length];
        const reader = new RecordReader();
        const records = edges.slice(1).flatMap((edge, index) => {
          reader.push(bytes.subarray(edges[index], edge));
          return take(reader);
        });
        reader.end();
        expect(records).to.deep.equal(expected);
      }),
      { numRuns: 60 },
    );
    // Before libxc's headers there is no boundary at which a stream may end.
    const opening = bytes.length - concatenate([page, checkpoint, emulator, checkpointEnd]).length;
    for (let length = 0; length <= opening; length += 1) {
      const reader = new RecordReader();
      reader.push(bytes.subarray(0, length));
      if (reader.headers() !== null) break;
      expectStreamError('TRUNCATED', () => reader.end());
    }
  });

  it('what is out of its order is refused, where it stands', () => {
    const refused = (...parts: Uint8Array[]): void => {
      const reader = new RecordReader();
      reader.push(concatenate(parts));
      const { facts } = expectStreamError('BAD_RECORD', () => take(reader));
      expect(facts['offset']).to.equal(concatenate(parts.slice(0, -1)).length);
      // Asked again, it says so again.
      if (parts.includes(headers)) expectStreamError('BAD_RECORD', () => reader.next());
    };
    refused(header, emulator);
    refused(header, end);
    refused(header, checkpointEnd);
    refused(header, begin, headers, libxcEnd, begin);
    refused(header, begin, headers, libxcEnd, checkpointEnd);
    refused(header, begin, headers, page, checkpoint, end);
    refused(header, begin, headers, page, checkpoint, begin);
  });

  it('octets after the outermost END are TRAILING_DATA', () => {
    expectStreamError('TRAILING_DATA', () => read(header, begin, headers, libxcEnd, end, counting(1)));
    expectStreamError('TRAILING_DATA', () => read(headers, libxcEnd, end));
  });
});
