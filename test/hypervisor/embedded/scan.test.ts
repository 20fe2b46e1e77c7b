// The dirty scan finds exactly what a comparison of every octet finds.

import { expect } from 'chai';
import fc from 'fast-check';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import { openEmbeddedSource } from '../../../src/hypervisor/embedded/index.js';
import { DirtyScan, type Ram } from '../../../src/hypervisor/embedded/scan.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { MIB, Console } from '../support.js';
import { builtin, copyRam } from './support.js';

function differing(before: Buffer, after: Buffer): number[] {
  const pfns: number[] = [];
  for (let pfn = 0; pfn * PAGE_SIZE < before.length; pfn++) {
    const start = pfn * PAGE_SIZE;
    if (!before.subarray(start, start + PAGE_SIZE).equals(after.subarray(start, start + PAGE_SIZE))) {
      pfns.push(pfn);
    }
  }
  return pfns;
}

function bits(bitmap: Bitmap): number[] {
  const found: number[] = [];
  for (let pfn = bitmap.next(0); pfn >= 0; pfn = bitmap.next(pfn + 1)) found.push(pfn);
  return found;
}

describe('embedded: the dirty scan', () => {
  it('agrees with a comparison of every octet, cleaning or peeking', () => {
    const size = 512 * 1024;
    const write = fc.record({ at: fc.nat(size - 1), octet: fc.nat(255) });
    const round = fc.record({ writes: fc.array(write, { maxLength: 20 }), clean: fc.boolean() });
    fc.assert(
      fc.property(fc.array(write), fc.array(round, { maxLength: 6 }), (first, rounds) => {
        const memory = new ArrayBuffer(size);
        const ram: Ram = { octets: Buffer.from(memory), words: new Uint32Array(memory) };
        for (const { at, octet } of first) ram.octets[at] = octet;
        const scan = new DirtyScan(ram);
        let clean = Buffer.from(ram.octets);
        const bitmap = new Bitmap(size / PAGE_SIZE);
        for (const { writes, clean: cleaning } of rounds) {
          for (const { at, octet } of writes) ram.octets[at] = octet;
          const expected = differing(clean, ram.octets);
          bitmap.setAll(); // what was in it before does not matter
          expect(scan.scan(ram, bitmap, cleaning)).to.equal(expected.length);
          expect(bits(bitmap)).to.deep.equal(expected);
          if (cleaning) clean = Buffer.from(ram.octets);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('does so in a machine that runs', async () => {
    const machine = await openEmbeddedSource(builtin({ dirtyPages: 100, workingSetPages: 512, tickMs: 10 }));
    try {
      const screen = new Console(machine);
      await machine.start();
      await screen.untilText('tick 2 ok\n');
      await machine.suspend();
      await machine.enableLogDirty();
      let clean = await copyRam(machine);
      const bitmap = new Bitmap((16 * MIB) / PAGE_SIZE);
      for (let epoch = 0; epoch < 10; epoch++) {
        await machine.resume();
        // Of the first tick to come the pages may have been rewritten before the suspend.
        const said = screen.ticks().length;
        await screen.until(() => screen.ticks().length > said + 1);
        await machine.suspend();
        const ram = await copyRam(machine);
        const expected = differing(clean, ram);
        expect(expected.length).to.be.greaterThan(90);
        expect(await machine.peekLogDirty(bitmap)).to.deep.equal({
          dirtyCount: expected.length,
          faultCount: 0,
        });
        expect(bits(bitmap)).to.deep.equal(expected);
        // Two at once do not mix.
        const second = new Bitmap(bitmap.size);
        await Promise.all([machine.cleanLogDirty(bitmap), machine.cleanLogDirty(second)]);
        expect(bits(bitmap)).to.deep.equal(expected);
        expect(second.count()).to.equal(0);
        clean = ram;
      }
      await machine.disableLogDirty();
    } finally {
      await machine.destroy();
    }
  });
});
