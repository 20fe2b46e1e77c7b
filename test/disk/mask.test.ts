// A copy of a disk that is written to meanwhile, in all orders in which a read, a write and what is heard of them can
// happen: what was read and what was journaled together are the disk.
//
//   write   on the disk ──▶ heard of          read   asked ──▶ served ──▶ answered

import { expect } from 'chai';
import fc from 'fast-check';
import { Mask, type MaskedRead } from '../../src/disk/mask.js';

const OCTETS = 24;

interface Write {
  readonly offset: number;
  readonly length: number;
  readonly stamp: number;
}

interface Read {
  readonly masked: MaskedRead;
  octets: Uint8Array | null;
}

type Step =
  | { readonly kind: 'write' | 'ask'; readonly offset: number; readonly length: number }
  | { readonly kind: 'hear' | 'serve' | 'answer'; readonly which: number }
  | { readonly kind: 'pause' };

const range = fc
  .tuple(fc.nat(OCTETS), fc.nat(OCTETS))
  .map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }));
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(fc.constantFrom('write' as const, 'ask' as const), range).map(([kind, r]) => ({ kind, ...r })),
  fc.record({
    kind: fc.constantFrom('hear' as const, 'serve' as const, 'answer' as const),
    which: fc.nat(3),
  }),
  fc.constant({ kind: 'pause' as const }),
);

/** The guest's disk, the copy that is made of it, and what is under way between them. */
class Copying {
  readonly disk = new Uint8Array(OCTETS).fill(1);
  readonly copy = new Uint8Array(OCTETS).fill(0xff);
  readonly read = new Uint8Array(OCTETS);
  readonly #mask: Mask;
  readonly #unheard: Write[] = [];
  readonly #reads: Read[] = [];
  #epoch: Write[] = [];
  #stamp = 1;

  constructor(mask: Mask) {
    this.#mask = mask;
  }

  do(step: Step): void {
    switch (step.kind) {
      case 'write': {
        // Two writes to one place are never under way at once: whoever does that asks for either order.
        const end = step.offset + step.length;
        if (this.#unheard.some((other) => other.offset < end && other.offset + other.length > step.offset))
          return;
        const write = { ...step, stamp: ++this.#stamp };
        this.disk.fill(write.stamp, write.offset, end);
        this.#unheard.push(write);
        return;
      }
      case 'hear': {
        const [write] = this.#unheard.splice(step.which, 1);
        if (!write) return;
        this.#mask.cut(write.offset, write.length);
        this.#epoch.push(write);
        return;
      }
      case 'ask':
        this.#reads.push({ masked: this.#mask.begin(step.offset, step.length), octets: null });
        return;
      case 'serve': {
        const read = this.#reads[step.which];
        if (read) read.octets ??= this.disk.slice();
        return;
      }
      case 'answer': {
        const read = this.#reads[step.which];
        if (read?.octets) this.#answer(read, read.octets);
        return;
      }
      case 'pause':
        // No write is under way in a pause; reads are.
        while (this.#unheard.length > 0) this.do({ kind: 'hear', which: 0 });
        for (const { offset, length, stamp } of this.#epoch) this.copy.fill(stamp, offset, offset + length);
        this.#epoch = [];
    }
  }

  /** What was read is applied at once: that is before this epoch's writes, and after those of the epoch before. */
  #answer(read: Read, octets: Uint8Array): void {
    this.#reads.splice(this.#reads.indexOf(read), 1);
    this.#mask.end(read.masked);
    const { left } = read.masked;
    for (let i = 0; i < left.length; i += 2) {
      const [start = 0, end = 0] = left.slice(i);
      expect(end).to.be.greaterThan(start);
      this.copy.set(octets.subarray(start, end), start);
    }
    const { offset, length } = read.masked;
    this.read.fill(1, offset, offset + length);
  }

  finish(): void {
    while (this.#reads.length > 0) {
      this.do({ kind: 'serve', which: 0 });
      this.do({ kind: 'answer', which: 0 });
    }
    this.do({ kind: 'pause' });
  }

  /** What has been read at some time is as on the disk. */
  isEqual(): boolean {
    return this.disk.every((octet, at) => this.read[at] === 0 || this.copy[at] === octet);
  }
}

function property(make: () => Mask) {
  return fc.property(fc.array(step, { minLength: 1, maxLength: 60, size: 'max' }), (steps) => {
    const copying = new Copying(make());
    for (const each of steps) copying.do(each);
    copying.finish();
    return copying.isEqual();
  });
}

/** What a forgotten cut would be. */
class NoMask extends Mask {
  override cut(): void {
    // Nothing is cut.
  }
}

describe('disk: reading while it is written to', () => {
  it('what was read and what was written are the disk, whatever came when', () => {
    fc.assert(
      property(() => new Mask()),
      { numRuns: 5000 },
    );
  });

  it('which they are not without a mask', () => {
    const found = fc.check(
      property(() => new NoMask()),
      { numRuns: 5000 },
    );
    expect(found.failed).to.equal(true);
  });

  it('knows what is under way', () => {
    const mask = new Mask();
    expect(mask.isIdle).to.equal(true);
    const read = mask.begin(100, 50);
    mask.cut(120, 10);
    mask.cut(0, 101);
    mask.cut(150, 100);
    mask.cut(125, 0);
    expect(read.left).to.deep.equal([101, 120, 130, 150]);
    expect(mask.isIdle).to.equal(false);
    mask.end(read);
    expect(mask.isIdle).to.equal(true);
    expect(() => mask.end(read)).to.throw(RangeError);
    expect(mask.begin(7, 0).left).to.deep.equal([]);
  });
});
