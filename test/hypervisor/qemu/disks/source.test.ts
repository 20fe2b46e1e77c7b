// A guest with several writers, and its disk: at each pause what was copied and what was sealed together are the disk,
// octet by octet. That the comparison would find a write that is missing, late or early is shown by planting some.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { CHUNK_BYTES } from '../../../../src/disk/dirty-map.js';
import { SUM_BYTES, putSum } from '../../../../src/disk/sums.js';
import { Cleanup } from '../../../support/cleanup.js';
import { expectCode } from '../../support.js';
import { needQemu } from '../support.js';
import { BYTES, DiskLab, type LabOptions } from './lab.js';
import { LONG } from '../../../support/length.js';
import { needQemuTools } from './support.js';

const CHUNKS = BYTES / CHUNK_BYTES;

function sumsOf(content: Uint8Array): Uint8Array {
  const sums = new Uint8Array(CHUNKS * SUM_BYTES);
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    const octets = content.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
    putSum(octets, new DataView(sums.buffer), chunk * SUM_BYTES);
  }
  return sums;
}

describe('qemu disks: a guest with several writers', function () {
  this.timeout(LONG ? 300_000 : 60_000);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  const variants: (LabOptions & { readonly pauses: number })[] = [
    { format: 'raw', iothread: true, delays: true, pauses: 40 },
    { format: 'raw', iothread: false, pauses: 10 },
    { format: 'qcow2', iothread: true, pauses: 8 },
    { format: 'qcow2', iothread: false, delays: true, pauses: 8 },
  ];
  for (const options of variants) {
    const { format, iothread, delays } = options;
    const pauses = LONG ? 200 : options.pauses;
    const how = `${iothread ? 'with' : 'without'} an iothread${delays ? ', its replies late' : ''}`;
    it(`${format}, ${how}: is equal at ${pauses} pauses`, async () => {
      const lab = await DiskLab.open(cleanup, options);
      const { disks } = lab;
      const maps = await disks.keep();
      expect(maps.map((map) => map?.isEmpty)).to.deep.equal([false]);
      lab.standby.octets.fill(0xee);
      expect(await lab.copy()).to.equal(null);
      for (let pause = 0; pause < pauses; pause++) {
        await lab.run(20_000);
        expect(await lab.pause(), `pause ${pause}`).to.equal(0);
      }
      // Without a link only chunks are marked, and those are what is to be copied again.
      await disks.rest();
      const sealed = await disks.seal();
      expect(sealed).to.deep.equal([]);
      lab.take(sealed);
      await lab.hasWritten();
      const [map] = await disks.keep();
      if (!map) throw new Error('there is no map');
      expect(map.octets()).to.be.within(CHUNK_BYTES, BYTES);
      expect(await lab.copy(map)).to.equal(null);
      expect(await lab.pause()).to.equal(0);
      expect([lab.dirty, lab.events]).to.deep.equal([0, []]);
    });
  }

  it('writes that are missing, late or early are found; sums are those of the disk', async () => {
    const lab = await DiskLab.open(cleanup, { format: 'raw' });
    const { source, disks, standby } = lab;
    await disks.keep();
    await lab.copy();
    const equal = async () => {
      standby.octets.set(await lab.content());
      await source.resume();
      await lab.seal();
      await lab.run();
    };
    await source.suspend();
    await lab.seal();
    await equal();
    // Missing: one extent of an epoch.
    await source.suspend();
    const sealed = await disks.seal();
    const [writes] = sealed;
    if (!writes) throw new Error('nothing was written');
    lab.take([{ ...writes, extents: { ...writes.extents, count: writes.extents.count - 1 } }]);
    expect(lab.differing(await lab.content()), 'missing').to.be.greaterThan(0);
    await equal();
    // Late: the epoch ends before QEMU has stopped the guest.
    let late = 0;
    for (let attempt = 0; late === 0 && attempt < 20; attempt++) {
      const early = disks.seal();
      await sleep(20);
      await source.suspend();
      lab.take(await early);
      late = lab.differing(await lab.content());
      await lab.seal();
      await source.resume();
    }
    expect(late, 'late').to.be.greaterThan(0);
    // Early: what the guest writes after the pause.
    await source.suspend();
    await lab.seal();
    await equal();
    await source.suspend();
    await lab.seal();
    const before = await lab.content();
    expect(lab.differing(before)).to.equal(0);
    await source.resume();
    await lab.run();
    expect(lab.differing(before), 'early').to.be.greaterThan(0);
    // Sums, of all and of some.
    await source.suspend();
    const content = await lab.content();
    const expected = sumsOf(content);
    expect(Buffer.compare(await disks.sums(0, 0, CHUNKS), expected)).to.equal(0);
    const some = expected.subarray(3 * SUM_BYTES, 5 * SUM_BYTES);
    expect(Buffer.compare(await disks.sums(0, 3, 2), some)).to.equal(0);
  });

  it('a disk with nothing in it has the sums of zeroes', async () => {
    const lab = await DiskLab.open(cleanup, { format: 'qcow2', isStarted: false });
    const expected = sumsOf(new Uint8Array(BYTES));
    expect(Buffer.compare(await lab.disks.sums(0, 0, CHUNKS), expected)).to.equal(0);
    await expectCode(lab.disks.sums(0, CHUNKS, 1), 'WRONG_STATE');
  });
});
