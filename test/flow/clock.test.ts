// The clock is the host's monotonic one, whatever it is read with: what another process has read can be compared.

import { expect } from 'chai';
import { monotonicMs } from '../../src/flow/clock.js';

describe('flow/clock', () => {
  it('is process.hrtime, in milliseconds, to the microsecond', () => {
    for (let k = 0; k < 1000; k++) {
      const before = process.hrtime.bigint();
      const ms = monotonicMs();
      const after = process.hrtime.bigint();
      expect(ms).to.be.within(Number(before) / 1e6 - 0.001, Number(after) / 1e6 + 0.001);
    }
  });
});
