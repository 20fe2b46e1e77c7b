// An index that is wrong is an error, whatever the array; it never becomes a value.

import { expect } from 'chai';
import fc from 'fast-check';
import { Physmap } from '../../src/guest/x86-pv/physmap.js';
import { BoundsError, valueAt } from '../../src/stream/bounds.js';
import { readUint32 } from '../../src/stream/octets.js';

function failureOf(work: () => unknown): BoundsError {
  try {
    work();
  } catch (error) {
    if (error instanceof BoundsError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('reading by an index', () => {
  it('gives the element that is there, and the error with its facts where none is', () => {
    const index = fc.oneof(fc.integer({ min: -3, max: 12 }), fc.constantFrom(NaN, 0.5, 2 ** 32));
    fc.assert(
      fc.property(fc.uint32Array({ maxLength: 10 }), index, (array, at) => {
        if (Number.isInteger(at) && at >= 0 && at < array.length) {
          expect(valueAt(array, at)).to.equal(array[at]);
        } else {
          const error = failureOf(() => valueAt(array, at));
          expect(error.code).to.equal('OUT_OF_BOUNDS');
          expect(error.facts).to.deep.equal({ index: at, length: array.length });
        }
      }),
    );
  });

  it('refuses a number that is cut off, instead of filling it with zeros', () => {
    const octets = Uint8Array.of(1, 2, 3, 4, 5);
    expect(readUint32(octets, 1)).to.equal(0x05040302);
    expect(failureOf(() => readUint32(octets, 2)).facts).to.deep.equal({ index: 5, length: 5 });
  });

  it('refuses a frame that the machine’s table should have and has not', () => {
    const physmap = new Physmap(8);
    physmap.m2p = Uint32Array.of(0, 0, 1, 0);
    physmap.maxMfn = 2;
    expect(physmap.mfnToPfn(1)).to.equal(1);
    expect(failureOf(() => physmap.mfnToPfn(2)).facts).to.deep.equal({ index: 5, length: 4 });
  });
});
