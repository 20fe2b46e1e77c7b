// The restorer's small parts: the map of populated pfns and the record buffer.

import { expect } from 'chai';
import fc from 'fast-check';
import { RestoreError } from '../../src/restore/error.js';
import { PopulatedPfns } from '../../src/restore/context.js';
import { RecordBuffer } from '../../src/restore/record-buffer.js';
import { RecordType } from '../../src/stream/format.js';

describe('populated pfns', () => {
  it('grow to the next power of two', () => {
    const pfns = new PopulatedPfns();
    expect(pfns.capacity).to.equal(8192);
    pfns.set(8191);
    expect(pfns.capacity).to.equal(8192);
    pfns.set(8192);
    expect(pfns.capacity).to.equal(16_384);
    pfns.set(1_000_000);
    expect(pfns.capacity).to.equal(1 << 20);
    pfns.set(2 ** 21);
    expect(pfns.capacity).to.equal(2 ** 22);
  });

  it('are a set', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 100_000 })),
        fc.integer({ min: 0, max: 300_000 }),
        (list, other) => {
          const pfns = new PopulatedPfns();
          for (const pfn of list) pfns.set(pfn);
          for (const pfn of list) expect(pfns.has(pfn)).to.equal(true);
          expect(pfns.has(other)).to.equal(list.includes(other));
        },
      ),
    );
  });
});

describe('the record buffer', () => {
  const record = (length: number): { type: number; body: Uint8Array; offset: number } => ({
    type: RecordType.HVM_PARAMS,
    body: new Uint8Array(length),
    offset: 7,
  });

  it('counts octets as they stand in the stream, and keeps the order', () => {
    const buffer = new RecordBuffer(1e9);
    const records = Array.from({ length: 3000 }, (_, i) => record(i % 20));
    let bytes = 0;
    for (const one of records) {
      buffer.push(one);
      bytes += 8 + Math.ceil(one.body.length / 8) * 8;
    }
    expect(buffer.count).to.equal(3000);
    expect(buffer.bytes).to.equal(bytes);
    records.forEach((one, i) => {
      expect(buffer.take(i)).to.equal(one);
      expect(() => buffer.take(i)).to.throw(RangeError);
    });
    buffer.clear();
    expect([buffer.count, buffer.bytes]).to.deep.equal([0, 0]);
  });

  it('refuses what is over its limit, and stays as it was', () => {
    const buffer = new RecordBuffer(1000);
    buffer.push(record(600));
    try {
      buffer.push(record(200));
      expect.fail('it was taken');
    } catch (error) {
      expect(error).to.be.instanceOf(RestoreError);
      expect(error).to.deep.include({
        code: 'BUFFER_LIMIT',
        facts: { limit: 1000, records: 1, bytes: 816, offset: 7, type: RecordType.HVM_PARAMS },
      });
    }
    expect(buffer.count).to.equal(1);
    buffer.push(record(0));
    expect(buffer.count).to.equal(2);
  });
});
