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

  it('of a stranger who has a new reason each time: so many, then one now and again, and they are counted', () => {
    const refusals = new Refusals();
    let nowMs = 1_000_000;
    let reasons = 0;
    const flood = (count: number) =>
      Array.from({ length: count }, () => {
        const address = `127.0.0.${reasons % 250}`;
        return refusals.isNews(address, '', misfit(`reason ${reasons++}`), nowMs);
      }).filter((news) => news).length;
    expect(flood(1000)).to.equal(100);
    expect(refusals.takeUntold()).to.equal(900);
    expect(refusals.takeUntold()).to.equal(0);
    nowMs += 9_999;
    expect(flood(1000)).to.be.at.most(1);
    nowMs += 60_001;
    expect(flood(1000)).to.be.within(6, 7);
    // Of one that may speak it is news all the same, and of that stranger when it can be told again.
    expect(refusals.isNews('10.0.0.1', 'web', misfit('memory'), nowMs)).to.equal(true);
    expect(refusals.isNews('10.0.0.1', '', misfit('cut'), nowMs)).to.equal(false);
    nowMs += 10_000;
    expect(refusals.isNews('10.0.0.1', '', misfit('cut'), nowMs)).to.equal(true);
    expect(refusals.isNews('10.0.0.1', '', misfit('cut'), nowMs)).to.equal(false);
    nowMs += 3_600_000;
    expect(flood(1000)).to.equal(100);
  });

  it('of many secondaries: the latest are remembered', () => {
    const refusals = new Refusals();
    const all = Array.from({ length: 65 }, (_, index) => `domain-${index}`);
    for (const domain of all) expect(refusals.isNews('10.0.0.1', domain, misfit('memory'))).to.equal(true);
    expect(refusals.isNews('10.0.0.1', 'domain-1', misfit('memory'))).to.equal(false);
    expect(refusals.isNews('10.0.0.1', 'domain-0', misfit('memory'))).to.equal(true);
  });
});
