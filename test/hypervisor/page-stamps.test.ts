import { expect } from 'chai';
import fc from 'fast-check';
import { PageStamps, SLAB_PAGES, openSlab } from '../../src/hypervisor/page-stamps.js';
import { PAGE_SIZE } from '../../src/stream/format.js';
import { MemoryDomain } from '../memory/domain.js';

const PAGES = SLAB_PAGES + 50;

async function stamped(domain: MemoryDomain): Promise<PageStamps> {
  const stamps = new PageStamps(PAGES);
  const slab = openSlab();
  for (let first = 0; first < PAGES; first += SLAB_PAGES) {
    const count = Math.min(SLAB_PAGES, PAGES - first);
    const frames = Uint32Array.from({ length: count }, (_, k) => first + k);
    await domain.copyPages(frames, count, new Uint8Array(slab.buffer), 0);
    stamps.note(frames, count, slab);
  }
  return stamps;
}

describe('hypervisor: pages that have changed', () => {
  it('are those that were written, each once, wherever in the page', async () => {
    const writes = fc.uniqueArray(
      fc.tuple(fc.nat(PAGES - 1), fc.nat(PAGE_SIZE - 1), fc.integer({ min: 1, max: 255 })),
      {
        selector: ([pfn]) => pfn,
        maxLength: 40,
      },
    );
    const property = fc.asyncProperty(writes, async (written) => {
      const domain = new MemoryDomain({ pages: PAGES });
      const stamps = await stamped(domain);
      for (const [pfn, offset, value] of written) domain.write(pfn, Uint8Array.of(value), offset);
      const changed = await stamps.changed(domain);
      const expected = written.map(([pfn]) => pfn).sort((a, b) => a - b);
      const found: number[] = [];
      for (let pfn = changed.next(0); pfn >= 0; pfn = changed.next(pfn + 1)) found.push(pfn);
      expect(found).to.deep.equal(expected);
      expect((await stamps.changed(domain)).count()).to.equal(0);
    });
    await fc.assert(property, { numRuns: 30 });
  });

  it('among those that are named, and no more of them than are wanted', async () => {
    const domain = new MemoryDomain({ pages: PAGES });
    const stamps = await stamped(domain);
    for (const pfn of [3, SLAB_PAGES + 3]) domain.write(pfn, Uint8Array.of(1));
    const changed = await stamps.changed(domain);
    domain.write(3, Uint8Array.of(2));
    domain.write(SLAB_PAGES + 3, Uint8Array.of(2));
    domain.write(7, Uint8Array.of(2));
    let reads = 0;
    domain.script = (call) => {
      if (call === 'copyPages') reads++;
    };
    const again = await stamps.changed(domain, { among: changed, most: 1 });
    expect(again.has(3)).to.equal(true);
    expect(again.has(7)).to.equal(false);
    expect(reads).to.equal(1);
  });
});
