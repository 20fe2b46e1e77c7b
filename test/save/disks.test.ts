// Disks in a checkpointed stream, from a guest that writes all the while to images that are restored: after each commit
// they equal the disks as of that pause.

import { expect } from 'chai';
import fc from 'fast-check';
import { recordDisks, imagesBefore, restoreDisks, difference } from './disk-support.js';
import { seeded } from '../stream/streams.js';

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
});
