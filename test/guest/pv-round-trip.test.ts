// PV guests of every make, saved in every way while they change their memory and page tables, and restored among
// other frames.

import { expect } from 'chai';
import fc from 'fast-check';
import { MemoryMachine, shuffledFrames } from '../memory/machine.js';
import { buildPvGuest } from '../memory/pv-builder.js';
import { MemoryPvDomain } from '../memory/pv-domain.js';
import { PvGuestKernel } from '../memory/pv-guest.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { saveDomain } from '../../src/save/save.js';
import { driver, RecordingSink } from '../save/support.js';
import { readPvImage } from './pv-image.js';
import { expectImage, expectSameSnapshot, type PvSnapshot, snapshotOf } from './pv-snapshot.js';
import { endpointsOfTests, expectSameDomain, privateSource } from './pv-support.js';

const guests = fc.record({
  width: fc.constantFrom(4 as const, 8 as const),
  p2m: fc.constantFrom('tree' as const, 'list' as const),
  pfns: fc.integer({ min: 60, max: 1300 }),
  vcpus: fc.integer({ min: 1, max: 3 }),
  holes: fc.uniqueArray(fc.nat(1299), { maxLength: 20 }),
  pinnedTables: fc.nat(3),
  scattered: fc.boolean(),
  seed: fc.integer(),
  way: fc.constantFrom('still' as const, 'live' as const, 'remus' as const, 'live remus' as const),
  slabPages: fc.integer({ min: 5, max: 300 }),
});

function scatter(count: number, seed: number): number[] {
  // The same shuffle serves pfns, moved to begin at 0.
  return shuffledFrames(count + 16, seed).map((frame) => frame - 16);
}

describe('PV guests', () => {
  it('of any make and saved in any way are the same domain among other frames', async function () {
    this.timeout(60_000);
    await fc.assert(
      fc.asyncProperty(guests, async (make) => {
        const { width, pfns, vcpus, seed } = make;
        let state = seed;
        const random = (below: number): number => {
          state = (Math.imul(state, 1664525) + 1013904223) | 0;
          return (state >>> 8) % below;
        };
        const frames = pfns + 40;
        const machine = new MemoryMachine({ frames, order: shuffledFrames(frames, seed) });
        const domain = new MemoryPvDomain({
          machine,
          pages: pfns,
          width,
          vcpus,
          tsc: { mode: 1, khz: 2_700_000, nsec: 5n, incarnation: 2 },
          cpuPolicy: { cpuid: new Uint8Array(48).fill(3), msrs: new Uint8Array(16).fill(4) },
        });
        const { kernel, dataPfns, tables } = buildPvGuest(domain, {
          pfns,
          p2m: make.p2m,
          holes: make.holes.filter((pfn) => pfn < pfns - 40 && pfn < pfns),
          pinnedTables: make.pinnedTables,
          seed,
          ...(make.scattered ? { place: scatter(pfns, seed ^ 5) } : {}),
        });
        domain.guest = kernel;
        await domain.start();

        const leaves = [...tables].filter(([, level]) => level === 1).map(([pfn]) => pfn);
        const touch = (): void => {
          for (let n = random(30); n > 0; n--) {
            const pfn = dataPfns[random(dataPfns.length)] ?? 0;
            domain.write(pfn, Uint8Array.of(random(256), random(256)), random(4000));
          }
          // An entry of a page table maps another page of the guest, read-only. (The first ones may map the p2m.)
          const mfn = domain.mfnOf(dataPfns[random(dataPfns.length)] ?? 0);
          const entry = new Uint8Array(8);
          new DataView(entry.buffer).setBigUint64(0, (BigInt(mfn) << 12n) | 0x21n, true);
          domain.write(leaves[random(leaves.length)] ?? 0, entry, (8 + random(504)) * 8);
        };
        domain.script = (call) => {
          if (call === 'copyPages' && domain.state === 'running') touch();
        };
        const remus = make.way.endsWith('remus');
        const checkpoints = remus ? 3 : 0;
        const snapshots: PvSnapshot[] = [];
        const sink = new RecordingSink();
        await saveDomain({
          domain,
          sink,
          streamType: remus ? 'remus' : 'plain',
          live: make.way.startsWith('live'),
          slabBytes: 24 + make.slabPages * 4104,
          callbacks: driver({
            domain,
            checkpoints,
            suspended: () => snapshots.push(snapshotOf(domain)),
            between: touch,
          }),
        });
        domain.script = null;
        expect(machine.openMappings).to.equal(0);
        expect(domain.loggingDirty).to.equal(false);
        const octets = sink.octets();
        for (const [i, snapshot] of snapshots.entries()) expectImage(readPvImage(octets, i + 1), snapshot);

        const other = new MemoryMachine({ frames: frames + 7, order: shuffledFrames(frames + 7, seed + 1) });
        const target = new MemoryPvDomain({ machine: other, pages: pfns, vcpus });
        const endpoints = endpointsOfTests();
        const outcome = await restoreDomain({
          domain: target,
          source: privateSource(octets, 1000 + random(100_000)),
          streamType: remus ? 'remus' : 'plain',
          endpoints,
          callbacks: { checkpoint: () => Promise.resolve('success') },
        });
        expect(outcome).to.deep.equal({ kind: 'complete', epochs: checkpoints });
        expect(other.openMappings).to.equal(0);
        expect(target.tsc).to.deep.equal(domain.tsc);
        expect(target.policy).to.deep.equal(domain.policy);
        expect(target.pv.grants).to.deep.equal({
          consoleMfn: endpoints.consoleGfn,
          xenstoreMfn: endpoints.xenstoreGfn,
          consoleDomid: 3,
          xenstoreDomid: 4,
        });

        target.guest = new PvGuestKernel(target, kernel.plan);
        await target.start();
        const again = new RecordingSink();
        await saveDomain({
          domain: target,
          sink: again,
          streamType: 'plain',
          live: false,
          callbacks: driver({ domain: target, checkpoints: 0 }),
        });
        const image = readPvImage(octets);
        expectSameDomain(image, readPvImage(again.octets()), target, kernel.plan);
        const { p2m, p2mPfns, startInfoPfn } = kernel.plan;
        const lists = p2m.kind === 'tree' ? [p2m.topPfn, ...p2m.listPfns] : [];
        const consolePfn = other.pfnOf(endpoints.consoleGfn);
        const last = snapshots.at(-1) ?? expect.fail('never suspended');
        expectSameSnapshot(
          last,
          snapshotOf(target),
          new Set([startInfoPfn, consolePfn, ...p2mPfns, ...lists]),
        );
        await target.destroy();
        expect(other.freeFrames).to.equal(frames + 7 - 16);
      }),
      { numRuns: 60 },
    );
  });
});
