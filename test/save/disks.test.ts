// Disks in a checkpointed stream, from a guest that writes all the while to images that are restored: after each commit
// they equal the disks as of that pause.

import { expect } from 'chai';
import fc from 'fast-check';
import type { DirtyMap } from '../../src/disk/dirty-map.js';
import { saveDomain } from '../../src/save/save.js';
import { RecordType } from '../../src/stream/format.js';
import { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { readAll, seeded } from '../stream/streams.js';
import { PAGES, TWO_DISKS, recordDisks, imagesBefore, restoreDisks, difference } from './disk-support.js';
import { RecordingSink, driver } from './support.js';

describe('disks in a checkpointed stream', () => {
  it('equal, after each commit, those of the source in that pause', async () => {
    let seals = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.nat(2 ** 30),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom(8192, 40_000, 4 * 1024 * 1024),
        fc.array(fc.nat(2), { maxLength: 4 }),
        async (seed, checkpoints, losing, live, slabBytes, disturbed) => {
          const save = { live, slabBytes };
          const recording = await recordDisks({ seed, checkpoints, losing, disturbed, save });
          const random = seeded(seed + 1);
          const { after, outcome } = await restoreDisks(
            recording.octets,
            imagesBefore(recording, () => random(2)),
            { chunk: 1 + random(100_000) },
          );
          expect(outcome).to.deep.equal({ kind: 'complete', epochs: checkpoints });
          for (let epoch = 0; epoch < checkpoints; epoch++) {
            expect(difference(after[epoch], recording.snapshots[epoch]), `epoch ${epoch}`).to.equal(null);
          }
          expect(recording.source.slabsOut).to.equal(0);
          expect(recording.source.mode).to.equal('map');
          seals += recording.seals;
        },
      ),
      { numRuns: 40 },
    );
    // It was drained while it was copied.
    expect(seals).to.be.greaterThan(80);
  });

  it('are told of by epoch: whatever differs from pause to pause was told, and what was marked before', async () => {
    const told: Uint8Array[][] = [];
    let marked: readonly (DirtyMap | null)[] = [];
    const { snapshots, before, source } = await recordDisks({
      ...{ seed: 77, checkpoints: 4 },
      save: {
        disks: {
          todo: (maps) => {
            marked = maps;
            return Promise.resolve(maps.map(() => 'all'));
          },
        },
      },
      callbacks: {
        diskWrites: (epoch, { disk, extents }) => {
          const of = (told[epoch] ??= TWO_DISKS.map(({ bytes }) => new Uint8Array(bytes)));
          for (let i = 0; i < extents.count; i++) {
            const offset = extents.offsets[i] ?? NaN;
            of[disk]?.fill(1, offset, offset + (extents.lengths[i] ?? NaN));
          }
        },
      },
    });
    for (const { disk, epoch } of everyDisk(source, snapshots.length)) {
      const was = epoch === 0 ? before[disk] : snapshots[epoch - 1]?.disks[disk];
      const is = snapshots[epoch]?.disks[disk];
      let differ = 0;
      is?.forEach((octet, at) => {
        if (octet === was?.[at]) return;
        differ++;
        const isTold = told[epoch]?.[disk]?.[at] === 1;
        const isMarked = epoch === 0 && marked[disk]?.has(Math.floor(at / 65_536)) === true;
        if (!isTold && !isMarked) expect.fail(`disk ${disk} at ${at} in epoch ${epoch}`);
      });
      expect(differ).to.be.greaterThan(0);
    }
  });

  it('that is plain are left out, and left alone', async () => {
    const octets: Uint8Array[] = [];
    for (const disks of [new MemoryDisks({ disks: TWO_DISKS }), undefined]) {
      const domain = new MemoryDomain({ pages: PAGES, ...(disks && { disks }) });
      await domain.start();
      const sink = new RecordingSink();
      const callbacks = driver({ domain, checkpoints: 1 });
      await saveDomain({ domain, sink, streamType: 'plain', live: true, callbacks });
      octets.push(sink.octets());
      expect([disks?.mode ?? 'off', disks?.calls ?? []]).to.deep.equal(['off', []]);
    }
    expect(octets[0]).to.deep.equal(octets[1]);
  });

  it('stand before the memory, once, and each checkpoint’s writes before its end', async () => {
    const { octets } = await recordDisks({ seed: 3, checkpoints: 3, emulator: true });
    const types = readAll(octets).flatMap(({ type, layer }) => (layer === 'libxl' ? [] : [type]));
    const list = types.indexOf(RecordType.DISKS);
    expect(types.lastIndexOf(RecordType.DISKS)).to.equal(list);
    expect(list).to.be.greaterThan(types.indexOf(RecordType.STATIC_DATA_END));
    expect(list).to.be.lessThan(types.indexOf(RecordType.PAGE_DATA));
    const ends = types.flatMap((type, at) => (type === RecordType.CHECKPOINT ? [at] : []));
    expect(ends).to.have.lengthOf(3);
    for (const end of ends) expect(types[end - 1]).to.equal(RecordType.DISK_WRITES);
  });
});

function* everyDisk({ disks }: MemoryDisks, epochs: number) {
  for (let epoch = 0; epoch < epochs; epoch++) for (const disk of disks.keys()) yield { epoch, disk };
}
