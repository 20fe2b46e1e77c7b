// What a refused secondary is remembered by: once for each reason, and not for ever.

import { expect } from 'chai';
import { ChannelError } from '../../src/channel/contract.js';
import { Refusals } from '../../src/channel/listen/refusals.js';

const misfit = (message: string) => new ChannelError('DOMAIN_MISMATCH', message);

describe('channel: refusals', () => {
  it('are news once for each reason, until the secondary is linked', () => {
    const refusals = new Refusals();
    const news = [
      refusals.isNews('10.0.0.1', 'web', misfit('memory')),
      refusals.isNews('10.0.0.1', 'web', misfit('memory')),
      refusals.isNews('10.0.0.1', 'mail', misfit('memory')),
      refusals.isNews('10.0.0.2', 'web', misfit('memory')),
      refusals.isNews('10.0.0.1', 'web', misfit('machine')),
    ];
    expect(news).to.deep.equal([true, false, true, true, true]);
    refusals.forget('10.0.0.1', 'web');
    expect(refusals.isNews('10.0.0.1', 'web', misfit('machine'))).to.equal(true);
    expect(refusals.isNews('10.0.0.1', 'mail', misfit('memory'))).to.equal(false);
  });

  it('of many secondaries: the latest are remembered', () => {
    const refusals = new Refusals();
    const all = Array.from({ length: 65 }, (_, index) => `domain-${index}`);
    for (const domain of all) expect(refusals.isNews('10.0.0.1', domain, misfit('memory'))).to.equal(true);
    expect(refusals.isNews('10.0.0.1', 'domain-1', misfit('memory'))).to.equal(false);
    expect(refusals.isNews('10.0.0.1', 'domain-0', misfit('memory'))).to.equal(true);
  });
});
