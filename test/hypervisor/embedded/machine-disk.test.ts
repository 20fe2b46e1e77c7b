// The disk in the machine's thread, without a machine: whatever the guest writes and whoever keeps it, what the calls give
// makes another disk the same.

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { CHUNK_BYTES, DirtyMap } from '../../../src/disk/dirty-map.js';
import { SLAB_BYTES, WriteKind, dataAt, f64At } from '../../../src/disk/extents.js';
import {
  DISK_FIGURES,
  DiskFigure,
  MachineDisk,
  type SealedDisk,
} from '../../../src/hypervisor/embedded/machine-disk.js';
import type { V86DiskImage } from '../../../src/hypervisor/embedded/v86.js';

const BYTES = 20 * CHUNK_BYTES + 512;

/** As v86's SyncBuffer is before it is ours. */
class Image implements V86DiskImage {
  buffer: ArrayBuffer = new ArrayBuffer(BYTES);
  readonly byteLength = BYTES;
  set: V86DiskImage['set'] = () => expect.fail('the disk takes what is written');
  get_state = (): unknown[] => [this.buffer];
  set_state = (): void => expect.fail('it has no state');

  get content(): Uint8Array {
    return new Uint8Array(this.buffer);
  }

  guestWrites(offset: number, data: Uint8Array): void {
    let isDone = false;
    this.set(offset, data, () => (isDone = true));
    expect(isDone).to.equal(true);
  }
}

function diskOf(poolSlabs: number) {
  const image = new Image();
  const figures = new Float64Array(DISK_FIGURES);
  const seen = { pressed: 0 };
  const disk = new MachineDisk(image, {
    poolBytes: poolSlabs * SLAB_BYTES,
    figures,
    pressed: () => seen.pressed++,
  });
  return { image, figures, disk, seen };
}

const sectors = fc.record({
  first: fc.nat(BYTES / 512 - 1),
  count: fc.integer({ min: 1, max: 300 }),
  fill: fc.integer({ min: 0, max: 255 }),
});

describe('embedded: the disk in its thread', () => {
  it('every seal, and every map, says what was written since the one before', () => {
    let spills = 0;
    const step = fc.oneof(
      { weight: 6, arbitrary: sectors.map((write) => ({ kind: 'write' as const, ...write })) },
      { weight: 2, arbitrary: fc.boolean().map((isReleased) => ({ kind: 'seal' as const, isReleased })) },
      { weight: 1, arbitrary: fc.constant({ kind: 'rest' as const }) },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { image, disk } = diskOf(2);
        const other = new Uint8Array(BYTES);
        disk.attach();
        disk.keep();
        for (const now of steps) {
          if (now.kind === 'write') {
            const offset = 512 * now.first;
            const length = Math.min(512 * now.count, BYTES - offset);
            image.guestWrites(offset, new Uint8Array(length).fill(now.fill));
          } else if (now.kind === 'seal') {
            const sealed = disk.seal();
            if (sealed.dirty !== null) spills++;
            follow(other, sealed, image.content);
            if (now.isReleased) disk.release(sealed.slabs);
          } else {
            disk.rest();
            copyChunks(new DirtyMap(BYTES, disk.keep()), image.content, other);
          }
          if (now.kind !== 'write') expect(Buffer.compare(other, image.content)).to.equal(0);
        }
      }),
      { numRuns: 60 },
    );
    expect(spills, 'some had no room').to.be.greaterThan(0);
  });

  it('nothing is kept before it is attached, nor asked for', () => {
    const { image, disk, figures } = diskOf(2);
    expect(() => disk.keep())
      .to.throw()
      .with.property('code', 'WRONG_STATE');
    image.guestWrites(0, new Uint8Array(512).fill(1));
    disk.attach();
    image.guestWrites(CHUNK_BYTES, new Uint8Array(512).fill(1));
    expect(disk.seal().extents.count).to.equal(0);
    const marked = new DirtyMap(BYTES, disk.keep());
    expect([...marked.runs()]).to.deep.equal([{ offset: CHUNK_BYTES, length: CHUNK_BYTES }]);
    expect(figures[DiskFigure.REQUESTS]).to.equal(2);
    image.guestWrites(0, new Uint8Array(1024).fill(1));
    expect(figures[DiskFigure.JOURNAL_BYTES]).to.equal(1024);
    disk.rest();
    expect(figures[DiskFigure.JOURNAL_BYTES]).to.equal(0);
  });

  it('pressure is told once before each seal', () => {
    const { image, disk, seen } = diskOf(4);
    disk.attach();
    disk.keep();
    const megabyte = new Uint8Array(SLAB_BYTES).fill(3);
    image.guestWrites(0, megabyte);
    expect(disk.seal().slabs).to.have.length(1);
    image.guestWrites(0, megabyte);
    const { slabs } = disk.seal();
    expect(seen.pressed).to.equal(0);
    image.guestWrites(0, megabyte);
    expect(seen.pressed).to.equal(1);
    image.guestWrites(CHUNK_BYTES, megabyte);
    expect(seen.pressed).to.equal(1);
    disk.release([...slabs, ...disk.seal().slabs]);
    image.guestWrites(0, megabyte);
    image.guestWrites(CHUNK_BYTES, megabyte);
    expect(seen.pressed).to.equal(2);
  });

  it('what is read says which chunks are zeroes, and behind how many seals it belongs', () => {
    const { image, disk } = diskOf(4);
    expect(disk.isBlank()).to.equal(true);
    disk.attach();
    disk.keep();
    disk.seal();
    const chunk = randomBytes(CHUNK_BYTES);
    image.guestWrites(BYTES - 512, chunk.subarray(0, 512));
    image.guestWrites(2 * CHUNK_BYTES, chunk);
    expect(disk.isBlank()).to.equal(false);
    const slab = new Uint8Array(SLAB_BYTES);
    const { extents, seals } = disk.read(CHUNK_BYTES, 3 * CHUNK_BYTES, slab);
    expect(seals).to.equal(1);
    expect([...extents.kinds]).to.deep.equal([WriteKind.ZERO, WriteKind.DATA, WriteKind.ZERO]);
    expect([...extents.offsets]).to.deep.equal([1, 2, 3].map((k) => k * CHUNK_BYTES));
    expect(Buffer.compare(dataAt(extents, [slab], 1), chunk)).to.equal(0);
    const last = disk.read(20 * CHUNK_BYTES, 512, slab).extents;
    expect([last.count, last.lengths[0], last.kinds[0]]).to.deep.equal([1, 512, WriteKind.DATA]);
    expect(() => disk.sums(20, 2))
      .to.throw()
      .with.property('code', 'WRONG_STATE');
  });

  it('what is staged is seen when it is committed, and never if it is not', () => {
    const { image, disk } = diskOf(2);
    const first = (): number | undefined => image.content[0];
    const write = (fill: number) => {
      const extents = {
        count: 1,
        offsets: Float64Array.of(0),
        lengths: Float64Array.of(512),
        kinds: Uint8Array.of(fill === 0 ? WriteKind.ZERO : WriteKind.DATA),
        places: Uint32Array.of(0),
      };
      disk.write(extents, new Uint8Array(512).fill(fill));
    };
    disk.begin('in-place');
    write(1);
    expect(first()).to.equal(1);
    disk.committed();
    disk.begin('staged');
    write(2);
    expect(first()).to.equal(1);
    disk.begin('staged');
    disk.committed();
    expect(first(), 'dropped').to.equal(1);
    disk.begin('staged');
    write(3);
    disk.committed();
    expect(first()).to.equal(3);
    write(0);
    expect(first(), 'of the next checkpoint').to.equal(0);
    disk.begin('staged');
    write(4);
    disk.dropStaged();
    write(5);
    expect(first()).to.equal(5);
    expect(image.get_state()).to.deep.equal([]);
  });
});

/** What was sealed, and of what was not kept the chunks as they are now. */
function follow(other: Uint8Array, { extents, slabs, dirty }: SealedDisk, content: Uint8Array): void {
  for (let k = 0; k < extents.count; k++) {
    expect(extents.kinds[k]).to.equal(WriteKind.DATA);
    other.set(dataAt(extents, slabs, k), f64At(extents.offsets, k));
  }
  if (dirty !== null) copyChunks(new DirtyMap(BYTES, dirty), content, other);
}

function copyChunks(map: DirtyMap, from: Uint8Array, into: Uint8Array): void {
  for (const { offset, length } of map.runs()) into.set(from.subarray(offset, offset + length), offset);
}
