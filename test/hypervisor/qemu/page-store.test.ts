// Pages that are put into a standby's memory by its server: into the image and into the page cache, also while others read
// the file and the kernel holds pages that it waits for.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect } from 'chai';
import fc from 'fast-check';
import { PageStore, SLAB_BYTES, STORE_PAGES } from '../../../src/hypervisor/qemu/memory/fuse/store.js';
import { FuseTracking } from '../../../src/hypervisor/qemu/memory/fuse/tracking.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Cleanup } from '../../support/cleanup.js';
import { MIB } from '../support.js';
import { TEST_NAME, canTrack } from './support.js';

const BYTES = 16 * MIB;
const PAGES = BYTES / PAGE_SIZE;
const LIMIT_MS = 60_000;
const ROUNDS = 8;
/** Reads the file again and again, each time from who serves it: what the page cache has of it is dropped before. */
const READER = `
exec 2>/dev/null
while :; do dd if="$0" of=/dev/null iflag=nocache bs=1M; dd if="$0" iflag=nocache count=0; done`;

describe('qemu: the store of pages', function () {
  this.timeout(LIMIT_MS);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('puts each page into the image and into the cache, neighbours together', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(2 ** 40), { minLength: 1, maxLength: STORE_PAGES }), (frames) => {
        const gfns = frames.map((frame) => frame % 2 ** 20).sort((a, b) => a - b);
        const slab = Buffer.alloc(SLAB_BYTES);
        gfns.forEach((gfn, k) => slab.writeUInt32LE(gfn, 4 * k));
        gfns.forEach((gfn, k) => slab.fill(gfn % 251, PAGE_SIZE * (1 + k), PAGE_SIZE * (2 + k)));
        const seen: { readonly where: string; readonly position: number; readonly data: Buffer }[] = [];
        const store = new PageStore({
          image: (data, offset, length, position) =>
            seen.push({ where: 'image', position, data: Buffer.from(data.slice(offset, offset + length)) }),
          device: (message, length) => {
            const told = Buffer.from(message.slice(0, length));
            expect(told.readUInt32LE(0)).to.equal(length);
            expect(told.readInt32LE(4), 'FUSE_NOTIFY_STORE').to.equal(4);
            expect([told.readBigUInt64LE(8), told.readBigUInt64LE(16)]).to.deep.equal([0n, 2n]);
            expect(told.readUInt32LE(32)).to.equal(length - 40);
            seen.push({
              where: 'cache',
              position: Number(told.readBigUInt64LE(24)),
              data: told.subarray(40),
            });
          },
        });
        store.apply(gfns.length, (into, offset, length, position) =>
          slab.copy(into, offset, position, position + length),
        );
        const images = seen.filter((_, k) => k % 2 === 0);
        const caches = seen.filter((_, k) => k % 2 === 1);
        expect(new Set(images.map(({ where }) => where))).to.deep.equal(new Set(['image']));
        expect(caches).to.deep.equal(images.map((each) => ({ ...each, where: 'cache' })));
        expect(Buffer.concat(images.map(({ data }) => data)).equals(slab.subarray(PAGE_SIZE, PAGE_SIZE * (1 + gfns.length)))).to.equal(true); // prettier-ignore
        const runs = gfns.filter((gfn, k) => k === 0 || gfn !== (gfns[k - 1] ?? 0) + 1);
        expect(images.map(({ position }) => position)).to.deep.equal(runs.map((gfn) => gfn * PAGE_SIZE));
      }),
      { numRuns: 50 },
    );
  });

  it('is read through the file, whoever reads meanwhile, and stays when the cache is dropped', async function () {
    if (!(await canTrack('fuse'))) return this.skip();
    const tracking = await FuseTracking.open(BYTES, TEST_NAME);
    cleanup.add(() => tracking.close());
    const file = `/proc/${process.pid}/fd/${tracking.ramFd}`;
    const readers = [0, 1].map(() => spawn('sh', ['-c', READER, file], { stdio: 'ignore', detached: true }));
    for (const reader of readers) {
      const closed = once(reader, 'close');
      cleanup.add(async () => {
        process.kill(-(reader.pid ?? 0), 'SIGKILL');
        await closed;
      });
    }
    const model = Buffer.alloc(BYTES);
    for (let round = 1; round <= ROUNDS; round++) {
      const gfns = Uint32Array.from({ length: PAGES }, (_, gfn) => gfn).filter(
        (gfn) => (gfn * 7 + round) % 5 < 2,
      );
      const data = Buffer.alloc(gfns.length * PAGE_SIZE);
      gfns.forEach((gfn, k) => data.fill((gfn + round) % 251, k * PAGE_SIZE, (k + 1) * PAGE_SIZE));
      gfns.forEach((gfn, k) => data.copy(model, gfn * PAGE_SIZE, k * PAGE_SIZE, (k + 1) * PAGE_SIZE));
      await tracking.ram.write(gfns, gfns.length, data);
      const all = Uint32Array.from({ length: PAGES }, (_, gfn) => gfn);
      const held = Buffer.alloc(BYTES);
      await tracking.ram.read(all, PAGES, held, 0);
      expect(held.equals(model), `round ${round}, through the file`).to.equal(true);
      tracking.copyPages(all, PAGES, held, 0);
      expect(held.equals(model), `round ${round}, the image`).to.equal(true);
    }
  });
});
