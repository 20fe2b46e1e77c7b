// Which way of dirty tracking is taken, and why, where the better one cannot be had.

import { expect } from 'chai';
import { openTracking } from '../../../src/hypervisor/qemu/memory/tracking.js';
import { processesWith } from '../../support/processes.js';
import { MIB, expectCode } from '../support.js';
import { TEST_NAME } from './support.js';

describe('qemu: the choice of dirty tracking', () => {
  const config = { name: `${TEST_NAME}-tracking`, memoryBytes: MIB };
  const path = process.env['PATH'];
  afterEach(() => {
    process.env['PATH'] = path;
  });

  it('falls back where nothing can be mounted, and says why', async () => {
    process.env['PATH'] = '/nonexistent'; // so there is no unshare
    const { tracking, reason } = await openTracking({ ...config, dirty: 'auto' }, { standby: false });
    expect(tracking.way).to.equal('compare');
    expect(reason).to.match(/\/dev\/fuse cannot be opened|cannot be mounted: spawn unshare ENOENT/);
    await tracking.begin();
    await tracking.capture();
    await tracking.close();
    await expectCode(openTracking({ ...config, dirty: 'fuse' }, { standby: false }), 'UNSUPPORTED', reason);
    // The server that was made for it was sent home.
    while (processesWith(config.name).length > 0) await new Promise((resolve) => setImmediate(resolve));
  });

  it('finds pages of a file that changed, and fails when there is nothing to compare', async () => {
    const { tracking, reason } = await openTracking({ ...config, dirty: 'compare' }, { standby: false });
    expect(reason).to.equal('configured');
    await expectCode(tracking.capture(), 'LOG_DIRTY');
    expect(() => tracking.copyPages(Uint32Array.of(0), 1, new Uint8Array(4096), 0)).to.throw('not enabled');
    const began = expectCode(tracking.begin(), 'LOG_DIRTY');
    await tracking.end();
    await began;
    await tracking.close();
    await tracking.close();
  });
});
