// Twenty thousand mutated streams: whatever is done to the bytes, what comes out is a typed error or records that
// stand in the bytes exactly so, with no more memory than the bytes themselves.

import { expect } from 'chai';
import { StreamError } from '../../src/stream/error.js';
import { checkRecord } from '../../src/stream/check.js';
import { type DomainType, RECORD_HEADER_BYTES, RecordType } from '../../src/stream/format.js';
import { PageBatch, decodePageData } from '../../src/stream/page-data.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import { readFixture } from '../fixtures/xen.js';
import { readAll, seeded, shrunk } from './streams.js';

const MUTANTS = 20_000;

type Random = (below: number) => number;

/** Numbers that break length arithmetic. */
const lengths = [0, 1, 7, 8, 9, 0x1000, 0x7fffffff, 0x80000000, 0x8000000, 0x8000001, 0xfffffff8, 0xffffffff];

function mutate(
  base: Uint8Array,
  other: Uint8Array,
  boundaries: readonly number[],
  random: Random,
): Uint8Array {
  const bytes = base.slice();
  const view = new DataView(bytes.buffer);
  const boundary = boundaries[random(boundaries.length)] ?? 0;
  switch (random(6)) {
    case 0: // flips, anywhere
      for (let flips = 1 + random(4); flips > 0; flips -= 1) {
        const at = random(bytes.length);
        view.setUint8(at, view.getUint8(at) ^ (1 << random(8)));
      }
      return bytes;
    case 1: // flips, where there is structure
      view.setUint8(random(64), random(256));
      view.setUint8(Math.min(boundary + random(RECORD_HEADER_BYTES + 16), bytes.length - 1), random(256));
      return bytes;
    case 2: // another length or type
      view.setUint32(boundary + 4 * random(2), lengths[random(lengths.length)] ?? 0, true);
      return bytes;
    case 3: // a cut
      return bytes.subarray(0, random(bytes.length));
    case 4: {
      // a splice with another stream
      const from = random(other.length);
      const spliced = new Uint8Array(boundary + (other.length - from));
      spliced.set(bytes.subarray(0, boundary));
      spliced.set(other.subarray(from), boundary);
      return spliced;
    }
    default: {
      // a run dropped
      const from = random(bytes.length);
      const run = random(64);
      bytes.copyWithin(from, from + run);
      return bytes.subarray(0, Math.max(from, bytes.length - run));
    }
  }
}

/** Feeds the bytes in random chunks; returns the error's code, or 'clean'. */
function outcome(bytes: Uint8Array, random: Random, batch: PageBatch): string {
  const reader = new RecordReader();
  const chunkMost = 1 + random(8192);
  let bodies = 0;
  try {
    for (let at = 0; at < bytes.length;) {
      const length = 1 + random(chunkMost);
      reader.push(bytes.subarray(at, at + length));
      at += length;
      for (let record = reader.next(); record !== null; record = reader.next()) {
        const start = record.offset + RECORD_HEADER_BYTES;
        const end = start + record.body.length;
        if (Buffer.compare(record.body, bytes.subarray(start, end)) !== 0) {
          throw new Error(`the record at ${record.offset} is not what stands there`);
        }
        bodies += record.body.length;
        checkRecord(record, (reader.headers()?.domainType ?? 0) as DomainType);
        if (record.type === RecordType.PAGE_DATA) {
          decodePageData(record, batch);
        }
      }
    }
    reader.end();
    return 'clean';
  } catch (error) {
    if (error instanceof StreamError) {
      return error.code;
    }
    throw error;
  } finally {
    expect(bodies).to.be.at.most(bytes.length);
    expect(reader.offset + reader.pendingBytes).to.be.at.most(bytes.length);
  }
}

describe('mutated streams', () => {
  it(`${MUTANTS} mutants: a typed error or what stands in the bytes`, () => {
    const bases = [
      shrunk(readFixture('pv-remus-6ckpt.libxc'), 2),
      shrunk(readFixture('hvm-remus-6ckpt.libxc'), 2),
      shrunk(readFixture('hvm-save.libxc'), 1),
    ];
    const boundaries = bases.map((base) => readAll(base).map((record) => record.offset));
    const random = seeded(20261122);
    const batch = new PageBatch();
    const outcomes = new Map<string, number>();
    for (let index = 0; index < MUTANTS; index += 1) {
      const which = random(bases.length);
      const base = bases[which] ?? new Uint8Array(0);
      const other = bases[random(bases.length)] ?? base;
      const mutant = mutate(base, other, boundaries[which] ?? [], random);
      const code = outcome(mutant, random, batch);
      outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
    }
    // What a record claims never made the batch grow beyond what a mutant can hold.
    expect(batch.pfns.length).to.equal(1024);
    // The mutants reached each kind of end, not just the nearest one.
    expect([...outcomes.keys()]).to.include.members([
      'clean',
      'BAD_MARKER',
      'BAD_ID',
      'UNSUPPORTED_VERSION',
      'BIG_ENDIAN',
      'UNKNOWN_DOMAIN_TYPE',
      'BAD_PAGE_SHIFT',
      'RECORD_TOO_LONG',
      'BAD_RECORD',
      'UNKNOWN_PAGE_TYPE',
      'PFN_OUT_OF_RANGE',
      'TRUNCATED',
      'TRAILING_DATA',
    ]);
  });
});
