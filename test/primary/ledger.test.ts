import { expect } from 'chai';
import fc from 'fast-check';
import { ChannelError } from '../../src/channel/contract.js';
import {
  enter,
  isNext,
  markOfNext,
  openLedger,
  owed,
  type Entry,
  type Ledger,
} from '../../src/primary/ledger.js';

const STALL_MS = 500;

/** A ledger with these entries, one millisecond after another. */
function after(...entries: readonly Entry[]): Ledger {
  return entries.reduce((ledger, entry) => enter(ledger, entry, ledger.atMs + 1, STALL_MS), openLedger(0));
}

const captured = (epoch: number): Entry => ({ kind: 'captured', epoch });
const acknowledged = (epoch: number): Entry => ({ kind: 'acknowledged', epoch });
const ending = (epoch: number): Entry => ({ kind: 'ending', epoch });

describe('primary/ledger', () => {
  it('lets out what is acknowledged, as long as this process is surely not replaced', () => {
    const ledger = after(captured(0), acknowledged(0));
    expect(ledger.release).to.deep.equal({ epoch: 0, untilMs: 2 + STALL_MS });
    expect(enter(ledger, { kind: 'beat' }, 3, STALL_MS).release).to.equal(null);
  });

  it('owes the oldest epoch that is not acknowledged, END at last', () => {
    expect(owed(openLedger(0))).to.equal(null);
    expect(owed(after(captured(0), captured(1)))).to.equal(0);
    expect(owed(after(captured(0), ending(1), acknowledged(0)))).to.equal(1);
    expect(owed(after(captured(0), ending(1), acknowledged(0), acknowledged(1)))).to.equal(null);
  });

  it('after a silence the first words are old: what was captured before them waits for an acknowledgement since', () => {
    const heard: Entry = { kind: 'heard' };
    for (const first of [heard, acknowledged(0)]) {
      let ledger = openLedger(0, 600);
      const give = (entry: Entry, atMs: number) => (ledger = enter(ledger, entry, atMs, STALL_MS));
      const beats = (fromMs: number, toMs: number) => {
        for (let atMs = fromMs; atMs < toMs; atMs += 100) give({ kind: 'beat' }, atMs);
      };
      give(captured(0), 1);
      beats(100, 700);
      give(first, 700);
      if (first === heard) give(acknowledged(0), 701);
      expect(ledger.release).to.equal(null);
      give(captured(1), 702);
      expect(give(acknowledged(1), 703).release).to.deep.equal({ epoch: 1, untilMs: 703 + STALL_MS });
    }
  });

  it('END lets nothing out by itself: what follows from it is more than a release', () => {
    const ledger = after(captured(0), acknowledged(0), ending(1), acknowledged(1));
    expect(ledger).to.include({ acknowledged: 1, endEpoch: 1, release: null });
  });

  it('handed over behind the fourth epoch from then on; that does not change any more', () => {
    const asked = after(captured(0), { kind: 'hand-over' });
    expect(asked.lastEpoch).to.equal(4);
    const later = [captured(1), { kind: 'hand-over' } as const].reduce(
      (ledger, entry) => enter(ledger, entry, ledger.atMs, STALL_MS),
      asked,
    );
    expect(later.lastEpoch).to.equal(4);
  });

  it('the next epoch: when it is due or asked for, and the window has room', () => {
    const one = after(captured(0));
    expect([isNext(one, false, 2), isNext(one, true, 2), isNext(one, true, 1)]).to.deep.equal([
      false,
      true,
      false,
    ]);
    expect(isNext(after(captured(0), { kind: 'requested' }), false, 2)).to.equal(true);
  });

  it('the next epoch of a domain that is handed over: at once, when nothing is under way; behind the last one none', () => {
    const asked = [captured(0), { kind: 'hand-over' }] as const;
    expect(isNext(after(...asked), true, 4)).to.equal(false);
    expect(isNext(after(...asked, acknowledged(0)), false, 4)).to.equal(true);
    const rest = [1, 2, 3, 4].flatMap((epoch) => [captured(epoch), acknowledged(epoch)]);
    expect(isNext(after(...asked, acknowledged(0), ...rest), true, 4)).to.equal(false);
  });

  it('of a domain that is handed over the secondary tries the two before the last, and the last is marked', () => {
    const marks = [0, 1, 2, 3].map((captures) => {
      const rest = [1, 2, 3].slice(0, captures).map((epoch) => captured(epoch));
      return markOfNext(after(captured(0), { kind: 'hand-over' }, ...rest));
    });
    expect(marks).to.deep.equal([null, 'trial', 'trial', 'last']);
    expect(markOfNext(after(captured(0), captured(1)))).to.equal(null);
  });

  it('a request is over when the domain is suspended for the next epoch, not before', () => {
    const asked = after(captured(0), { kind: 'requested' }, acknowledged(0));
    expect(asked.requested).to.equal(true);
    expect(enter(asked, { kind: 'suspending' }, asked.atMs, STALL_MS).requested).to.equal(false);
  });

  it('the interval counts from the capture, whatever comes after it', () => {
    expect(after(captured(0), { kind: 'beat' }, acknowledged(0))).to.include({ atMs: 3, capturedAtMs: 1 });
  });

  for (const [name, ledger, epoch] of [
    ['a duplicate', after(captured(0), captured(1), acknowledged(0)), 0],
    ['one for a future epoch', after(captured(0)), 1],
    ['one when none is owed', openLedger(0), 0],
    ['END’s before the epoch in front of it', after(captured(0), ending(1)), 1],
  ] as const) {
    it(`${name} is out of turn`, () => {
      expect(() => enter(ledger, acknowledged(epoch), 100, STALL_MS))
        .to.throw(ChannelError)
        .with.property('code', 'BAD_MESSAGE');
    });
  }

  it('after a stop of the process, only an epoch that was captured since lets anything out', () => {
    let ledger = after(captured(0), captured(1));
    ledger = enter(ledger, { kind: 'beat' }, ledger.atMs + STALL_MS + 1, STALL_MS);
    ledger = enter(ledger, captured(2), ledger.atMs + 1, STALL_MS);
    for (const epoch of [0, 1]) {
      ledger = enter(ledger, acknowledged(epoch), ledger.atMs + 1, STALL_MS);
      expect(ledger).to.include({ acknowledged: epoch, release: null });
    }
    ledger = enter(ledger, acknowledged(2), ledger.atMs + 1, STALL_MS);
    expect(ledger.release?.epoch).to.equal(2);
  });

  it('whatever is entered in whatever order, output leaves only by an acknowledgement', () => {
    const entry: fc.Arbitrary<(ledger: Ledger) => Entry> = fc.oneof(
      fc.constant((ledger: Ledger) => captured(ledger.captured + 1)),
      fc.constant((ledger: Ledger) => acknowledged(ledger.acknowledged + 1)),
      fc.integer({ min: 0, max: 6 }).map((epoch) => () => acknowledged(epoch)),
      fc
        .constantFrom<Entry>({ kind: 'beat' }, { kind: 'requested' }, { kind: 'suspending' })
        .map((one) => () => one),
    );
    let releases = 0;
    let withheld = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(entry, fc.constantFrom(0, 10, STALL_MS, STALL_MS + 1)), { maxLength: 60 }),
        fc.integer({ min: 0, max: 60 }),
        (entries, endsAfter) => {
          let ledger = openLedger(0);
          let atMs = 0;
          /** When each epoch was captured; and when the process was found to have been stopped last. */
          const capturedAt: number[] = [];
          let stalledAt = -1;
          let lastReleased = -1;
          for (const [index, [make, delayMs]] of entries.entries()) {
            atMs += delayMs;
            const before = ledger;
            if (atMs - before.atMs > STALL_MS) stalledAt = index;
            const ends = index >= endsAfter && before.endEpoch === null;
            const given = ends ? ending(before.captured + 1) : make(before);
            if (before.endEpoch !== null && given.kind === 'captured') continue;
            const inTurn = given.kind !== 'acknowledged' || given.epoch === owed(before);
            if (!inTurn) {
              expect(() => enter(before, given, atMs, STALL_MS)).to.throw(ChannelError);
              continue;
            }
            ledger = enter(before, given, atMs, STALL_MS);
            if (given.kind === 'captured') capturedAt[given.epoch] = index;
            const { release } = ledger;
            if (given.kind === 'acknowledged' && release === null && given.epoch !== ledger.endEpoch) {
              withheld++;
              expect(capturedAt[given.epoch]).to.be.lessThan(stalledAt);
            }
            if (release === null) continue;
            releases++;
            expect(given).to.deep.equal(acknowledged(release.epoch));
            expect(release.epoch).to.equal(before.acknowledged + 1);
            expect(release.epoch).to.be.at.most(before.captured);
            expect(release.epoch).to.be.greaterThan(lastReleased);
            expect(release.untilMs).to.equal(atMs + STALL_MS);
            expect(capturedAt[release.epoch]).to.be.at.least(stalledAt);
            lastReleased = release.epoch;
          }
        },
      ),
      { numRuns: 2000 },
    );
    expect(Math.min(releases, withheld)).to.be.greaterThan(100);
  });
});
