// The journal against a disk of which every octet is known, whatever is written, and however little room there is.

import { expect } from 'chai';
import fc from 'fast-check';
import { CHUNK_BYTES, DirtyMap } from '../../src/disk/dirty-map.js';
import { DiskError } from '../../src/disk/error.js';
import { SLAB_BYTES, WriteKind } from '../../src/disk/extents.js';
import { Journal } from '../../src/disk/journal.js';
import { SlabPool } from '../../src/disk/slab-pool.js';
import { ModelDisk, UNTOUCHED, apply, kindsOf, writeAll } from './model.js';

/** The last chunk is a short one. */
const BYTES = 40 * CHUNK_BYTES - 512;

interface Write {
  readonly kind: WriteKind;
  readonly offset: number;
  readonly length: number;
}

/** Few places, so that writes meet each other's edges. */
const edge = fc.oneof(
  fc.integer({ min: 0, max: 40 }).map((n) => n * 69_632),
  fc.nat(BYTES),
);
const write: fc.Arbitrary<Write> = fc
  .record({
    kind: fc.oneof(
      { weight: 5, arbitrary: fc.constant(WriteKind.DATA) },
      fc.constantFrom(WriteKind.ZERO, WriteKind.DISCARD),
    ),
    edges: fc.tuple(edge, edge),
  })
  .map(({ kind, edges: [a, b] }) => {
    const offset = Math.min(a, b, BYTES);
    return { kind, offset, length: Math.min(BYTES, Math.max(a, b)) - offset };
  });

let stamp = 0;

function doTo(disk: ModelDisk, journal: Journal, { kind, offset, length }: Write): void {
  if (kind === WriteKind.DATA) {
    const data = new Uint8Array(length).fill((stamp = (stamp + 1) % 251));
    for (let i = 0; i < length; i += 97) data[i] = (i * 7 + stamp) & 0xff;
    disk.write(offset, data);
    writeAll(journal, offset, data);
  } else {
    disk.cover(kind, offset, length);
    journal.cover(kind, offset, length);
  }
}

/** For an octet where nothing is. */
function hasRoom(journal: Journal): boolean {
  return journal.put(journal.bytes - 1, new Uint8Array(1), 0, 1) > 0;
}

describe('disk: the journal of an epoch', () => {
  it('says what the disk holds at the end of each epoch, and what it does not know', () => {
    let spilled = 0;
    fc.assert(
      fc.property(
        fc.array(fc.array(write, { maxLength: 25, size: 'max' }), { maxLength: 3 }),
        fc.integer({ min: 1, max: 3 }),
        (epochs, slabs) => {
          const pool = new SlabPool(slabs * SLAB_BYTES);
          const journal = new Journal(BYTES, pool);
          const standby = new Uint8Array(BYTES).fill(0xee);
          const disk = new ModelDisk(BYTES);
          for (const writes of epochs) {
            disk.kinds.fill(UNTOUCHED);
            for (const each of writes) doTo(disk, journal, each);
            const sealed = journal.seal();
            const kinds = Uint8Array.from(disk.kinds);
            for (const { offset, length } of sealed.dirty?.runs() ?? [])
              kinds.fill(UNTOUCHED, offset, offset + length);
            expect(Buffer.compare(kindsOf(sealed, BYTES), kinds)).to.equal(0);
            spilled += sealed.dirty?.count() ?? 0;
            apply(sealed, standby, disk.octets);
            // What a discard has left is undefined: here, as it was on either side.
            for (let at = disk.kinds.indexOf(WriteKind.DISCARD); at >= 0;) {
              const end = disk.kinds.findIndex((kind, octet) => octet > at && kind !== WriteKind.DISCARD);
              standby.set(disk.octets.subarray(at, end < 0 ? BYTES : end), at);
              at = end < 0 ? -1 : disk.kinds.indexOf(WriteKind.DISCARD, end);
            }
            expect(Buffer.compare(standby, disk.octets)).to.equal(0);
            for (const slab of sealed.slabs) pool.give(slab);
          }
          expect(pool.available).to.equal(slabs);
        },
      ),
      { numRuns: 40 },
    );
    expect(spilled).to.be.greaterThan(0);
  });

  it('keeps one copy of a block that is written again and again, where it was first put', () => {
    const pool = new SlabPool(SLAB_BYTES);
    const journal = new Journal(2 ** 30, pool);
    for (let round = 0; round < 1000; round++) {
      for (const block of [7, 3, 9]) writeAll(journal, block * 4096, new Uint8Array(4096).fill(round));
    }
    const { extents, slabs, dirty } = journal.seal();
    expect(extents.count).to.equal(3);
    expect([...extents.offsets]).to.deep.equal([3 * 4096, 7 * 4096, 9 * 4096]);
    expect(slabs).to.have.lengthOf(1);
    expect(slabs[0]?.subarray(0, 3 * 4096).every((octet) => octet === 999 % 256)).to.equal(true);
    expect(dirty).to.equal(null);
  });

  it('makes one extent of a write that comes in pieces, and of writes that follow one another', () => {
    const journal = new Journal(2 ** 30, new SlabPool(4 * SLAB_BYTES));
    for (let at = 0; at < SLAB_BYTES + 8192; at += 4096) writeAll(journal, 512 + at, new Uint8Array(4096));
    const { extents } = journal.seal();
    // Where a slab ends, an extent does.
    expect([...extents.lengths]).to.deep.equal([SLAB_BYTES, 8192]);
    expect([...extents.places]).to.deep.equal([0, SLAB_BYTES]);
  });

  it('has a bound: what finds no room is dirty, and what found some before is kept', () => {
    const pool = new SlabPool(SLAB_BYTES);
    const journal = new Journal(2 ** 30, pool);
    writeAll(journal, 0, new Uint8Array(SLAB_BYTES).fill(1));
    expect(hasRoom(journal)).to.equal(false);
    writeAll(journal, 2 ** 20 + 4096, new Uint8Array(4096));
    writeAll(journal, 0, new Uint8Array(4096).fill(2)); // in place
    const { extents, slabs, dirty } = journal.seal();
    expect([extents.count, slabs[0]?.[0], slabs[0]?.[5000]]).to.deep.equal([1, 2, 1]);
    expect([...(dirty?.runs() ?? [])]).to.deep.equal([{ offset: 2 ** 20, length: CHUNK_BYTES }]);
    expect(hasRoom(journal), 'the slab has not come back').to.equal(false);
    for (const slab of slabs) pool.give(slab);
    expect(hasRoom(journal)).to.equal(true);
  });

  it('has a bound of extents, too', () => {
    const journal = new Journal(2 ** 34, new SlabPool(2 ** 30));
    const sector = new Uint8Array(512);
    let writes = 0;
    while (journal.put(writes * 2 ** 17, sector, 0, 512) > 0) writes++;
    expect(writes)
      .to.be.greaterThan(60_000)
      .and.at.most(2 ** 16);
    writeAll(journal, writes * 2 ** 17, sector);
    journal.cover(WriteKind.ZERO, (writes + 1) * 2 ** 17, 512);
    const { extents, dirty } = journal.seal();
    expect([extents.count, dirty?.count()]).to.deep.equal([writes, 2]);
  });

  it('cuts what is dirty out of what is kept, even where that makes more extents than it would take', () => {
    const pool = new SlabPool(SLAB_BYTES);
    const journal = new Journal(2 ** 32, pool);
    journal.cover(WriteKind.ZERO, 0, 2 ** 32);
    for (let chunk = 1; chunk < 4000; chunk += 2) journal.spill(chunk * CHUNK_BYTES, 1);
    const sealed = journal.seal();
    expect(sealed.extents.count).to.equal(2001);
    expect(sealed.extents.lengths[0]).to.equal(CHUNK_BYTES);
    expect(sealed.dirty?.count()).to.equal(2000);
  });

  it('gives up its data for marks in a map, and the slabs with them', () => {
    const pool = new SlabPool(4 * SLAB_BYTES);
    const journal = new Journal(2 ** 30, pool);
    writeAll(journal, CHUNK_BYTES, new Uint8Array(512));
    journal.cover(WriteKind.DISCARD, 5 * CHUNK_BYTES, 2 * CHUNK_BYTES);
    journal.spill(9 * CHUNK_BYTES, 1);
    const map = new DirtyMap(2 ** 30);
    journal.sealInto(map);
    expect(
      [...map.runs()].map(({ offset, length }) => [offset, length].map((n) => n / CHUNK_BYTES)),
    ).to.deep.equal([
      [1, 1],
      [5, 2],
      [9, 1],
    ]);
    expect(pool.available).to.equal(4);
    expect(journal.seal()).to.deep.include({ slabs: [], dirty: null });
  });

  it('takes nothing that is not on the disk', () => {
    const journal = new Journal(4096, new SlabPool(SLAB_BYTES));
    expect(() => journal.cover(WriteKind.ZERO, 4096, 1)).to.throw(DiskError, 'disk of 4096');
    expect(() => journal.spill(-1, 1)).to.throw(DiskError);
    expect(() => new SlabPool(SLAB_BYTES).give(new Uint8Array(SLAB_BYTES))).to.throw(DiskError);
    expect(() => new SlabPool(SLAB_BYTES).give(new Uint8Array(1))).to.throw(DiskError);
  });
});
