// The dirty map against a list of booleans; on the wire, and off it again, whatever is on it.

import { expect } from 'chai';
import fc from 'fast-check';
import { CHUNK_BYTES, DirtyMap } from '../../src/disk/dirty-map.js';
import { DiskError } from '../../src/disk/error.js';

const CHUNKS = 200;
const BYTES = CHUNKS * CHUNK_BYTES - 1000;

const range = fc.tuple(fc.nat(BYTES), fc.nat(BYTES)).map(([a, b]) => ({
  offset: Math.min(a, b),
  length: Math.abs(a - b) % (20 * CHUNK_BYTES),
}));

function marked(ranges: readonly { offset: number; length: number }[]): DirtyMap {
  const map = new DirtyMap(BYTES);
  for (const { offset, length } of ranges) map.mark(offset, length);
  return map;
}

function bits(map: DirtyMap): boolean[] {
  return Array.from({ length: map.chunks }, (_, chunk) => map.has(chunk));
}

describe('disk: the dirty map', () => {
  it('has the chunks that were touched, and no others', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(range, fc.boolean()), { maxLength: 12 }), (steps) => {
        const map = new DirtyMap(BYTES);
        const model = new Array<boolean>(CHUNKS).fill(false);
        for (const [{ offset, length }, isSet] of steps) {
          if (isSet) map.mark(offset, length);
          else map.clear(offset, length);
          for (let octet = offset; octet < offset + length; octet += 512)
            model[Math.floor(octet / CHUNK_BYTES)] = isSet;
          if (length > 0) model[Math.floor((offset + length - 1) / CHUNK_BYTES)] = isSet;
        }
        expect(bits(map)).to.deep.equal(model);
        expect(map.count()).to.equal(model.filter(Boolean).length);
        expect(map.isEmpty).to.equal(!model.includes(true));
        const short = model[CHUNKS - 1] === true ? 1000 : 0;
        expect(map.octets()).to.equal(map.count() * CHUNK_BYTES - short);
        const again = marked([...map.runs()]);
        expect(bits(again)).to.deep.equal(model);
      }),
    );
  });

  it('gives its runs in pieces of a length, from anywhere', () => {
    const map = marked([{ offset: 3 * CHUNK_BYTES, length: 5 * CHUNK_BYTES }]);
    expect(map.nextRun(0, 2 * CHUNK_BYTES)).to.deep.equal({
      offset: 3 * CHUNK_BYTES,
      length: 2 * CHUNK_BYTES,
    });
    expect(map.nextRun(5 * CHUNK_BYTES)).to.deep.equal({
      offset: 5 * CHUNK_BYTES,
      length: 3 * CHUNK_BYTES,
    });
    expect(map.nextRun(8 * CHUNK_BYTES)).to.equal(null);
    expect(map.nextRun(CHUNKS * CHUNK_BYTES)).to.equal(null);
    map.markAll();
    expect(map.octets()).to.equal(BYTES);
  });

  it('is the union of two', () => {
    fc.assert(
      fc.property(fc.array(range, { maxLength: 5 }), fc.array(range, { maxLength: 5 }), (some, others) => {
        const map = marked(some);
        map.or(marked(others));
        expect(bits(map)).to.deep.equal(bits(marked([...some, ...others])));
      }),
    );
    expect(() => new DirtyMap(1).or(new DirtyMap(2))).to.throw(RangeError);
    expect(() => new DirtyMap(BYTES, new Uint32Array(1))).to.throw(RangeError);
  });

  it('comes off the wire as it went', () => {
    fc.assert(
      fc.property(fc.array(range, { maxLength: 12 }), (ranges) => {
        const map = marked(ranges);
        expect(bits(DirtyMap.decode(map.encode(), BYTES))).to.deep.equal(bits(map));
      }),
    );
    expect(new DirtyMap(BYTES).encode()).to.have.lengthOf(0);
    const large = new DirtyMap(2 ** 46);
    large.markAll();
    expect([...large.encode()]).to.deep.equal([0, 0x80, 0x80, 0x80, 0x80, 4]);
    expect(DirtyMap.decode(large.encode(), 2 ** 46).octets()).to.equal(2 ** 46);
  });

  it('takes from the wire what encode() gives, and refuses all else', () => {
    const refused: readonly (readonly [string, number[]])[] = [
      ['does not end', [0]],
      ['does not end', [0, 0x80]],
      ['does not end', [0, 1, 3]],
      ['does not end', [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
      ['longer than it need be', [0, 0x81, 0]],
      ['no length', [1, 0]],
      ['no length', [0, 1, 0, 1]],
      ['beyond the end', [100, 101]],
      ['beyond the end', [0xc9, 1, 1]],
    ];
    for (const [why, octets] of refused) {
      expect(() => DirtyMap.decode(Uint8Array.from(octets), BYTES), why).to.throw(DiskError, why);
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), (octets) => {
        try {
          expect([...DirtyMap.decode(octets, BYTES).encode()]).to.deep.equal([...octets]);
        } catch (error) {
          if (!(error instanceof DiskError)) throw error;
          expect(error.code).to.equal('BAD_MAP');
        }
      }),
      { numRuns: 2000 },
    );
  });
});
