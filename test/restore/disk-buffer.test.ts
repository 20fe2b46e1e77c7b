// The disk writes of a checkpoint that is open: in memory, then in a file, then no more.

import { mkdtemp, readdir, readlink, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { openRestore } from '../../src/restore/steps.js';
import { concatenate } from '../../src/stream/writer.js';
import { MemoryDomain } from '../memory/domain.js';
import { PAGES, TWO_DISKS, imagesBefore, recordDisks } from '../save/disk-support.js';
import { sourceOf } from '../save/support.js';
import { begin, causeOf, commit, epoch, list, trial, writes } from './disk-streams.js';

describe('disk writes of a checkpoint that do not fit into memory', () => {
  let spillDirectory: string;
  before(async () => {
    spillDirectory = await mkdtemp(path.join(tmpdir(), 'romulus-spill-'));
  });
  after(() => rm(spillDirectory, { recursive: true }));

  it('are kept in a file that nobody else sees, and applied in their order', async () => {
    const disks = TWO_DISKS;
    const recording = await recordDisks({ seed: 9, checkpoints: 5, turns: 30 });
    const images = imagesBefore(recording);
    const domain = new MemoryDomain({ pages: PAGES, empty: true, disks: images });
    const steps = await openRestore({
      ...{ domain, source: sourceOf(recording.octets, 10_000), streamType: 'remus', callbacks: {} },
      disks: { streamUuid: 'one', memoryBytes: 20_000, spillDirectory },
    });
    const sizes: number[] = [];
    for (let epochs = 0; epochs < 5; epochs++) {
      expect((await steps.receive()).kind).to.equal('checkpoint');
      sizes.push(await spilled(spillDirectory));
      expect(await readdir(spillDirectory)).to.deep.equal([]);
      await steps.commit();
      disks.forEach((_, disk) => {
        const was = recording.snapshots[epochs]?.disks[disk] ?? new Uint8Array(0);
        expect(Buffer.compare(images.image(disk), was), `disk ${disk} of epoch ${epochs}`).to.equal(0);
      });
    }
    expect(sizes[0]).to.equal(0);
    expect(Math.min(...sizes.slice(1))).to.be.greaterThan(20_000);
    await steps.close(null);
    expect(await spilled(spillDirectory)).to.equal(0);
  });

  const three = [writes(1), writes(2), writes(3)];

  it('have a limit', async () => {
    // A record takes 536 octets, 128 more in memory, 16 more in the file.
    for (const [options, count] of [
      [{ memoryBytes: 2 * 664 }, 2],
      [{ memoryBytes: 0, spillBytes: 2 * 552, spillDirectory }, 2],
      [{ memoryBytes: 664, spillBytes: 551, spillDirectory }, 1],
    ] as const) {
      const one = await trial([list(), epoch(0), ...three], options);
      await commit(one);
      const cause = await causeOf(one);
      expect([cause.code, cause.facts['records']]).to.deep.equal(['BUFFER_LIMIT', count]);
      expect(await one.steps.breakOff(cause)).to.deep.equal({ kind: 'failover', epoch: 0, cause });
      expect(await spilled(spillDirectory)).to.equal(0);
      expect(await one.steps.close(null)).to.equal(null);
      const enough = await trial([list(), epoch(0), epoch(1, ...three.slice(0, count))], options);
      await commit(enough);
      await commit(enough);
      expect(enough.first()).to.deep.equal([count, 0]);
    }
    expect(await spilled(spillDirectory)).to.equal(0);
  });

  it('have none in the first checkpoint of a stream that goes on: they are beside the images, and the next is bounded', async () => {
    const options = { memoryBytes: 664, spillBytes: 551, spillDirectory };
    const one = await trial([list(), epoch(0)], options);
    await commit(one);
    for (const stream of ['two', 'three']) {
      expect((await one.steps.receive()).kind).to.equal('broken');
      await one.steps.breakOff(null);
      expect(await one.steps.close(null)).to.equal(null);
      const records = [begin, list(), ...three, epoch(1, ...three), ...three];
      await one.steps.resume(sourceOf(concatenate(records)), stream);
      await commit(one);
      expect([one.first(), one.images.record]).to.deep.equal([[3, 0], { streamUuid: stream, epoch: 0 }]);
    }
    const cause = await causeOf(one);
    expect(cause.code).to.equal('BUFFER_LIMIT');
    expect(await one.steps.breakOff(cause)).to.deep.equal({ kind: 'failover', epoch: 0, cause });
    expect(await one.steps.close(null)).to.equal(null);
  });

  it('keep their order, whatever of them would fit', async () => {
    const disks = [writes(1), writes(2, 0, 0, 2048), writes(3), writes(5, 1)];
    const options = { memoryBytes: 1500, spillDirectory };
    const one = await trial([list(), epoch(0), epoch(1, ...disks)], options);
    await commit(one);
    await commit(one);
    const root = one.images.image(0);
    expect([root[0], root[511], root[512], root[2047], root[2048]]).to.deep.equal([3, 3, 2, 2, 0]);
    expect(one.images.image(1)[0]).to.equal(5);
    expect(await one.steps.close(null)).to.equal(null);
  });

  it('go when the steps are closed', async () => {
    const options = { memoryBytes: 0, spillDirectory };
    const one = await trial([list(), epoch(0), epoch(1, ...three)], options);
    await commit(one);
    await one.steps.receive();
    expect(await spilled(spillDirectory)).to.equal(3 * 552);
    expect(await one.steps.close(null)).to.equal(null);
    expect(await spilled(spillDirectory)).to.equal(0);
  });

  it('that cannot be kept break the channel, and the checkpoint before stands', async () => {
    const nowhere = path.join(spillDirectory, 'nowhere');
    const one = await trial([list(), epoch(0, writes(7)), ...three], {
      memoryBytes: 700,
      spillDirectory: nowhere,
    });
    await commit(one);
    const cause = await causeOf(one);
    expect(cause.code).to.equal('SPILL_FAILED');
    expect(cause.facts).to.include({ code: 'ENOENT', directory: nowhere });
    expect(await one.steps.breakOff(cause)).to.deep.equal({ kind: 'failover', epoch: 0, cause });
    expect(one.first()).to.deep.equal([7, 0]);
  });
});

/** Octets of our files in there that have no name any more. */
async function spilled(directory: string): Promise<number> {
  let bytes = 0;
  for (const fd of await readdir('/proc/self/fd')) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => '');
    if (target.startsWith(directory)) bytes += (await stat(`/proc/self/fd/${fd}`)).size;
  }
  return bytes;
}
