// Copying a disk that stands still: all of it, what a map has of it, again after an end, slowly, and no faster than it is
// taken.

import { expect } from 'chai';
import fc from 'fast-check';
import { CHUNK_BYTES, DirtyMap } from '../../../../src/disk/dirty-map.js';
import { SLAB_BYTES } from '../../../../src/disk/extents.js';
import { Mask } from '../../../../src/disk/mask.js';
import { monotonicMs } from '../../../../src/flow/clock.js';
import { ALLOCATION, stretches } from '../../../../src/hypervisor/qemu/disks/nbd/block-status.js';
import { NbdClient } from '../../../../src/hypervisor/qemu/disks/nbd/client.js';
import {
  LANES,
  copyDisk,
  type CopyOptions,
  type CopyProgress,
} from '../../../../src/hypervisor/qemu/disks/nbd/copy.js';
import { Rate } from '../../../../src/disk/rate.js';
import { Cleanup } from '../../../support/cleanup.js';
import { until } from '../../../support/until.js';
import { MIB, StandbyDisk, expectNbd, exported, needQemuTools, qemuIo, rawImage, served } from './support.js';

const BYTES = 100 * MIB + 1024;

describe('qemu disks: a copy', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  let image = '';
  let path = '';
  before(function () {
    return needQemuTools(this);
  });
  beforeEach(async () => {
    image = await rawImage(`${await cleanup.directory()}/image`, BYTES);
    await qemuIo(
      image,
      'raw',
      'write -P 1 0 20M',
      'write -P 2 50M 10k',
      'write -P 3 69M 7M',
      'write -P 4 100M 1024',
    );
    path = await served(cleanup, image, 'raw', '--read-only');
  });
  afterEach(() => cleanup.run());

  const client = async (contexts = [ALLOCATION]) => {
    const made = await NbdClient.connect({ path, exportName: 'disk', contexts });
    cleanup.add(() => made.close());
    return made;
  };
  const all = () => {
    const map = new DirtyMap(BYTES);
    map.markAll();
    return map;
  };
  /** Chunks that are read at once, since each is less than what is looked up. */
  const piecesOf = (count: number) => {
    const map = new DirtyMap(BYTES);
    for (let i = 0; i < count; i++) map.mark(2 * i * CHUNK_BYTES, 1);
    return map;
  };
  /** Into a standby's disk. */
  const copying = (source: NbdClient, more: Partial<CopyOptions> = {}) => {
    const standby = new StandbyDisk(BYTES);
    standby.octets.fill(0xee);
    const told: CopyProgress[] = [];
    let reads = 0;
    const options: CopyOptions = {
      ...{ client: source, mask: new Mask(), todo: all(), bytesPerSecond: Infinity },
      signal: new AbortController().signal,
      take: ({ extents, slab }, progress) => {
        standby.take({ extents, slabs: slab ? [slab] : [] });
        told.push(progress);
        if (slab) reads++;
        return Promise.resolve(slab);
      },
      ...more,
    };
    return { standby, told, options, reads: () => reads };
  };

  it('is the disk, and reads none of its zeroes', async () => {
    const { standby, told, options, reads } = copying(await client());
    await copyDisk(options);
    expect(standby.differing(image)).to.equal(0);
    expect(options.todo.isEmpty).to.equal(true);
    expect(options.mask.isIdle).to.equal(true);
    expect(reads()).to.equal(20 + 1 + 7 + 1);
    const last = told.at(-1);
    expect(Math.max(...told.map(({ doneBytes }) => doneBytes))).to.equal(BYTES);
    expect(last?.totalBytes).to.equal(BYTES);
    expect(told.every(({ remainingSeconds }) => remainingSeconds !== null && remainingSeconds >= 0)).to.equal(
      true,
    );
  });

  it('is of what the map has, and of nothing else', async () => {
    const todo = new DirtyMap(BYTES);
    for (const offset of [0, 3 * MIB, 51 * MIB, 100 * MIB]) todo.mark(offset, 1);
    todo.mark(60 * MIB, 12 * MIB);
    const marked = new DirtyMap(BYTES, todo.words.slice());
    const { standby, told, options } = copying(await client(), { todo });
    await copyDisk(options);
    const expected = new StandbyDisk(BYTES);
    const whole = copying(await client());
    await copyDisk(whole.options);
    expected.octets.fill(0xee);
    for (const { offset, length } of marked.runs())
      expected.octets.set(whole.standby.octets.subarray(offset, offset + length), offset);
    expect(standby.octets.compare(expected.octets)).to.equal(0);
    expect(told[0]?.totalBytes).to.equal(marked.octets());
  });

  it('that was broken off goes on with what was not taken', async () => {
    const todo = all();
    let left = 10;
    const first = copying(await client(), {
      todo,
      take: ({ extents, slab }) => {
        if (left-- === 0) return Promise.reject(new Error('no more'));
        if (left < 0) return new Promise((_, reject) => setTimeout(reject, 50, new Error('later')));
        first.standby.take({ extents, slabs: slab ? [slab] : [] });
        return Promise.resolve(slab);
      },
    });
    let failure: unknown = null;
    await copyDisk(first.options).catch((error: unknown) => (failure = error));
    expect(failure).to.be.instanceOf(Error).and.include({ message: 'no more' });
    expect(first.options.mask.isIdle).to.equal(true);
    expect(todo.octets())
      .to.be.below(BYTES)
      .and.greaterThan(BYTES / 4);
    const second = copying(await client(), { todo });
    second.standby.octets.set(first.standby.octets);
    await copyDisk(second.options);
    expect(second.standby.differing(image)).to.equal(0);
  });

  it('waits for whoever takes it: so many slabs are out, and no more', async () => {
    let out = 0;
    let most = 0;
    const { options, standby } = copying(await client(), {
      take: async ({ extents, slab }) => {
        standby.take({ extents, slabs: slab ? [slab] : [] });
        most = Math.max(most, ++out);
        await new Promise((resolve) => setTimeout(resolve, 2));
        out--;
        return slab;
      },
    });
    await copyDisk(options);
    expect(most).to.be.within(2, LANES);
    expect(standby.differing(image)).to.equal(0);
  });

  it('ends with the server, or when it is told to, with the mask as it was', async () => {
    const source = await client();
    const lost = copying(source, {
      take: ({ slab }) => {
        if (slab) source.close();
        return Promise.resolve(slab);
      },
    });
    await expectNbd(copyDisk(lost.options), 'CLOSED');
    expect([lost.options.mask.isIdle, lost.options.todo.isEmpty]).to.deep.equal([true, false]);
    const slow = await client();
    const waiting = copying(slow, { todo: piecesOf(20), bytesPerSecond: 1000 });
    const waited = expectNbd(copyDisk(waiting.options), 'CLOSED');
    slow.close();
    await waited;
    const stop = new AbortController();
    const stopped = copying(await client(), { signal: stop.signal, bytesPerSecond: 1000 });
    const copied = copyDisk(stopped.options).catch((error: unknown) => error);
    await until('it has begun', () => stopped.told.length > 0);
    stop.abort(new Error('enough'));
    expect(await copied).to.be.instanceOf(Error);
    expect(stopped.options.mask.isIdle).to.equal(true);
    await expectNbd(copyDisk(copying(await client(), { todo: new DirtyMap(512) }).options), 'OUT_OF_RANGE');
    await expectNbd(copyDisk(copying(await client([])).options), 'REFUSED');
  });

  it('is made by the thread of the exports, and broken off there', async () => {
    const { exports } = await exported(cleanup, { disks: [{ name: 'disk', bytes: BYTES }] });
    const standby = new StandbyDisk(BYTES);
    standby.octets.fill(0xee);
    const order = { disk: 'disk', path, exportName: 'disk' };
    const outcome = await exports.copy({
      ...order,
      take: ({ extents, slab }) => {
        standby.take({ extents, slabs: slab ? [slab] : [] });
        return Promise.resolve();
      },
    });
    expect([outcome.error, outcome.left.isEmpty]).to.deep.equal([null, true]);
    expect(standby.differing(image)).to.equal(0);
    const stop = new AbortController();
    const stopped = exports.copy({
      ...{ ...order, signal: stop.signal, bytesPerSecond: 4 * MIB },
      take: () => {
        stop.abort();
        return Promise.resolve();
      },
    });
    expect((await stopped).error).to.include({ code: 'CLOSED' });
    expect((await stopped).left.octets()).to.be.greaterThan(0);
    const failing = await exports.copy({ ...order, take: () => Promise.reject(new Error('no room')) });
    expect(failing.error).to.include({ message: 'no room' });
    const halfOf = new DirtyMap(BYTES);
    halfOf.mark(0, 20 * MIB);
    const secondsAt = async (limit: { readonly bytesPerSecond?: number }): Promise<number> => {
      const beganMs = monotonicMs();
      const { error } = await exports.copy({
        ...{ ...order, ...limit, todo: halfOf },
        take: () => Promise.resolve(),
      });
      expect(error).to.equal(null);
      return (monotonicMs() - beganMs) / 1000;
    };
    const [seconds, besides] = [await secondsAt({ bytesPerSecond: 16 * MIB }), await secondsAt({})];
    // Of a busy host: what it takes without a limit it may take on top.
    expect(seconds, '20 MiB at 16 MiB/s').to.be.within(1.25 * 0.9, 1.25 * 1.1 + besides);
    const nobody = await exports.copy({ ...order, path: `${path}.none`, take: () => Promise.resolve() });
    expect(nobody.error).to.include({ code: 'FAILED' });
    expect(nobody.left.octets()).to.equal(BYTES);
    await expectNbd(exports.copy({ ...order, disk: 'none', take: () => Promise.resolve() }), 'FAILED');
  });
});

describe('qemu disks: what a copy is made of', () => {
  it('a rate: whatever is spent, no more than it allows', () => {
    const asked = fc.array(fc.tuple(fc.nat(100), fc.nat(3 * SLAB_BYTES)), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(fc.integer({ min: 1000, max: 1e9 }), asked, (bytesPerSecond, steps) => {
        const rate = new Rate(bytesPerSecond, 0);
        let nowMs = 0;
        let spent = 0;
        for (const [restMs, bytes] of steps) {
          nowMs += restMs;
          nowMs += rate.spend(bytes, nowMs);
          spent += bytes;
          expect(spent).to.be.at.most(bytesPerSecond * (nowMs / 1000 + 0.0501) + 1);
        }
        // Nor does who has always something to spend wait longer than it need.
        const before = nowMs;
        for (let i = 0; i < 10; i++) nowMs += rate.spend(SLAB_BYTES, nowMs);
        expect(nowMs - before).to.be.at.most((10 * SLAB_BYTES * 1000) / bytesPerSecond + 1);
      }),
    );
    expect(new Rate(Infinity, 0).spend(1e12, 0)).to.equal(0);
  });

  it('stretches: of data and of zeroes in turn, all of the range', () => {
    const map = new DirtyMap(20 * CHUNK_BYTES - 5);
    map.mark(3 * CHUNK_BYTES, 2 * CHUNK_BYTES);
    map.mark(19 * CHUNK_BYTES, 1);
    const found = (offset: number, length: number) =>
      [...stretches(map, offset * CHUNK_BYTES, length)].map((each) => [
        each.offset / CHUNK_BYTES,
        each.length / CHUNK_BYTES,
        each.isData,
      ]);
    expect(found(0, 20 * CHUNK_BYTES - 5)).to.deep.equal([
      [0, 3, false],
      [3, 2, true],
      [5, 14, false],
      [19, 1 - 5 / CHUNK_BYTES, true],
    ]);
    expect(found(4, 2 * CHUNK_BYTES)).to.deep.equal([
      [4, 1, true],
      [5, 1, false],
    ]);
    expect(found(6, CHUNK_BYTES)).to.deep.equal([[6, 1, false]]);
  });
});
