// A standby's disks as images of QEMU's formats, through the real block daemon.

import { existsSync } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import xxhash from '@node-rs/xxhash';
import { CHUNK_BYTES } from '../../../../../src/disk/dirty-map.js';
import { WriteKind } from '../../../../../src/disk/extents.js';
import { firstWhere } from '../../../../../src/flow/first-where.js';
import type { DiskPoint } from '../../../../../src/hypervisor/port-disks.js';
import { stagedOf } from '../../../../../src/hypervisor/qemu/disks/standby/images.js';
import { recordOf } from '../../../../../src/hypervisor/qemu/disks/standby/record.js';
import { StandbyDisks } from '../../../../../src/hypervisor/qemu/disks/standby/standby-disks.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { seeded } from '../../../../support/random.js';
import { expectCode } from '../../../support.js';
import { MIB, needQemuTools, qemuImg, qemuIo } from '../support.js';
import { OTHER_STREAM, STREAM, applyTo, contentOf, give, killDaemonOf, localDisk } from './support.js';
import type { Write } from './support.js';

const BYTES = 16 * MIB;
const { DATA, ZERO, DISCARD } = WriteKind;

/** In ascending order, of all kinds, up to some that need several requests. */
function someWrites(random: () => number, stamp: number): Write[] {
  const writes: Write[] = [];
  for (let at = 0; at < BYTES;) {
    const offset = at + 512 * Math.floor(random() ** 4 * 4000);
    const length = 512 * (1 + Math.floor(random() ** 6 * 6000));
    if (offset + length > BYTES) break;
    const kind = random() < 0.7 ? DATA : random() < 0.8 ? ZERO : DISCARD;
    writes.push({ kind, offset, length, stamp: stamp + writes.length });
    at = offset + length;
  }
  return writes;
}

describe('qemu disks: a standby’s images', function () {
  this.timeout(30_000);
  const cleanup = new Cleanup();
  let directory = '';
  before(function () {
    return needQemuTools(this);
  });
  beforeEach(async () => {
    directory = await cleanup.directory();
  });
  afterEach(() => cleanup.run());

  async function opened(file: string, format: string, options = {}): Promise<StandbyDisks> {
    const disks = await StandbyDisks.prepare([localDisk(file, format, options)]);
    let left: Promise<void> | null = null;
    cleanup.add(() => (left ??= disks.leave()));
    await disks.openNow();
    return disks;
  }

  const durable = (disks: StandbyDisks, epoch: number) =>
    firstWhere(disks.durable$, (point: DiskPoint | null) => point?.epoch === epoch);

  for (const format of ['raw', 'qcow2']) {
    it(`hold what was written, as ${format}, and say so after a restart`, async () => {
      const file = `${directory}/image`;
      const disks = await opened(file, format, { bytes: BYTES });
      expect(disks.disks).to.deep.equal([{ id: 'disk', bytes: BYTES }]);
      expect(disks.isBlank(0)).to.equal(true);
      const model = Buffer.alloc(BYTES);
      const random = seeded(7);
      await disks.begin('in-place');
      for (let epoch = 0; epoch < 4; epoch++) {
        const writes = someWrites(random, epoch * 1000);
        applyTo(model, writes);
        await give(disks, writes);
        await disks.committed({ streamUuid: STREAM, epoch });
      }
      expect(disks.isBlank(0)).to.equal(false);
      await durable(disks, 3);
      await disks.leave();
      expect((await contentOf(file, format)).compare(model)).to.equal(0);

      const again = await opened(file, format);
      expect(again.isBlank(0)).to.equal(false);
      expect(await firstWhere(again.durable$, () => true)).to.deep.equal({ streamUuid: STREAM, epoch: 3 });
    });

    it(`are untouched by what is staged until it is committed, as ${format}`, async () => {
      const file = `${directory}/image`;
      const disks = await opened(file, format, { bytes: BYTES });
      const model = Buffer.alloc(BYTES);
      const random = seeded(8);
      const first = someWrites(random, 1);
      applyTo(model, first);
      await disks.begin('in-place');
      await give(disks, first);
      await disks.committed({ streamUuid: STREAM, epoch: 0 });
      await durable(disks, 0);
      const before = Buffer.from(model);

      await disks.begin('staged');
      const second = someWrites(random, 5000);
      applyTo(model, second);
      await give(disks, second);
      // A QEMU is started for the other memory.
      await disks.lent(async () => {
        expect((await contentOf(file, format)).compare(before), 'staged').to.equal(0);
      });
      const third = someWrites(random, 9000);
      applyTo(model, third);
      await give(disks, third);
      expect(existsSync(recordOf(file))).to.equal(true);
      await disks.committed({ streamUuid: OTHER_STREAM, epoch: 0 });
      expect(existsSync(stagedOf(file))).to.equal(false);
      await disks.lent(async () => {
        expect((await contentOf(file, format)).compare(model), 'committed').to.equal(0);
      });
      await durable(disks, 0);

      // What is dropped has never been.
      await disks.begin('staged');
      await give(disks, someWrites(random, 20_000));
      await disks.begin('staged');
      await disks.taken();
      expect((await contentOf(file, format)).compare(model), 'dropped').to.equal(0);
      expect(existsSync(recordOf(file))).to.equal(false);
    });
  }

  it('give room back for zeroes, unless all of it was asked for', async () => {
    for (const preallocate of [false, true]) {
      for (const format of ['raw', 'qcow2']) {
        const file = `${directory}/image-${format}-${String(preallocate)}`;
        const disks = await opened(file, format, { bytes: BYTES, preallocate });
        expect(disks.isBlank(0), file).to.equal(true);
        await disks.begin('in-place');
        await give(disks, [{ kind: DATA, offset: 0, length: BYTES / 2, stamp: 1 }]);
        await give(disks, [{ kind: ZERO, offset: 0, length: BYTES }]);
        await disks.leave();
        const taken = (await stat(file)).blocks * 512;
        if (preallocate) expect(taken, file).to.be.at.least(BYTES);
        else expect(taken, file).to.be.below(BYTES / 4);
      }
    }
  });

  it('have sums, of what is not a whole chunk too', async () => {
    const bytes = 3 * MIB + 512;
    const file = `${directory}/image`;
    const disks = await opened(file, 'qcow2', { bytes });
    await disks.begin('in-place');
    const writes = [
      { kind: DATA, offset: 3 * CHUNK_BYTES - 512, length: 1024, stamp: 3 },
      { kind: DATA, offset: bytes - 512, length: 512, stamp: 4 },
    ];
    await give(disks, writes);
    const model = Buffer.alloc(bytes);
    applyTo(model, writes);
    const chunks = Math.ceil(bytes / CHUNK_BYTES);
    const sums = Buffer.from(await disks.sums(0, 1, chunks - 1));
    for (let chunk = 1; chunk < chunks; chunk++) {
      const octets = model.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
      const sum = xxhash.xxh3.xxh128(octets).toString(16).padStart(32, '0');
      expect(sums.toString('hex', (chunk - 1) * 16, chunk * 16), `chunk ${chunk}`).to.equal(sum);
    }
    await expectCode(disks.sums(0, 0, chunks + 1), 'FAILED');
  });

  it('are refused by name where there is none, or it cannot be opened', async () => {
    const file = `${directory}/none`;
    await expectCode(StandbyDisks.prepare([localDisk(file)]), 'BAD_CONFIGURATION', 'disks: { disk: { size:');
    const elsewhere = localDisk(`${directory}/no/image`, 'raw', { bytes: BYTES });
    await expectCode(StandbyDisks.prepare([elsewhere]), 'BAD_CONFIGURATION', `${directory}/no/image`);
    await writeFile(file, 'this is no image of that format');
    await expectCode(opened(file, 'qcow2'), 'BAD_CONFIGURATION', file);
    expect(existsSync(`${file}.romulus-new`)).to.equal(false);
  });

  it('are locked while they are written to, and while a QEMU is started they are not', async () => {
    const file = `${directory}/image`;
    const disks = await opened(file, 'qcow2', { bytes: BYTES });
    const refused = await qemuIo(file, 'qcow2', 'write 0 512').catch((error: unknown) => String(error));
    expect(refused).to.include('lock');
    await disks.lent(() => qemuIo(file, 'qcow2', 'write -P 7 0 512'));
    const sums = await disks.sums(0, 0, 1);
    expect(sums).to.not.deep.equal(await disks.sums(0, 1, 1));
  });

  it('a block daemon that dies: raw images are as of the last checkpoint, others are lost', async () => {
    for (const format of ['raw', 'qcow2']) {
      const file = `${directory}/image.${format}`;
      const disks = await opened(file, format, { bytes: BYTES });
      await disks.begin('in-place');
      await give(disks, [{ kind: DATA, offset: 0, length: 4096, stamp: 1 }]);
      await disks.committed({ streamUuid: STREAM, epoch: 0 });
      await killDaemonOf(file);
      const isThere = () =>
        disks.sums(0, 0, 1).then(
          () => true,
          () => false,
        );
      while (await isThere());
      const write = give(disks, [{ kind: DATA, offset: 0, length: 4096, stamp: 2 }]);
      await expectCode(write, 'FAILED');
      if (format === 'raw') await disks.taken();
      else {
        await expectCode(disks.taken(), 'FAILED');
        expect((await disks.lost).message).to.include('qemu-storage-daemon');
      }
    }
  });

  it('another image format than those two is one like them', async () => {
    const file = `${directory}/image.vmdk`;
    await qemuImg('create', '-f', 'vmdk', file, String(BYTES));
    const disks = await opened(file, 'vmdk');
    await disks.begin('in-place');
    const writes = someWrites(seeded(9), 1);
    await give(disks, writes);
    await disks.committed({ streamUuid: STREAM, epoch: 0 });
    await disks.taken();
    const model = Buffer.alloc(BYTES);
    applyTo(model, writes);
    expect((await contentOf(file, 'vmdk')).compare(model)).to.equal(0);
  });
});
