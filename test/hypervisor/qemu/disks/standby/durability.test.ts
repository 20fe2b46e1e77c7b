// What a standby's record says of its images is true whenever the host crashes: with images that lose at a crash what was
// not flushed, or keep any part of it.

import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import fc from 'fast-check';
import { WriteKind } from '../../../../../src/disk/extents.js';
import { codeOf } from '../../../../../src/errors.js';
import { failed } from '../../../../../src/hypervisor/port.js';
import type { DiskPoint, ReplicatedDisk } from '../../../../../src/hypervisor/port-disks.js';
import { commonPoint } from '../../../../../src/hypervisor/qemu/disks/standby/durability.js';
import type { Images } from '../../../../../src/hypervisor/qemu/disks/standby/images.js';
import {
  forgetRecord,
  pointIn,
  readRecord,
  recordOf,
  writeRecord,
} from '../../../../../src/hypervisor/qemu/disks/standby/record.js';
import { StandbyDisks } from '../../../../../src/hypervisor/qemu/disks/standby/standby-disks.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { newSeed, seeded, type Random } from '../../../../support/random.js';
import { expectCode } from '../../../support.js';
import { OTHER_STREAM, STREAM, extentsOf, localDisk } from './support.js';

const SECTOR = 512;
const SECTORS = 64;
const CRASHES = 30;

/** Sectors that hold the number of who wrote them, and a cache that a crash empties. */
class VolatileImages implements Images {
  readonly bytes: readonly number[];
  readonly lost = new Promise<never>(() => undefined);
  readonly socket = '';
  isLying = false;
  failure: Error | null = null;
  readonly #random: Random;
  /** By disk: what survives, and what was written since. */
  readonly kept: Int32Array[];
  readonly cache: Int32Array[];
  staged: Map<number, number>[] | null = null;

  constructor(disks: number, random: Random) {
    this.#random = random;
    this.bytes = Array.from({ length: disks }, () => SECTORS * SECTOR);
    this.kept = this.bytes.map(() => new Int32Array(SECTORS));
    this.cache = this.bytes.map(() => new Int32Array(SECTORS));
  }

  async write(disk: number, offset: number, data: Uint8Array): Promise<void> {
    await this.#time();
    if (this.failure) throw this.failure;
    const writer = Buffer.from(data).readUInt32LE();
    const sector = offset / SECTOR;
    if (this.staged) this.staged[disk]?.set(sector, writer);
    else (this.cache[disk] as Int32Array)[sector] = writer;
  }

  zero(): Promise<void> {
    return Promise.resolve();
  }

  read(): Promise<void> {
    return Promise.resolve();
  }

  markData(): Promise<void> {
    return Promise.resolve();
  }

  async flush(): Promise<void> {
    const before = this.cache.map((disk) => disk.slice());
    await sleep(Math.floor(this.#random() * 12));
    if (this.isLying) return;
    for (const [index, disk] of before.entries()) this.kept[index]?.set(disk);
  }

  beginTrial(): Promise<void> {
    return Promise.reject(new Error('nobody tries it'));
  }

  confirmTrial(): Promise<void> {
    return Promise.resolve();
  }

  endTrial(): Promise<void> {
    return Promise.resolve();
  }

  stage(): Promise<void> {
    this.staged = this.bytes.map(() => new Map());
    return Promise.resolve();
  }

  async applyStaged(): Promise<void> {
    const { staged } = this;
    this.staged = null;
    for (const [disk, sectors] of (staged ?? []).entries()) {
      for (const [sector, writer] of sectors) {
        await this.#time();
        (this.cache[disk] as Int32Array)[sector] = writer;
      }
    }
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** What is found after a crash now: of what was not flushed, anything may be there. */
  crash(): Int32Array[] {
    return this.kept.map((disk, index) =>
      disk.map((writer, sector) => (this.#random() < 0.5 ? (this.cache[index]?.[sector] ?? writer) : writer)),
    );
  }

  async #time(): Promise<void> {
    if (this.#random() < 0.5) await sleep(Math.floor(this.#random() * 3));
  }
}

describe('qemu disks: what survives of a standby’s', function () {
  this.timeout(30_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function opened(images: VolatileImages): Promise<{ disks: StandbyDisks; files: string[] }> {
    const directory = await cleanup.directory();
    const files = images.bytes.map((_, index) => `${directory}/image-${index}`);
    for (const file of files) await writeFile(file, '');
    const local = files.map((file, index) => ({ ...localDisk(file), id: `disk-${index}` }));
    const disks = await StandbyDisks.prepare(local, { open: () => Promise.resolve(images), paceMs: 3 });
    cleanup.add(() => disks.leave());
    await disks.openNow();
    return { disks, files };
  }

  /** Checkpoints, until told. By point: who wrote each sector last, and in streamOf of which stream each writer is. */
  async function checkpoints(
    disks: StandbyDisks,
    random: Random,
    streamOf: string[],
    isOver: () => boolean,
  ): Promise<Map<string, number[][]>> {
    const asOf = new Map<string, number[][]>();
    const sectors = disks.disks.map(() => new Array<number>(SECTORS).fill(0));
    let writer = 0;
    for (let stream = 0; !isOver(); stream++) {
      const streamUuid = STREAM.replace(/^../, String(10 + (stream % 80)));
      await disks.begin(stream > 0 && random() < 0.5 ? 'staged' : 'in-place');
      const epochs = 1 + Math.floor(random() * 10);
      for (let epoch = 0; epoch < epochs && !isOver(); epoch++) {
        for (let writes = Math.floor(random() * 6); writes > 0; writes--) {
          const disk = Math.floor(random() * sectors.length);
          const sector = Math.floor(random() * SECTORS);
          const offset = sector * SECTOR;
          const { extents, data } = extentsOf([
            { kind: WriteKind.DATA, offset, length: SECTOR, stamp: ++writer },
          ]);
          streamOf[writer] = streamUuid;
          await disks.write(disk, extents, data);
          (sectors[disk] as number[])[sector] = writer;
        }
        asOf.set(
          `${streamUuid} ${epoch}`,
          sectors.map((each) => [...each]),
        );
        await disks.committed({ streamUuid, epoch });
        if (random() < 0.5) await sleep(Math.floor(random() * 8));
      }
    }
    return asOf;
  }

  /** Sectors that are older than what the records say, or of another stream; null: the records say nothing. */
  async function wrongByRecord(seed: number, isLying: boolean): Promise<number | null> {
    const random = seeded(seed);
    const images = new VolatileImages(2, random);
    images.isLying = isLying;
    const { disks, files } = await opened(images);
    let isOver = false;
    const streamOf: string[] = [];
    const work = checkpoints(disks, random, streamOf, () => isOver);
    await sleep(20 + Math.floor(random() * 150));
    // At one moment: the records first, since they may only say less than what there is.
    const records = files.map((file) => textOf(recordOf(file)));
    const found = images.crash();
    isOver = true;
    const asOf = await work;
    const points = records.map((text, disk) => pointIn(text, disks.disks[disk] as ReplicatedDisk));
    const point = commonPoint(points);
    if (point === null) return null;
    const told = asOf.get(`${point.streamUuid} ${point.epoch}`);
    if (!told) throw new Error('of a point that was never reached');
    let wrong = 0;
    for (const [disk, sectors] of told.entries()) {
      for (const [sector, writer] of sectors.entries()) {
        const is = found[disk]?.[sector] ?? 0;
        if (is < writer || (is > writer && streamOf[is] !== point.streamUuid)) wrong++;
      }
    }
    return wrong;
  }

  it(`is what the records say, at ${CRASHES} crashes`, async () => {
    const seed = newSeed();
    let told = 0;
    // On a busy machine many come before anything is on record: those show nothing.
    for (let crash = 0; crash < CRASHES || (told <= CRASHES / 10 && crash < 10 * CRASHES); crash++) {
      const wrong = await wrongByRecord(seed + crash, false);
      expect(wrong ?? 0, `seed ${seed}, crash ${crash}`).to.equal(0);
      if (wrong !== null) told++;
    }
    expect(told, `seed ${seed}`).to.be.above(CRASHES / 10);
  });

  it('disks that say that they have flushed, and have not, would be noticed here', async () => {
    const seed = newSeed();
    let older = 0;
    for (let crash = 0; crash < CRASHES && older === 0; crash++) {
      older += (await wrongByRecord(seed + crash, true)) ?? 0;
    }
    expect(older, `seed ${seed}`).to.be.above(0);
  });

  it('a disk that fails: what is written fails with its code, and no record follows', async () => {
    const images = new VolatileImages(1, seeded(1));
    const { disks, files } = await opened(images);
    await disks.begin('in-place');
    images.failure = failed('the disk is full', { code: 'ENOSPC' });
    const { extents, data } = extentsOf([{ kind: WriteKind.DATA, offset: 0, length: SECTOR, stamp: 1 }]);
    expect((await expectCode(disks.write(0, extents, data), 'FAILED')).facts).to.include({ code: 'ENOSPC' });
    await expectCode(disks.committed({ streamUuid: STREAM, epoch: 0 }), 'FAILED', 'full');
    expect((await disks.lost).facts).to.include({ code: 'ENOSPC' });
    await sleep(20);
    expect(files.map((file) => textOf(recordOf(file)))).to.deep.equal(['']);
  });

  it('a record says what was put into it, or nothing', async () => {
    const image = `${await cleanup.directory()}/image`;
    const disk = { id: 'disk', bytes: 512 };
    expect(await readRecord(image, disk)).to.equal(null);
    await forgetRecord(image);
    const point: DiskPoint = { streamUuid: OTHER_STREAM, epoch: 7 };
    await writeRecord(image, disk, point);
    expect(await readRecord(image, disk)).to.deep.equal(point);
    expect(await readRecord(image, { ...disk, id: 'other' })).to.equal(null);
    expect(await readRecord(image, { ...disk, bytes: 1024 })).to.equal(null);
    const text = readFileSync(recordOf(image), 'utf8');
    const damaged = fc.tuple(fc.nat(text.length - 1), fc.integer({ min: 1, max: 127 }));
    fc.assert(
      fc.property(damaged, ([at, flip]) => {
        const octets = Buffer.from(text);
        octets[at] = (octets[at] ?? 0) ^ flip;
        // A digit for another one is still a record; it is not what this is against.
        const read = pointIn(octets.toString(), disk);
        return read === null || /[0-9a-f]/.test(text[at] ?? '') || octets.toString() === text;
      }),
    );
    for (let length = 0; length < text.length; length++) {
      expect(pointIn(text.slice(0, length), disk), `of ${length}`).to.equal(null);
    }
    await forgetRecord(image);
    expect(await readRecord(image, disk)).to.equal(null);
    await expectCode(writeRecord(`${image}/none`, disk, point), 'FAILED', 'ENOENT');
  });

  it('several disks have the oldest point of one stream in common', () => {
    const at = (epoch: number, streamUuid = STREAM): DiskPoint => ({ streamUuid, epoch });
    expect(commonPoint([at(3), at(2), at(4)])).to.deep.equal(at(2));
    expect(commonPoint([at(3), null])).to.equal(null);
    expect(commonPoint([at(3), at(3, OTHER_STREAM)])).to.equal(null);
  });
});

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return '';
    throw error;
  }
}
