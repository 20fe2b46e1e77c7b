// The soak (see soak.ts), one minute of it, or ten; ROMULUS_SOAK_MINUTES says otherwise.

import { expect } from 'chai';
import { ensureGuest, GUEST_TIMEOUT_MS } from '../../support/qemu.js';
import { needLab } from './lab.js';
import { soak } from './soak.js';
import { times } from '../../support/length.js';

const MINUTES = Number(process.env['ROMULUS_SOAK_MINUTES'] ?? times(1, 10));

describe('qemu: a pair that lives for long', function () {
  before(function () {
    return needLab(this);
  });

  it(`cuts, stalled logs and SIGHUP: always protected again, and nothing grows (${MINUTES} min)`, async function () {
    this.timeout(GUEST_TIMEOUT_MS + (MINUTES + 5) * 60_000);
    const files = await ensureGuest();
    if (!files) return this.skip();
    const { faults } = await soak(files, {
      minutes: MINUTES,
      say: (text) => console.log(text.replaceAll(/^/gm, '      ')),
    });
    expect(faults).to.deep.equal([]);
  });
});
