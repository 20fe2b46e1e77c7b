// How far a synchronisation has come, and how long it still takes: by what was copied of late, and never by a guess.

import { expect } from 'chai';
import fc from 'fast-check';
import { DecayingRate } from '../../src/primary/rate.js';
import { Synchronising } from '../../src/primary/synchronising.js';

const MIB = 2 ** 20;

describe('a rate that decays', () => {
  it('is what it is when it is steady, from early on', () => {
    const rate = new DecayingRate(0);
    for (let nowMs = 100; nowMs <= 60_000; nowMs += 100) {
      rate.add(500, nowMs);
      const seconds = rate.secondsFor(10_000, nowMs);
      if (nowMs <= 500) expect(seconds).to.equal(null);
      else expect(seconds).to.be.within(1.7, 2.01);
    }
  });

  it('follows a change, and is not known when nothing comes any more', () => {
    const rate = new DecayingRate(0);
    let nowMs = 0;
    for (; nowMs < 60_000; nowMs += 100) rate.add(100_000, nowMs);
    for (; nowMs < 100_000; nowMs += 100) rate.add(1000, nowMs);
    expect(rate.secondsFor(10_000, nowMs)).to.be.within(0.35, 1.01);
    const later = [1, 10, 100, 1000].map((seconds) => rate.secondsFor(10_000, nowMs + seconds * 1000));
    expect(later[1]).to.be.greaterThan(later[0] ?? Infinity);
    expect(later[3]).to.equal(null);
  });

  it('gives a number that is one, or none', () => {
    const step = fc.record({ amount: fc.nat(2 ** 40), waitMs: fc.nat(10 ** 7), wanted: fc.nat(2 ** 50) });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        let nowMs = 0;
        const rate = new DecayingRate(nowMs);
        for (const { amount, waitMs, wanted } of steps) {
          nowMs += waitMs;
          rate.add(amount, nowMs);
          const seconds = rate.secondsFor(wanted, nowMs);
          if (seconds !== null) expect(seconds).to.be.within(0, Number.MAX_SAFE_INTEGER);
        }
      }),
    );
  });
});

describe('a synchronisation', () => {
  function clocked() {
    const clock = { nowMs: 5000 };
    return { clock, synchronising: new Synchronising(false, () => clock.nowMs) };
  }

  it('tells of each disk how much is left, and how long: those behind wait for those before', () => {
    const { clock, synchronising } = clocked();
    expect(synchronising.report().disks).to.deep.equal([]);
    const begins = [
      { disk: 'root', doneBytes: 0, totalBytes: 100 * MIB },
      { disk: 'none', doneBytes: 0, totalBytes: 0 },
      { disk: 'data', doneBytes: 0, totalBytes: 50 * MIB },
    ];
    for (const progress of begins) synchronising.copied(progress);
    const remaining = () => synchronising.report().disks.map(({ remainingSeconds }) => remainingSeconds);
    expect(remaining(), 'not known').to.deep.equal([null, 0, null]);
    for (let done = 1; done <= 20; done++) {
      clock.nowMs += 100;
      synchronising.copied({ disk: 'root', doneBytes: done * MIB, totalBytes: 100 * MIB });
    }
    const [root = null, none, data = null] = remaining();
    expect(root).to.be.within(7, 8.1);
    expect(none).to.equal(0);
    expect(data).to.be.within(12, 13.1);
    expect(synchronising.report().seconds).to.equal(2);
  });

  it('counts what is copied again, as it does pages that are sent again', () => {
    const { clock, synchronising } = clocked();
    const copied = (doneBytes: number, totalBytes: number) => {
      clock.nowMs += 1000;
      synchronising.copied({ disk: 'root', doneBytes, totalBytes });
      const [disk] = synchronising.report().disks;
      return [disk?.doneBytes, disk?.totalBytes];
    };
    expect(copied(0, 10)).to.deep.equal([0, 10]);
    expect(copied(10, 10)).to.deep.equal([10, 10]);
    expect(copied(0, 4)).to.deep.equal([10, 14]);
    expect(synchronising.report().disks[0]?.remainingSeconds).to.be.a('number');
    expect(copied(4, 4)).to.deep.equal([14, 14]);
    expect(synchronising.report().disks[0]?.remainingSeconds).to.equal(0);
    synchronising.sent(7, 9);
    synchronising.sent(1, 2);
    expect(synchronising.report()).to.include({ pagesSent: 8, pagesTotal: 9 });
  });
});
