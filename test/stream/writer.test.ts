// The writer: what it lays out is what the reader finds, whichever of the two ways it is laid out.

import { expect } from 'chai';
import fc from 'fast-check';
import { PAGE_SIZE, RECORD_LENGTH_MAX, RecordType } from '../../src/stream/format.js';
import {
  concatenate,
  encodeDomainHeader,
  encodeHeaders,
  encodeImageHeader,
  encodeRecord,
  recordParts,
  writePageDataHeader,
  writePfnEntry,
  writeRecordHeader,
} from '../../src/stream/writer.js';
import { counting, expectSameBytes, expectStreamError, pageDataBody, readAll } from './streams.js';

const headers = encodeHeaders({ domainType: 1, xenMajor: 4, xenMinor: 17 });

describe('stream writer', () => {
  it('any parts come back as one body', () => {
    const parts = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 5 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 0xffffffff }), parts, (type, list) => {
        const record = concatenate(recordParts(type, ...list));
        expect(record.length % 8).to.equal(0);
        const [read, ...more] = readAll(concatenate([headers, record]));
        expect(more).to.deep.equal([]);
        expect(read?.type).to.equal(type);
        expectSameBytes(read?.body ?? headers, concatenate(list));
      }),
    );
  });

  it('does not copy the parts, leaves empty ones out, pads with zeroes', () => {
    const part = counting(13);
    const [header, body, padding, ...more] = recordParts(RecordType.HVM_CONTEXT, new Uint8Array(0), part);
    expect(header).to.deep.equal(Uint8Array.of(9, 0, 0, 0, 13, 0, 0, 0));
    expect(body).to.equal(part);
    expect(padding).to.deep.equal(new Uint8Array(3));
    expect(more).to.deep.equal([]);
    expect(recordParts(RecordType.END)).to.deep.equal([new Uint8Array(8)]);
  });

  it('refuses a record that no reader takes', () => {
    const half = new Uint8Array(RECORD_LENGTH_MAX / 2);
    expect(recordParts(RecordType.TOOLSTACK, half, half).length).to.equal(3);
    const { facts } = expectStreamError('RECORD_TOO_LONG', () =>
      recordParts(RecordType.TOOLSTACK, half, half, Uint8Array.of(1)),
    );
    expect(facts).to.include({ type: RecordType.TOOLSTACK, length: RECORD_LENGTH_MAX + 1 });
  });

  it('the headers are the two headers', () => {
    const facts = { domainType: 2, xenMajor: 0xfffffffe, xenMinor: 3 } as const;
    expectSameBytes(encodeHeaders(facts), concatenate([encodeImageHeader(), encodeDomainHeader(facts)]));
  });

  it('a record laid out in place is the same record', () => {
    const entries = [
      [0, 0],
      [0xfffffffe, 0xc],
      [7, 0xf],
    ] as const;
    const body = pageDataBody(entries, 0x77);
    const slab = new Uint8Array(100 + 8 + body.length).fill(0xee);
    writeRecordHeader(slab, 100, RecordType.PAGE_DATA, body.length);
    writePageDataHeader(slab, 108, entries.length);
    entries.forEach(([pfn, type], index) => {
      writePfnEntry(slab, 116 + index * 8, pfn, type);
    });
    slab.fill(0x77, 116 + entries.length * 8);
    expect(body.length).to.equal(8 + 3 * 8 + 2 * PAGE_SIZE);
    expectSameBytes(slab.subarray(100), encodeRecord(RecordType.PAGE_DATA, body));
    expectSameBytes(slab.subarray(0, 100), new Uint8Array(100).fill(0xee));
  });
});
