// The embedded machine over a link that is cut.

import { expect } from 'chai';
import { Cleanup } from '../support/cleanup.js';
import { Resync } from './resyncs.js';

const options = {
  hypervisor: {
    kind: 'embedded',
    memory: '16MiB',
    guest: { dirtyPages: 10, workingSetPages: 1024, tickMs: 5 },
  },
  memoryBytes: 16 * 2 ** 20,
  dirtyPages: 10,
};

describe('service: resynchronisation', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('cuts of a moment, and of longer than the register waits: what has changed is sent, and no more', async () => {
    const resync = await Resync.start(cleanup, options);
    for (const ms of [0, 1500, 0, 0, 300]) {
      const { bytes, allowedBytes } = await resync.cut(ms);
      expect(bytes, `after ${ms} ms`).to.be.lessThan(allowedBytes);
    }
    await resync.takeOver();
  });
});
