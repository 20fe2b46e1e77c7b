// The memory domain is as strict as a hypervisor, or what is tested on it would prove little.

import { expect } from 'chai';
import { Bitmap } from '../../src/hypervisor/bitmap.js';
import { MemoryDomain } from './domain.js';
import { HypervisorError, type DomainEvent } from '../../src/hypervisor/port.js';
import { PAGE_SIZE, PageType } from '../../src/stream/format.js';
import { expectCode } from '../hypervisor/support.js';

const frames = (...list: number[]): Uint32Array => Uint32Array.from(list);

describe('a memory domain', () => {
  it('goes through its states, and through no others', async () => {
    const domain = new MemoryDomain({ pages: 1 });
    await expectCode(domain.suspend(), 'WRONG_STATE');
    await domain.start();
    await expectCode(domain.start(), 'WRONG_STATE');
    await expectCode(domain.resume(), 'WRONG_STATE');
    await expectCode(domain.hvmContext(), 'WRONG_STATE');
    await domain.suspend();
    await expectCode(domain.suspend(), 'WRONG_STATE');
    await domain.hvmContext();
    await domain.resume();
    expect((await domain.info()).state).to.equal('running');
    domain.shutdown();
    await expectCode(domain.suspend(), 'DOMAIN_GONE');
    expect((await domain.info()).state).to.equal('shutdown');
    await domain.destroy();
    await domain.destroy();
    expect((await domain.info()).state).to.equal('destroyed');
    expect(() => new MemoryDomain({ pages: 0 })).to.throw(HypervisorError);
  });

  it('tells what it did by itself, late subscribers too', async () => {
    const domain = new MemoryDomain({ pages: 1 });
    await domain.start();
    const said: number[] = [];
    let outputEnded = false;
    domain.output$.subscribe({
      next: (bytes) => said.push(...bytes),
      complete: () => {
        outputEnded = true;
      },
    });
    domain.say(Uint8Array.of(1, 2));
    await domain.input(Uint8Array.of(3));
    expect(said).to.deep.equal([1, 2]);
    expect(domain.inputs).to.deep.equal([Uint8Array.of(3)]);
    domain.crash('oops');
    domain.shutdown();
    expect(() => domain.say(Uint8Array.of(4))).to.throw(HypervisorError);
    const events: (DomainEvent | 'end')[] = [];
    domain.events$.subscribe({ next: (event) => events.push(event), complete: () => events.push('end') });
    expect(events).to.deep.equal([{ kind: 'crashed', reason: 'oops' }]);
    await domain.destroy();
    expect(events.at(-1)).to.equal('end');
    expect(outputEnded).to.equal(true);
  });

  it('logs the pages that were written, from when it is asked to', async () => {
    const domain = new MemoryDomain({ pages: 70 });
    const seen = new Bitmap(70);
    const list = (): number[] => Array.from({ length: 70 }, (_, pfn) => pfn).filter((pfn) => seen.has(pfn));
    await expectCode(domain.cleanLogDirty(seen), 'LOG_DIRTY');
    await expectCode(domain.disableLogDirty(), 'LOG_DIRTY');
    domain.write(3, Uint8Array.of(1));
    await domain.enableLogDirty();
    await expectCode(domain.enableLogDirty(), 'LOG_DIRTY');
    domain.write(4, new Uint8Array(PAGE_SIZE + 1), PAGE_SIZE - 1);
    domain.dirty([69]);
    expect(await domain.peekLogDirty(seen)).to.deep.equal({ dirtyCount: 3, faultCount: 0 });
    expect(list()).to.deep.equal([4, 5, 69]);
    await domain.cleanLogDirty(seen);
    expect(list()).to.deep.equal([4, 5, 69]);
    expect((await domain.cleanLogDirty(seen)).dirtyCount).to.equal(0);
    expect(list()).to.deep.equal([]);
    await domain.writePages(frames(7), 1, new Uint8Array(PAGE_SIZE));
    await domain.clearPage(8);
    domain.punch(9);
    await domain.cleanLogDirty(seen);
    expect(list()).to.deep.equal([7, 8, 9]);
    await domain.disableLogDirty();
    domain.write(3, Uint8Array.of(1));
    await expectCode(domain.peekLogDirty(seen), 'LOG_DIRTY');
  });

  it('copies, writes and compares the pages that it has', async () => {
    const domain = new MemoryDomain({ pages: 6, holes: [4] });
    for (const pfn of [0, 1, 2, 3, 5]) domain.write(pfn, new Uint8Array(PAGE_SIZE).fill(pfn + 1));
    const slab = new Uint8Array(16 + 4 * PAGE_SIZE);
    await domain.copyPages(frames(5, 1, 2, 0), 4, slab, 16);
    expect([0, 1, 2, 3].map((i) => slab[16 + i * PAGE_SIZE + 4095])).to.deep.equal([6, 2, 3, 1]);
    expect(slab[15]).to.equal(0);
    await expectCode(domain.copyPages(frames(4), 1, slab, 0), 'NOT_POPULATED');
    await expectCode(domain.copyPages(frames(6), 1, slab, 0), 'FRAME_OUT_OF_RANGE');

    const types = new Uint8Array(3);
    await domain.pageTypes(frames(0, 4, 0xffffffff), 3, types);
    expect([...types]).to.deep.equal([PageType.NOTAB, PageType.XTAB, PageType.XTAB]);
    await expectCode(domain.pageTypes(frames(6), 1, types), 'FRAME_OUT_OF_RANGE');

    await domain.writePages(frames(2, 3, 0), 3, slab.subarray(16));
    expect([0, 1, 2, 3, 5].map((pfn) => domain.page(pfn)[0])).to.deep.equal([3, 2, 6, 2, 6]);
    expect(await domain.comparePages(frames(2, 1, 0), 3, slab.subarray(16))).to.deep.equal([]);
    expect(await domain.comparePages(frames(1, 1, 2), 3, slab.subarray(16))).to.deep.equal([0, 2]);
    await expectCode(domain.writePages(frames(4), 1, slab), 'NOT_POPULATED');
    await expectCode(domain.clearPage(4), 'NOT_POPULATED');

    await domain.populate(frames(4), 1, frames(0));
    await domain.writePages(frames(4), 1, slab.subarray(16));
    expect(domain.page(4)[0]).to.equal(6);
    await expectCode(domain.populate(frames(6), 1, frames(0)), 'FRAME_OUT_OF_RANGE');
  });

  it('lets a script fail any call, and act as the guest before it', async () => {
    const domain = new MemoryDomain({ pages: 2 });
    domain.script = (call, number) => {
      if (call === 'start') throw new HypervisorError('FAILED', 'as scripted', { number });
      domain.write(1, Uint8Array.of(9));
    };
    await expectCode(domain.start(), 'FAILED');
    const slab = new Uint8Array(PAGE_SIZE);
    await domain.copyPages(frames(1), 1, slab, 0);
    expect(slab[0]).to.equal(9);
    expect(domain.calls).to.equal(2);
  });
});
