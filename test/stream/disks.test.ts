// Romulus's own records: the list of the disks, and what was written to them.

import { expect } from 'chai';
import fc from 'fast-check';
import { checkRecord } from '../../src/stream/check.js';
import { StreamError } from '../../src/stream/error.js';
import { DomainType, RecordType, isOptionalRecord } from '../../src/stream/format.js';
import { viewOf } from '../../src/stream/octets.js';
import {
  DISKS_MAX,
  DISK_EXTENTS_MAX,
  DISK_EXTENT_BYTES,
  DISK_WRITES_HEADER_BYTES,
  DiskWritesBatch,
  WriteKind,
  checkDiskWrites,
  decodeDiskWrites,
  decodeDisks,
  encodeDisks,
  writeDiskExtent,
  writeDiskWritesHeader,
} from '../../src/stream/records/disks.js';
import { counting, expectStreamError, recordOf } from './streams.js';

interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly kind: number;
}

const list = (body: Uint8Array) => recordOf(RecordType.DISKS, body);
const writes = (body: Uint8Array) => recordOf(RecordType.DISK_WRITES, body);

function bodyOf(disk: number, extents: readonly Extent[], dataBytes = dataOf(extents)): Uint8Array {
  const dataOffset = DISK_WRITES_HEADER_BYTES + extents.length * DISK_EXTENT_BYTES;
  const body = new Uint8Array(dataOffset + dataBytes);
  writeDiskWritesHeader(body, 0, disk, extents.length);
  extents.forEach(({ offset, length, kind }, index) => {
    writeDiskExtent(viewOf(body), DISK_WRITES_HEADER_BYTES + index * DISK_EXTENT_BYTES, offset, length, kind);
  });
  body.set(counting(dataBytes), dataOffset);
  return body;
}

function dataOf(extents: readonly Extent[]): number {
  return extents.reduce((sum, { kind, length }) => sum + (kind === WriteKind.DATA ? length : 0), 0);
}

const gaps = fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 0, max: 2 ** 46 }));
/** Ascending, apart from each other or not; zeroes and discards may be larger than any memory. */
const someExtents = fc
  .array(fc.record({ gap: gaps, length: gaps, data: fc.integer({ min: 1, max: 600 }), kind: fc.nat(2) }), {
    minLength: 1,
    maxLength: 20,
  })
  .map((parts) => {
    let end = 0;
    return parts.map(({ gap, length, data, kind }): Extent => {
      const extent = { offset: end + gap, length: kind === WriteKind.DATA ? data : length + 1, kind };
      end = extent.offset + extent.length;
      return extent;
    });
  });

describe('the records of disks', () => {
  it('are ones that readers which do not know them pass over', () => {
    expect(isOptionalRecord(RecordType.DISKS) && isOptionalRecord(RecordType.DISK_WRITES)).to.equal(true);
  });

  it('the list comes back', () => {
    const name = fc.stringMatching(/^[A-Za-z0-9._-]{1,64}$/);
    const size = fc.integer({ min: 1, max: 2 ** 44 - 1 }).map((sectors) => sectors * 512);
    const disks = fc.uniqueArray(fc.record({ id: name, bytes: size }), {
      selector: ({ id }) => id,
      minLength: 1,
      maxLength: 10,
    });
    fc.assert(
      fc.property(disks, (some) => {
        expect(decodeDisks(list(encodeDisks(some)))).to.deep.equal(some);
      }),
    );
  });

  it('writes come back, their data at their places, in columns that are used again', () => {
    const batch = new DiskWritesBatch();
    fc.assert(
      fc.property(someExtents, fc.nat(300), (extents, disk) => {
        const body = bodyOf(disk, extents);
        const record = writes(body);
        expect(checkDiskWrites(record)).to.equal(dataOf(extents));
        const { offsets } = batch;
        decodeDiskWrites(record, batch);
        if (extents.length <= offsets.length) expect(batch.offsets).to.equal(offsets);
        expect([batch.disk, batch.count]).to.deep.equal([disk, extents.length]);
        const data = body.subarray(batch.dataOffset);
        let place = 0;
        extents.forEach(({ offset, length, kind }, index) => {
          expect([batch.offsets[index], batch.lengths[index], batch.kinds[index]]).to.deep.equal([
            ...[offset, length, kind],
          ]);
          if (kind !== WriteKind.DATA) return;
          expect(batch.places[index]).to.equal(place);
          expect(data[batch.places[index] ?? -1]).to.equal(place & 255);
          place += length;
        });
        expect(batch.end).to.equal((extents.at(-1)?.offset ?? NaN) + (extents.at(-1)?.length ?? NaN));
      }),
    );
  });

  it('whatever octet of them changes, they say something else that is well-formed, or are refused', () => {
    const batch = new DiskWritesBatch();
    fc.assert(
      fc.property(someExtents, fc.nat(), fc.integer({ min: 1, max: 255 }), (extents, where, flip) => {
        const body = bodyOf(1, extents);
        const at = where % body.length;
        body[at] = (body[at] ?? 0) ^ flip;
        try {
          decodeDiskWrites(writes(body), batch);
        } catch (error) {
          if (!(error instanceof StreamError)) throw error;
          expect(error.code).to.equal('BAD_RECORD');
          return;
        }
        let last = 0;
        for (let i = 0; i < batch.count; i++) {
          expect(batch.offsets[i]).to.be.at.least(last);
          last = (batch.offsets[i] ?? NaN) + (batch.lengths[i] ?? NaN);
        }
        expect(last).to.equal(batch.end);
      }),
      { numRuns: 2000 },
    );
  });

  describe('a list is refused', () => {
    const good = [{ id: 'root', bytes: 1024 }];
    const changed = (change: (body: Uint8Array) => void) => {
      const body = encodeDisks(good);
      change(body);
      return body;
    };
    const refused: readonly (readonly [string, Uint8Array])[] = [
      ['that is shorter than its header', new Uint8Array(7)],
      ['of no disks', encodeDisks([])],
      ['that is cut', encodeDisks(good).subarray(0, 79)],
      ['of more than it has room for', changed((body) => (body[0] = 2))],
      [
        'of too many',
        encodeDisks(Array.from({ length: DISKS_MAX + 1 }, (_, i) => ({ id: `${i}`, bytes: 512 }))),
      ],
      ['whose reserved field is not zero', changed((body) => (body[7] = 1))],
      ['of a disk of no octets', encodeDisks([{ id: 'root', bytes: 0 }])],
      ['of a disk of half a sector', encodeDisks([{ id: 'root', bytes: 1025 }])],
      ['of a disk larger than a number is exact', changed((body) => body.fill(255, 9, 16))],
      ['of a disk without a name', encodeDisks([{ id: '', bytes: 512 }])],
      ['of a name with a zero in it', changed((body) => (body[17] = 0))],
      ['of a name with other characters', encodeDisks([{ id: 'a b', bytes: 512 }])],
      ['that names one twice', encodeDisks([...good, ...good])],
    ];
    for (const [what, body] of refused) {
      it(what, () => {
        const error = expectStreamError('BAD_RECORD', () => checkRecord(list(body), DomainType.X86_HVM));
        expect(error.facts).to.include({ type: RecordType.DISKS, length: body.length });
      });
    }
  });

  describe('writes are refused', () => {
    const { DATA, ZERO } = WriteKind;
    const zero = (offset: number, length: number, kind: number = ZERO): Extent => ({ offset, length, kind });
    const reserved = bodyOf(0, [zero(0, 512)]);
    reserved[22] = 0x20; // bit 53 of the length
    const refused: readonly (readonly [string, Uint8Array])[] = [
      ['that are shorter than their header', new Uint8Array(4)],
      ['without extents', bodyOf(0, [])],
      ['that are too short for their extents', bodyOf(0, [zero(0, 1), zero(1, 1)]).subarray(0, 39)],
      ['with more extents than a record may have', bodyOf(0, manyExtents(DISK_EXTENTS_MAX + 1))],
      ['with an extent of no octets', bodyOf(0, [zero(512, 0)])],
      ['of an unknown kind', bodyOf(0, [zero(0, 512, 3)])],
      ['that overlap', bodyOf(0, [zero(0, 513), zero(512, 512)])],
      ['out of order', bodyOf(0, [zero(1024, 512), zero(0, 512)])],
      ['that end beyond the last exact number', bodyOf(0, [zero(Number.MAX_SAFE_INTEGER, 1)])],
      ['that are longer than a number is exact', reserved],
      ['without all of their data', bodyOf(0, [zero(0, 512, DATA)], 511)],
      ['with more data than they say', bodyOf(0, [zero(0, 512, DATA)], 513)],
    ];
    for (const [what, body] of refused) {
      it(what, () => {
        const batch = new DiskWritesBatch();
        expectStreamError('BAD_RECORD', () => decodeDiskWrites(writes(body), batch));
        expect(batch.count).to.equal(0);
        expectStreamError('BAD_RECORD', () => checkRecord(writes(body), DomainType.X86_PV));
      });
    }

    it('not with as many as a record may have', () => {
      const batch = new DiskWritesBatch();
      decodeDiskWrites(writes(bodyOf(0, manyExtents(DISK_EXTENTS_MAX))), batch);
      expect(batch.count).to.equal(DISK_EXTENTS_MAX);
    });
  });
});

function manyExtents(count: number): Extent[] {
  return Array.from({ length: count }, (_, i) => ({ offset: i * 512, length: 512, kind: WriteKind.ZERO }));
}
