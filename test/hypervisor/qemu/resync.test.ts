// A QEMU guest that writes 2,000 pages a second, over a link that is cut for two seconds: what is sent then is what has
// changed, and at most 5 % of memory besides.

import { expect } from 'chai';
import { Resync } from '../../service/resyncs.js';
import { Cleanup } from '../../support/cleanup.js';
import { MIB } from '../support.js';
import { needQemu, TICK_ELF } from './support.js';

const CUT_MS = 2000;
const memoryBytes = 128 * MIB;
const dirtyPages = 80;

describe('qemu: resynchronisation', function () {
  this.timeout(240_000);
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(() => cleanup.run());

  it('after a cut of 2 s, three times, and it is taken over then', async () => {
    const hypervisor = {
      kind: 'qemu',
      memory: '128MiB',
      accelerator: 'tcg',
      arguments: ['-kernel', TICK_ELF, '-append', `pages=6144 dirty=${dirtyPages} tick_ms=10`],
    };
    const resync = await Resync.start(cleanup, { hypervisor, memoryBytes, dirtyPages });
    for (let round = 1; round <= 3; round++) {
      const { bytes, allowedBytes, pagesPerSecond } = await resync.cut(CUT_MS);
      console.log(
        `      cut of ${CUT_MS} ms, ${pagesPerSecond.toFixed()} pages/s: ${(bytes / MIB).toFixed(1)} MiB of ${memoryBytes / MIB} (allowed: ${(allowedBytes / MIB).toFixed(1)})`,
      );
      expect(bytes).to.be.lessThan(allowedBytes);
    }
    await resync.takeOver();
  });
});
