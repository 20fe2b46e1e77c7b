// Damaged PV streams and bad page-table entries at any place and time: a typed error in the right phase or a domain,
// and nothing left mapped.

import { expect } from 'chai';
import fc from 'fast-check';
import { RomulusError } from '../../src/errors.js';
import { XEN_FRAMES } from '../memory/machine.js';
import { RecordType } from '../../src/stream/format.js';
import { readAll } from '../stream/streams.js';
import { readPvImage } from './pv-image.js';
import { expectImage, snapshotOf } from './pv-snapshot.js';
import {
  PFNS,
  emptyDomain,
  failureOf,
  pageAt,
  restoreTrial,
  saveTrial,
  spoiled,
  trialGuest,
} from './pv-trial.js';

const MUTANTS = 1500;

const badEntries = fc.record({
  width: fc.constantFrom(4 as const, 8 as const),
  level: fc.integer({ min: 1, max: 3 }),
  index: fc.nat(511),
  kind: fc.constantFrom('foreign' as const, 'far' as const, 'superpage' as const),
});

/** Where an entry is the guest's own, and not what leads to the rest. */
function isFree(width: 4 | 8, level: number, index: number, isUsed: boolean): boolean {
  return !isUsed && !(width === 4 && ((level === 3 && index >= 4) || (level === 2 && index >= 428)));
}

function entryOf(kind: 'foreign' | 'far' | 'superpage', own: number): bigint {
  switch (kind) {
    case 'foreign':
      return (BigInt(XEN_FRAMES - 1) << 12n) | 1n;
    case 'far':
      return (1n << 45n) | 1n;
    case 'superpage':
      return (BigInt(own) << 12n) | 0x81n;
  }
}

describe('PV streams and guests that are spoiled', () => {
  it('by a bad entry: deferred while the guest runs, fatal when it is suspended, superpages at once', async () => {
    await fc.assert(
      fc.asyncProperty(badEntries, fc.boolean(), async ({ width, level, index, kind }, repaired) => {
        const trial = trialGuest({ width });
        const { domain, guest } = trial;
        const table = [...guest.tables].find(([, is]) => is === level)?.[0] ?? -1;
        const used = ((domain.words(table)[index * 2] ?? 0) & 1) === 1;
        fc.pre(isFree(width, level, index, used) && (kind !== 'superpage' || level > 1));
        const write = (entry: bigint): void => {
          const bytes = new Uint8Array(8);
          new DataView(bytes.buffer).setBigUint64(0, entry, true);
          domain.write(table, bytes, index * 8);
        };
        await domain.start();
        write(entryOf(kind, domain.mfnOf(guest.dataPfns[0] ?? 0)));
        let reached = false;
        const work = saveTrial(trial, {
          live: true,
          suspended: () => {
            reached = true;
            if (repaired) write(0n);
          },
        });
        if (kind === 'superpage') {
          const error = await failureOf(work);
          expect(error.code).to.equal('SUPERPAGE');
          expect(error.facts).to.include({ level, index });
          expect(reached).to.equal(false);
        } else if (repaired) {
          expectImage(readPvImage((await work).octets), snapshotOf(domain));
        } else {
          const error = await failureOf(work);
          expect(error.code).to.equal('BAD_FRAME');
          expect(error.facts).to.include({ level, index });
          expect(reached).to.equal(true);
        }
        expect(trial.machine.openMappings).to.equal(0);
      }),
      { numRuns: 60 },
    );
  });

  it('by a bad entry in the stream: refused when it is admitted', async () => {
    const streams = new Map<number, { octets: Uint8Array; tables: ReadonlyMap<number, number> }>();
    for (const width of [4, 8] as const) {
      const trial = trialGuest({ width });
      const { octets } = await saveTrial(trial);
      streams.set(width, { octets, tables: trial.guest.tables });
    }
    await fc.assert(
      fc.asyncProperty(badEntries, async ({ width, level, index, kind }) => {
        fc.pre(kind !== 'superpage' || level > 1);
        const { octets, tables } = streams.get(width) ?? expect.fail('no stream');
        const table = [...tables].find(([, is]) => is === level)?.[0] ?? -1;
        const entry = kind === 'foreign' ? (BigInt(PFNS) << 12n) | 1n : entryOf(kind, 0);
        const stream = spoiled(octets, RecordType.PAGE_DATA, (body, view) => {
          view.setBigUint64(pageAt(body, table) + index * 8, entry, true);
        });
        const target = emptyDomain();
        const error = await failureOf(restoreTrial(stream, target));
        expect(error.code).to.equal(kind === 'superpage' ? 'SUPERPAGE' : 'BAD_FRAME');
        expect(error.facts).to.include({ pfn: table, level, index, entry });
        // Before any page of the record was populated.
        expect(target.mfnOf(table)).to.equal(0xffffffff);
      }),
      { numRuns: 60 },
    );
  });

  it(`anywhere: ${MUTANTS} damaged streams restore, fail over or fail with a typed error`, async function () {
    this.timeout(60_000);
    const { octets } = await (async () => {
      const trial = trialGuest({ pfns: 60, vcpus: 2 });
      return saveTrial(trial, {
        streamType: 'remus',
        checkpoints: 3,
        between: (epoch) => {
          trial.domain.write(trial.guest.dataPfns[epoch] ?? 0, Uint8Array.of(epoch + 1));
          trial.domain.write(trial.guest.rootPfn, Uint8Array.of(0), 4088);
        },
      });
    })();
    const { hot, firstEnd } = hotOctets(octets);
    let state = 20_2611;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      return (state >>> 8) % below;
    };
    const kinds = { complete: 0, failover: 0, failed: 0 };
    for (let mutant = 0; mutant < MUTANTS; mutant++) {
      const damaged = octets.slice();
      // Half of them keep their first checkpoint.
      const from = random(2) * firstEnd;
      for (let hits = 1 + random(4); hits > 0; hits--) {
        const at = random(6) === 0 ? random(octets.length) : (hot[from + random(hot.length - from)] ?? 0);
        damaged[at] = random(2) === 0 ? (damaged[at] ?? 0) ^ (1 << random(8)) : random(256);
      }
      const target = emptyDomain({ pages: 64 });
      try {
        const outcome = await restoreTrial(damaged, target, 'remus');
        kinds[outcome.kind]++;
        expect(target.pv.vcpus[0]?.online).to.equal(true);
      } catch (error) {
        if (!(error instanceof RomulusError)) throw error;
        kinds.failed++;
      }
      expect(target.machine.openMappings).to.equal(0);
    }
    expect(kinds.complete, 'complete').to.be.greaterThan(50);
    expect(kinds.failover, 'failover').to.be.greaterThan(50);
    expect(kinds.failed, 'failed').to.be.greaterThan(50);
  });
});

/** Of a vCPU record's body: frame numbers and how many there are. */
const VCPU_FIELDS = [0, 624, 4840, 4968, 5000, 5016];

/** Where a hit hurts: headers, lists of pfns, frame numbers, and now and then an entry of a page table. */
function hotOctets(octets: Uint8Array): { readonly hot: number[]; readonly firstEnd: number } {
  const hot: number[] = [];
  let firstEnd = 0;
  const add = (from: number, length: number): void => {
    for (let at = from; at < from + length; at++) hot.push(at);
  };
  for (const { offset, type, body } of readAll(octets)) {
    add(offset, 8);
    switch (type) {
      case RecordType.PAGE_DATA: {
        const entries = 8 + new DataView(body.buffer, body.byteOffset).getUint32(0, true) * 8;
        add(offset + 8, entries);
        for (let at = entries; at < body.length; at += 4096) add(offset + 8 + at, 16);
        break;
      }
      case RecordType.X86_PV_VCPU_BASIC:
        for (const field of VCPU_FIELDS) add(offset + 8 + field, 8);
        break;
      case RecordType.CHECKPOINT:
        if (firstEnd === 0) firstEnd = hot.length;
        break;
      default:
        add(offset + 8, Math.min(body.length, 40));
        break;
    }
  }
  return { hot, firstEnd };
}
