// The promise of the prefix, with disks: wherever the stream is cut, memory and disks are those of the last checkpoint that
// was whole.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import {
  difference,
  imagesBefore,
  recordDisks,
  restoreDisks,
  type DiskRecording,
} from '../save/disk-support.js';
import { seeded } from '../stream/streams.js';
import { LONG } from '../support/length.js';

/** Small, so that the stream is. */
const DISKS = [
  { id: 'root', bytes: 65_536 + 1024 },
  { id: 'data', bytes: 4096 },
];
/** Of a record: where everything is said that may be wrong. */
const HEAD_BYTES = 40;

for (const emulator of [false, true]) {
  describe(`a stream with disks of a domain ${emulator ? 'with' : 'without'} a device model that is cut`, () => {
    let recording: DiskRecording;
    let recordOffsets: readonly number[];
    before(async () => {
      recording = await recordDisks({ seed: 11, checkpoints: 5, turns: 1, disks: DISKS, emulator });
      recordOffsets = offsetsOf(recording.octets);
    });

    async function expectPrefix(cut: number, chunk: number): Promise<void> {
      const { octets, boundaries, snapshots } = recording;
      const whole = boundaries.filter(({ offset, end }) => !end && offset <= cut).length;
      const images = imagesBefore(recording, () => 0);
      const restored = await restoreDisks(octets.subarray(0, cut), images, { chunk, emulator });
      expect(restored.after).to.have.lengthOf(whole);
      if (whole === 0) {
        expect(restored.outcome).to.be.instanceOf(RomulusError);
        expect(images.record).to.be.oneOf([null, 'in between']);
        return;
      }
      const complete = { kind: 'complete', epochs: whole };
      const failover = { kind: 'failover', epoch: whole - 1 };
      expect(restored.outcome).to.deep.equal(cut === octets.length ? complete : failover);
      const is = { memory: restored.domain.memoryCopy(), disks: images.imageCopies() };
      expect(difference(is, snapshots[whole - 1]), `cut at ${cut}`).to.equal(null);
      expect(images.record).to.deep.equal({ streamUuid: 'one', epoch: whole - 1 });
    }

    it('in the head of each record, and around its end, has the disks of the last whole checkpoint', async () => {
      const { octets } = recording;
      const cuts = new Set<number>([octets.length]);
      for (const offset of recordOffsets) {
        for (let cut = offset - 8; cut < offset + HEAD_BYTES; cut++) cuts.add(cut);
      }
      const all = [...cuts].filter((cut) => cut >= 0 && cut <= octets.length);
      expect(all.length).to.be.greaterThan(1000);
      for (const cut of all) await expectPrefix(cut, 100_000);
    }).timeout(120_000);

    it(`at ${LONG ? 'every offset' : '1,000 random offsets'} does too`, async () => {
      const { length } = recording.octets;
      const random = seeded(4);
      const count = LONG ? length : 1000;
      for (let n = 0; n < count; n++) await expectPrefix(LONG ? n : random(length), 1 + random(100_000));
    }).timeout(LONG ? 3_600_000 : 60_000);
  });
}

function offsetsOf(octets: Uint8Array): number[] {
  const reader = new RecordReader();
  reader.push(octets);
  const offsets: number[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) offsets.push(record.offset);
  return offsets;
}
