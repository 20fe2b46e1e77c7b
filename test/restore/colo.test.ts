// COLO, the restorer's side by itself: Xen's stream applied, and the back channel that Xen's restorer wrote.

import { expect } from 'chai';
import type { RomulusError } from '../../src/errors.js';
import { MemoryDomain } from '../memory/domain.js';
import { ChunkSource } from '../../src/restore/file-source.js';
import type { ColoRestoreOptions } from '../../src/restore/callbacks.js';
import { type RestoreOptions, type RestoreOutcome, restoreDomain } from '../../src/restore/restore.js';
import { PAGE_SIZE, RecordType } from '../../src/stream/format.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import { decodeDirtyPfnList } from '../../src/stream/records/dirty-pfns.js';
import { encodeRecord } from '../../src/stream/writer.js';
import { readFixture } from '../fixtures/xen.js';
import { pagePattern, RecordingSink, sourceOf } from '../save/support.js';
import { expectSameBytes } from '../stream/streams.js';
import { record, replay } from './recorded.js';

/** What Xen's streams walk: 4 GiB less the 16 MiB below it. */
const XEN_PAGES = 0xff000;

function backLists(octets: Uint8Array): Uint32Array[] {
  const reader = new RecordReader({ withoutHeaders: true });
  reader.push(octets);
  const lists: Uint32Array[] = [];
  for (let one = reader.next(); one !== null; one = reader.next()) lists.push(decodeDirtyPfnList(one));
  return lists;
}

/** A secondary that starts and resumes, and takes the next checkpoint at once. */
function secondary(domain: MemoryDomain, back: RecordingSink): ColoRestoreOptions {
  return {
    dirtyLog: domain,
    back,
    async postcopy() {
      await (domain.state === 'created' ? domain.start() : domain.resume());
      return 'success';
    },
    waitCheckpoint: () => Promise.resolve('success'),
    async suspend() {
      await domain.suspend();
      return 'success';
    },
  };
}

describe('a COLO restore', () => {
  it('applies what Xen wrote, and answers with what Xen’s restorer answered, octet for octet', async () => {
    const octets = readFixture('hvm-colo-6ckpt.libxc');
    const xensBack = readFixture('hvm-colo-back.libxc');
    const lists = backLists(xensBack);
    const domain = new MemoryDomain({ pages: XEN_PAGES, empty: true });
    const back = new RecordingSink();
    const base = secondary(domain, back);
    const endpoints: number[][] = [];
    let completed = 0;
    const outcome = await restoreDomain({
      domain,
      source: sourceOf(octets),
      streamType: 'colo',
      callbacks: { checkpoint: () => Promise.resolve('success') },
      colo: {
        ...base,
        restoreResults({ xenstoreGfn, consoleGfn }) {
          endpoints.push([xenstoreGfn, consoleGfn]);
          completed++;
          if (completed < 6) return Promise.resolve();
          // All that the secondary wrote itself was overwritten again.
          const expected = replay(octets, XEN_PAGES, 6);
          for (let pfn = domain.populated.next(0); pfn >= 0; pfn = domain.populated.next(pfn + 1)) {
            const page = expected.memory.subarray(pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE);
            expect(Buffer.compare(domain.page(pfn), page), `pfn ${pfn}`).to.equal(0);
          }
          expect(domain.context).to.deep.equal(expected.context);
          return Promise.resolve();
        },
        waitCheckpoint() {
          const list = lists[completed - 1];
          for (const pfn of list ?? []) domain.write(pfn, pagePattern(pfn, completed));
          return Promise.resolve(list === undefined ? 'failover' : 'success');
        },
      },
    });
    expect(outcome).to.deep.equal({ kind: 'failover', epoch: 5 });
    // Every time, where Xen puts a PVH guest's rings: the last pages below its special ones.
    expect(endpoints).to.deep.equal(Array.from({ length: 6 }, () => [0xfeffc, 0xfefff]));
    expect(domain.state).to.equal('running');
    expect(domain.populated.count()).to.be.greaterThan(1000);
    expectSameBytes(back.octets(), xensBack);
  });

  async function small(change: Partial<RestoreOptions>, octets?: Uint8Array): Promise<RestoreOutcome> {
    const recorded = await record('libxc', 6, 3, 2);
    const domain = new MemoryDomain({ pages: 6, empty: true });
    return restoreDomain({
      domain,
      source: sourceOf(octets ?? recorded.octets),
      streamType: 'colo',
      callbacks: { checkpoint: () => Promise.resolve('success') },
      colo: secondary(domain, new RecordingSink()),
      ...change,
    });
  }

  async function codeOfFailure(work: Promise<unknown>): Promise<string> {
    try {
      await work;
    } catch (error) {
      return (error as RomulusError).code;
    }
    return 'it did not fail';
  }

  it('takes a stream with an end: the domain is suspended then', async () => {
    const domain = new MemoryDomain({ pages: 6, empty: true });
    const back = new RecordingSink();
    expect(await small({ domain, colo: secondary(domain, back) })).to.deep.equal({
      kind: 'complete',
      epochs: 3,
    });
    expect(domain.state).to.equal('suspended');
    expect(domain.loggingDirty).to.equal(false);
    expect(back.boundaries).to.deep.equal(
      [1, 2, 3].map((epoch) => ({ epoch, end: false, offset: epoch * 8 })),
    );
  });

  it('does not believe a suspend callback that did not suspend', async () => {
    const domain = new MemoryDomain({ pages: 6, empty: true });
    const colo: ColoRestoreOptions = {
      ...secondary(domain, new RecordingSink()),
      suspend: () => Promise.resolve('success'),
    };
    expect(await codeOfFailure(small({ domain, colo }))).to.equal('NOT_SUSPENDED');
    expect(domain.loggingDirty).to.equal(false);
  });

  it('drops a checkpoint of bad bytes, and one that is larger than may be buffered, and runs on', async () => {
    const { octets, boundaries } = await record('libxc', 6, 3, 2);
    const after = boundaries[0]?.offset ?? 0;
    const cases: [Uint8Array, string, Partial<RestoreOptions>][] = [
      [encodeRecord(0x77), 'UNKNOWN_RECORD', {}],
      // The list goes the other way only.
      [encodeRecord(RecordType.CHECKPOINT_DIRTY_PFN_LIST, new Uint8Array(8)), 'UNKNOWN_RECORD', {}],
      [encodeRecord(RecordType.PAGE_DATA, new Uint8Array(4)), 'BAD_RECORD', {}],
      [octets.subarray(after), 'BUFFER_LIMIT', { bufferLimitBytes: 4096 }],
    ];
    for (const [bad, code, change] of cases) {
      const domain = new MemoryDomain({ pages: 6, empty: true });
      const stream = new Uint8Array(Buffer.concat([octets.subarray(0, after), bad]));
      const colo = secondary(domain, new RecordingSink());
      const outcome = await small({ ...change, domain, colo }, stream);
      expect(outcome).to.include({ kind: 'failover', epoch: 0 });
      expect(outcome).to.have.nested.property('cause.code', code);
      expect(domain.state).to.equal('running');
      expect(domain.loggingDirty).to.equal(false);
      expect(Buffer.compare(domain.memory, replay(octets, 6, 1).memory)).to.equal(0);
    }
  });

  it('is refused without what COLO needs', async () => {
    const domain = new MemoryDomain({ pages: 6, empty: true });
    const octets = new Uint8Array(0);
    const refused = restoreDomain({
      domain,
      source: sourceOf(octets),
      streamType: 'colo',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    expect(await codeOfFailure(refused)).to.equal('BAD_OPTIONS');
    expect(domain.calls).to.equal(0);
  });

  it('asks a source without headers for none', async () => {
    async function* nothing(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(new Uint8Array(0));
    }
    const back = new ChunkSource(nothing(), { withoutHeaders: true });
    expect(await codeOfFailure(back.headers())).to.equal('BAD_OPTIONS');
    expect(await back.read()).to.equal(null);
  });
});
