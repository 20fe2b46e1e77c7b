// Streams that real Xen wrote, restored into a domain, saved from it, and restored again: the same domain.

import { expect } from 'chai';
import { MemoryDomain } from '../memory/domain.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { saveDomain } from '../../src/save/save.js';
import { readFixture } from '../fixtures/xen.js';
import { driver, RecordingSink, sourceOf } from '../save/support.js';

/** What Xen's streams walk: 4 GiB less the 16 MiB below it, of which a few MiB have memory. */
const XEN_PAGES = 0xff000;

describe('a stream of real Xen', () => {
  for (const [name, streamType] of [
    ['hvm-save.libxc', 'plain'],
    ['hvm-remus-6ckpt.libxc', 'remus'],
    // The whole files, with xl's header and libxl's records.
    ['hvm-save', 'plain'],
    ['hvm-remus-6ckpt', 'remus'],
  ] as const) {
    it(`${name} restores, and saves to the same again`, async () => {
      const first = new MemoryDomain({ pages: XEN_PAGES, empty: true });
      const applied: number[] = [];
      const outcome = await restoreDomain({
        domain: first,
        source: sourceOf(readFixture(name)),
        streamType,
        callbacks: {
          checkpoint: () => Promise.resolve('success'),
          applied: ({ epoch }) => applied.push(epoch),
        },
      });
      if (streamType === 'plain') {
        expect(outcome).to.deep.equal({ kind: 'complete', epochs: 0 });
      } else {
        expect(outcome).to.deep.equal({ kind: 'failover', epoch: 5 });
        expect(applied).to.deep.equal([0, 1, 2, 3, 4, 5]);
      }
      expect(first.context).to.have.length(2504);
      expect(first.params.size).to.be.greaterThan(3);

      await first.start();
      const sink = new RecordingSink();
      await saveDomain({
        domain: first,
        sink,
        streamType: 'plain',
        live: false,
        callbacks: driver({ domain: first, checkpoints: 0 }),
      });
      const second = new MemoryDomain({ pages: XEN_PAGES, empty: true });
      await restoreDomain({
        domain: second,
        source: sourceOf(sink.octets(), 1024 * 1024),
        streamType: 'plain',
        callbacks: { checkpoint: () => Promise.resolve('success') },
      });
      expect(second.populated.words).to.deep.equal(first.populated.words);
      expect(second.populated.count()).to.be.greaterThan(1000);
      for (let pfn = first.populated.next(0); pfn >= 0; pfn = first.populated.next(pfn + 1)) {
        expect(Buffer.compare(first.page(pfn), second.page(pfn)), `pfn ${pfn}`).to.equal(0);
      }
      expect(second.context).to.deep.equal(first.context);
      expect(second.params).to.deep.equal(first.params);
      expect(second.tsc).to.deep.equal(first.tsc);
      expect(second.policy).to.deep.equal(first.policy);
    });
  }
});
