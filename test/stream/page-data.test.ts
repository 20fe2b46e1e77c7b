// PAGE_DATA: every entry comes back as it was written, and each of libxc's checks is made.

import { expect } from 'chai';
import fc from 'fast-check';
import { PAGE_SIZE, PFN_MAX, RecordType, hasPageData, isKnownPageType } from '../../src/stream/format.js';
import { PageBatch, checkPageData, decodePageData } from '../../src/stream/page-data.js';
import { expectStreamError, pageDataBody, recordOf } from './streams.js';

const knownTypes = Array.from({ length: 16 }, (_, type) => type).filter(isKnownPageType);
const entry = fc.tuple(fc.integer({ min: 0, max: PFN_MAX }), fc.constantFrom(...knownTypes));

function pageData(body: Uint8Array) {
  return recordOf(RecordType.PAGE_DATA, body);
}

/** A body with one octet changed. */
function changed(body: Uint8Array, offset: number, octet: number): Uint8Array {
  const copy = body.slice();
  copy[offset] = octet;
  return copy;
}

describe('PAGE_DATA', () => {
  it('entries come back as they were written', () => {
    const batch = new PageBatch(4);
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 30 }), (entries) => {
        const pages = entries.filter(([, type]) => hasPageData(type)).length;
        decodePageData(pageData(pageDataBody(entries)), batch);
        const read = entries.map((_, index) => [batch.pfns[index], batch.types[index]]);
        expect(read).to.deep.equal(entries.map(([pfn, type]) => [pfn, type]));
        expect(batch.count).to.equal(entries.length);
        expect(batch.dataPages).to.equal(pages);
        expect(batch.dataOffset).to.equal(8 + entries.length * 8);
      }),
    );
  });

  it('is read at any alignment', () => {
    const body = pageDataBody([
      [5, 0],
      [6, 0xf],
    ]);
    for (let shift = 0; shift < 8; shift += 1) {
      const moved = new Uint8Array(body.length + shift);
      moved.set(body, shift);
      const batch = new PageBatch();
      decodePageData(pageData(moved.subarray(shift)), batch);
      expect([...batch.pfns.subarray(0, 2)]).to.deep.equal([5, 6]);
    }
  });

  it('reserved bits are not looked at: 52 to 59 of an entry, 32 to 63 of the header', () => {
    const body = pageDataBody([[3, 0xf]]);
    body.fill(0xff, 4, 8);
    body[14] = 0xf0;
    body[15] = 0xff;
    const batch = new PageBatch();
    decodePageData(pageData(body), batch);
    expect([batch.pfns[0], batch.types[0]]).to.deep.equal([3, 0xf]);
  });

  it('more than 1024 pfns are read, and the arrays grow once', () => {
    const entries = Array.from({ length: 5000 }, (_, pfn) => [pfn, 0xf] as const);
    const batch = new PageBatch();
    decodePageData(pageData(pageDataBody(entries)), batch);
    expect(batch.count).to.equal(5000);
    expect(batch.pfns[4999]).to.equal(4999);
    const { pfns } = batch;
    decodePageData(pageData(pageDataBody(entries.slice(0, 4000))), batch);
    expect(batch.pfns).to.equal(pfns);
    expect(batch.count).to.equal(4000);
  });

  it('each wrong form has its error, and the batch is as it was', () => {
    const batch = new PageBatch();
    decodePageData(pageData(pageDataBody([[42, 0xf]])), batch);
    const good = pageDataBody([
      [1, 0],
      [2, 0xf],
    ]);
    const refused = (body: Uint8Array) => () => decodePageData(pageData(body), batch);
    for (const length of [0, 7]) {
      expectStreamError('BAD_RECORD', refused(good.subarray(0, length)));
    }
    expectStreamError('BAD_RECORD', refused(changed(good, 0, 0)));
    expectStreamError('BAD_RECORD', refused(changed(good, 3, 0xff)));
    expectStreamError('BAD_RECORD', refused(good.subarray(0, 23)));
    expectStreamError('BAD_RECORD', refused(good.subarray(0, good.length - 1)));
    expectStreamError('BAD_RECORD', refused(Uint8Array.of(...good, 0)));
    // An entry more or less of a type with data.
    expectStreamError('BAD_RECORD', refused(changed(good, 23, 0x00)));
    expectStreamError('BAD_RECORD', refused(changed(good, 15, 0xf0)));
    expectStreamError('BAD_RECORD', refused(good.subarray(0, good.length - PAGE_SIZE)));
    for (const type of [5, 6, 7, 8]) {
      const { facts } = expectStreamError('UNKNOWN_PAGE_TYPE', refused(changed(good, 23, type << 4)));
      expect(facts).to.include({ index: 1, pfn: 2n, pageType: type });
    }
    for (const offset of [20, 21, 22]) {
      const { facts } = expectStreamError('PFN_OUT_OF_RANGE', refused(changed(good, offset, 0x0f)));
      expect(facts).to.include({ index: 1 });
    }
    const invalid = pageDataBody([[0xffffffff, 0xf]]);
    expectStreamError('PFN_OUT_OF_RANGE', refused(invalid));
    expect(batch).to.include({ count: 1, dataPages: 0, dataOffset: 16 });
    expect(batch.pfns[0]).to.equal(42);
  });

  it('a check alone takes no memory for the entries', () => {
    const body = new Uint8Array(8 + 8 * 1_000_000).fill(0xf0);
    body.set([0x40, 0x42, 0x0f, 0, 0, 0, 0, 0]);
    for (let at = 8; at < body.length; at += 8) {
      body[at + 4] = body[at + 5] = body[at + 6] = 0;
    }
    const before = process.memoryUsage().arrayBuffers;
    expect(checkPageData(pageData(body))).to.equal(0);
    expect(process.memoryUsage().arrayBuffers - before).to.be.below(65536);
  });
});
