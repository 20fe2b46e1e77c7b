// What is saved is what is restored: every kind of save, into every size of slab.

import { expect } from 'chai';
import fc from 'fast-check';
import { MemoryDomain } from '../memory/domain.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { saveDomain } from '../../src/save/save.js';
import { driver, firstDifference, pagePattern, RecordingSink, sourceOf, targetFor } from './support.js';

describe('save and restore', () => {
  it('of a plain domain that is not live', async () => {
    const domain = new MemoryDomain({
      pages: 300,
      holes: [7, 299],
      context: Uint8Array.of(1, 2, 3),
      params: [{ index: 19n, value: 1n }],
      tsc: { mode: 1, khz: 2_000_000, nsec: 77n, incarnation: 3 },
      cpuPolicy: { cpuid: new Uint8Array(48).fill(3), msrs: new Uint8Array(16).fill(4) },
    });
    for (let pfn = 0; pfn < 299; pfn++) if (pfn !== 7) domain.write(pfn, pagePattern(pfn, 0));
    await domain.start();
    const sink = new RecordingSink();
    const result = await saveDomain({
      domain,
      sink,
      streamType: 'plain',
      live: false,
      callbacks: driver({ domain, checkpoints: 0 }),
    });
    expect(result).to.deep.equal({
      ended: 'complete',
      checkpoints: 0,
      bytes: sink.bytes,
      suspendedFlushes: 0,
    });
    expect(sink.boundaries).to.deep.equal([{ epoch: 0, end: true, offset: sink.bytes }]);
    expect(domain.state).to.equal('suspended');

    const target = targetFor(300);
    const outcome = await restoreDomain({
      domain: target,
      source: sourceOf(sink.octets()),
      streamType: 'plain',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    expect(outcome).to.deep.equal({ kind: 'complete', epochs: 0 });
    expect(firstDifference(domain, target)).to.equal(-1);
    expect(target.context).to.deep.equal(domain.context);
    expect(target.params).to.deep.equal(domain.params);
    expect(target.tsc).to.deep.equal(domain.tsc);
    expect(target.policy).to.deep.equal(domain.policy);
  });

  it('of checkpoints, with any memory, dirty pages, slabs and windows', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          pages: fc.integer({ min: 1, max: 120 }),
          checkpoints: fc.integer({ min: 1, max: 6 }),
          slabPages: fc.integer({ min: 1, max: 200 }),
          slabCount: fc.integer({ min: 1, max: 3 }),
          live: fc.boolean(),
          emulator: fc.boolean(),
          early: fc.boolean(),
          seed: fc.integer(),
        }),
        async ({ pages, checkpoints, slabPages, slabCount, live, emulator, early, seed }) => {
          let state = seed;
          const random = (below: number): number => {
            state = (Math.imul(state, 1664525) + 1013904223) | 0;
            return (state >>> 8) % below;
          };
          const holes = [random(pages)];
          const domain = new MemoryDomain({ pages, holes, emulator, context: Uint8Array.of(0) });
          const touch = (generation: number): void => {
            for (let n = random(2 * pages); n > 0; n--) {
              const pfn = random(pages);
              if (domain.populated.has(pfn)) domain.write(pfn, pagePattern(pfn, generation));
            }
          };
          touch(0);
          await domain.start();
          const snapshots: { memory: Uint8Array; context: Uint8Array; emulatorState: Uint8Array }[] = [];
          const sink = new RecordingSink();
          const callbacks = driver({
            domain,
            checkpoints,
            early,
            suspended(epoch) {
              // Small enough for the slab's rest, or not.
              domain.context = new Uint8Array(1 + random(epoch % 2 === 0 ? 100 : 20_000)).fill(epoch);
              if (emulator) {
                domain.emulatorState = new Uint8Array(1 + random(epoch % 3 === 0 ? 100 : 20_000)).fill(epoch);
              }
              const { context, emulatorState } = domain;
              snapshots.push({ memory: domain.memoryCopy(), context, emulatorState });
            },
            between: (epoch) => {
              touch(epoch + 1);
            },
          });
          // The guest writes between any two calls of the live passes too.
          domain.script = (call) => {
            if (call === 'copyPages' && domain.state === 'running') touch(1000);
          };
          const result = await saveDomain({
            domain,
            sink,
            streamType: 'remus',
            live,
            callbacks,
            slabBytes: 24 + slabPages * 4104,
            slabCount,
          });
          expect(result.ended).to.equal('finished');
          expect(result.bytes).to.equal(sink.bytes);
          expect(domain.loggingDirty).to.equal(false);
          expect(callbacks.saved.map(({ epoch }) => epoch)).to.deep.equal([...Array(checkpoints).keys()]);
          expect(sink.boundaries.map(({ epoch, end }) => [epoch, end])).to.deep.equal([
            ...[...Array(checkpoints).keys()].map((epoch) => [epoch, false]),
            [checkpoints, true],
          ]);

          const target = targetFor(pages, emulator);
          const committed: number[] = [];
          const outcome = await restoreDomain({
            domain: target,
            source: sourceOf(sink.octets(), 1 + random(20_000)),
            streamType: 'remus',
            callbacks: {
              checkpoint: () => Promise.resolve('success'),
              applied({ epoch }) {
                committed.push(epoch);
                const snapshot = snapshots[epoch];
                expect(Buffer.compare(target.memory, snapshot?.memory ?? new Uint8Array(0))).to.equal(0);
              },
            },
          });
          expect(outcome).to.deep.equal({ kind: 'complete', epochs: checkpoints });
          expect(committed).to.deep.equal([...Array(checkpoints).keys()]);
          expect(target.context).to.deep.equal(snapshots.at(-1)?.context);
          expect(target.emulatorState).to.deep.equal(snapshots.at(-1)?.emulatorState);
          expect(target.populated.has(holes[0] ?? 0)).to.equal(false);
        },
      ),
      { numRuns: 100 },
    );
  });
});
