// COLO, both sides: whatever the two guests write, after each checkpoint they are equal; and wherever it breaks, the
// secondary runs on from its own state.

import { expect } from 'chai';
import fc from 'fast-check';
import { RomulusError } from '../../src/errors.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import { decodeDirtyPfnList } from '../../src/stream/records/dirty-pfns.js';
import { expectRunsOn, type PairOptions, type PairResult, runPair } from './colo-support.js';

const PAGES = 12;
const CHECKPOINTS = 4;

const steady: PairOptions = {
  pages: PAGES,
  checkpoints: CHECKPOINTS,
  primaryWrites: [[1, 2], [3], [], [4]],
  secondaryWrites: [[2, 5], [3, 6], [7], [8]],
};

function lists(result: PairResult): number[][] {
  const reader = new RecordReader({ withoutHeaders: true });
  reader.push(result.back.octets());
  const found: number[][] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) {
    found.push([...decodeDirtyPfnList(record)]);
  }
  return found;
}

/** The secondary, whose primary died: failed if it never had a whole checkpoint, else running. Which epoch, or -1. */
function judge(result: PairResult): number {
  const { saved, restored, primary } = result;
  expect(saved, 'the primary has no one to save to').to.be.instanceOf(Error);
  expect(primary.loggingDirty).to.equal(false);
  if (restored instanceof Error) {
    expect(restored).to.be.instanceOf(RomulusError);
    expect(result.expected, 'it had no checkpoint').to.equal(null);
    expect(result.secondary.loggingDirty).to.equal(false);
    return -1;
  }
  if (restored.kind !== 'failover') throw new Error(`not a failover: ${restored.kind}`);
  expectRunsOn(result);
  return restored.epoch;
}

const pfns = fc.array(fc.nat(PAGES - 2), { maxLength: PAGES });
const writes = fc.array(pfns, { minLength: CHECKPOINTS, maxLength: CHECKPOINTS });

describe('a COLO pair', () => {
  it('is equal after every checkpoint, and ends with the primary', async () => {
    const result = await runPair(steady);
    expect(result.restored).to.deep.equal({ kind: 'complete', epochs: CHECKPOINTS });
    expect(result.saved).to.include({ ended: 'finished', checkpoints: CHECKPOINTS });
    expect(result.compared).to.equal(CHECKPOINTS);
    expect(result.forward.boundaries).to.deep.equal([0, 1, 2, 3, 4]);
    // The last list belongs to a checkpoint that never came.
    expect(result.back.boundaries).to.deep.equal([1, 2, 3, 4]);
    // What the restorer wrote is not in them, only what the guest did.
    expect(lists(result)).to.deep.equal([[2, 5], [3, 6], [7], [8]]);
    expect(result.secondary.state).to.equal('suspended');
    expect(result.primary.state).to.equal('running');
    expect(result.primary.loggingDirty).to.equal(false);
    expect(result.secondary.loggingDirty).to.equal(false);
  });

  it('is equal with its device model, too', async () => {
    const result = await runPair({ ...steady, emulator: true });
    expect(result.restored).to.deep.equal({ kind: 'complete', epochs: CHECKPOINTS });
    expect(result.compared).to.equal(CHECKPOINTS);
    expect(result.secondary.emulatorState).to.have.length(99);
    for (const forwardCutAt of [result.forward.bytes - 8, result.forward.bytes - 16]) {
      expect(judge(await runPair({ ...steady, emulator: true, forwardCutAt }))).to.equal(CHECKPOINTS - 1);
    }
  });

  it('names no page when the secondary has written none, and takes over a log that somebody else has', async () => {
    const result = await runPair({
      ...steady,
      live: false,
      secondaryWrites: [],
      prepare: (_primary, secondary) => secondary.enableLogDirty(),
    });
    expect(result.compared).to.equal(CHECKPOINTS);
    expect(lists(result)).to.deep.equal([[], [], [], []]);
  });

  it('is equal after every checkpoint whatever both guests write', async () => {
    await fc.assert(
      fc.asyncProperty(writes, writes, fc.boolean(), async (primaryWrites, secondaryWrites, live) => {
        const result = await runPair({ ...steady, live, primaryWrites, secondaryWrites });
        expect(result.restored).to.deep.equal({ kind: 'complete', epochs: CHECKPOINTS });
        expect(result.compared).to.equal(CHECKPOINTS);
      }),
      { numRuns: 60 },
    );
  });

  it('runs on from its own state when the stream is cut at any record, an octet before it or after it', async () => {
    const whole = await runPair(steady);
    const octets = whole.forward.octets();
    const reader = new RecordReader();
    reader.push(octets);
    const cuts: number[] = [0, 17];
    const boundaries: number[] = [];
    for (let record = reader.next(); record !== null; record = reader.next()) {
      cuts.push(record.offset - 1, record.offset, record.offset + 1);
      boundaries.push(record.offset);
    }
    const seen = new Set<number>();
    for (const cut of cuts) {
      const result = await runPair({ ...steady, forwardCutAt: cut });
      seen.add(judge(result));
    }
    expect([...seen].sort()).to.deep.equal([-1, 0, 1, 2, 3]);
    expect(boundaries.length).to.be.greaterThan(CHECKPOINTS * 4);
  });

  it('runs on from its own state when the stream is cut anywhere, whatever was written', async () => {
    await fc.assert(
      fc.asyncProperty(writes, writes, fc.double({ min: 0, max: 1, noNaN: true }), async (a, b, part) => {
        const trial = { ...steady, primaryWrites: a, secondaryWrites: b };
        const { forward } = await runPair(trial);
        judge(await runPair({ ...trial, forwardCutAt: Math.floor(part * (forward.bytes - 1)) }));
      }),
      { numRuns: 40 },
    );
  });

  it('runs on from its own state when the back channel is cut, and the primary says so', async () => {
    const { back } = await runPair(steady);
    const last = back.bytes - 16;
    for (let cut = 0; cut < last; cut += 4) {
      const result = await runPair({ ...steady, backCutAt: cut });
      expect(judge(result)).to.be.within(0, CHECKPOINTS - 2);
      expect(result.restored).to.have.nested.property('cause.code', 'BACK_CHANNEL_BROKEN');
      expect(result.saved).to.include({ code: 'BACK_CHANNEL_BROKEN' });
      expect(result.primary.state, 'the caller decides').to.equal('suspended');
    }
  });

  it('ends both when the primary’s domain has shut down by itself', async () => {
    const result = await runPair({
      ...steady,
      prepare(primary) {
        let suspends = 0;
        primary.script = (call) => {
          if (call === 'suspend' && ++suspends === 3) primary.shutdown();
        };
      },
    });
    expect(result.saved).to.include({ ended: 'domain-gone', checkpoints: 2 });
    expect(result.restored).to.deep.equal({ kind: 'complete', epochs: 2 });
    expect(result.secondary.state).to.equal('suspended');
    expect(result.secondary.loggingDirty).to.equal(false);
  });

  it('says so when the secondary’s domain has ended by itself', async () => {
    const result = await runPair({
      ...steady,
      prepare(_primary, secondary) {
        secondary.script = (call) => {
          if (call === 'suspend') secondary.crash();
        };
      },
    });
    expect(result.restored).to.include({ code: 'DOMAIN_GONE' });
    expect(result.saved).to.include({ code: 'BACK_CHANNEL_BROKEN' });
  });

  /** Fails one call of the hypervisor after the other, on one side. */
  async function failEach(
    side: 'primary' | 'secondary',
    look: (result: PairResult, failed: string) => void,
  ): Promise<void> {
    let from = 0;
    const whole = await runPair({
      ...steady,
      prepare(primary, secondary) {
        from = side === 'primary' ? primary.calls : secondary.calls;
      },
    });
    const { calls } = whole[side];
    expect(calls - from).to.be.greaterThan(30);
    for (let fail = from; fail < calls; fail++) {
      let failed = '';
      const result = await runPair({
        ...steady,
        prepare(primary, secondary) {
          const domain = side === 'primary' ? primary : secondary;
          domain.script = (call, number) => {
            if (number !== fail) return;
            failed = call;
            throw new HypervisorError('FAILED', 'as scripted', { number });
          };
        },
      });
      look(result, `${failed}, call ${fail}`);
    }
  }

  it('leaves no log behind when any call of the secondary’s hypervisor fails, and says which', async () => {
    await failEach('secondary', (result, failed) => {
      const cleaning = failed.startsWith('disableLogDirty');
      expect(result.restored, failed).to.include({ code: cleaning ? 'CLEANUP_FAILED' : 'FAILED' });
      expect(result.secondary.loggingDirty).to.equal(cleaning);
      expect(result.primary.loggingDirty).to.equal(false);
    });
  });

  it('runs on from its own state when any call of the primary’s hypervisor fails', async () => {
    await failEach('primary', (result, failed) => {
      const cleaning = failed.startsWith('disableLogDirty');
      expect(result.saved, failed).to.include({ code: cleaning ? 'CLEANUP_FAILED' : 'FAILED' });
      expect(result.primary.loggingDirty).to.equal(cleaning);
      if (result.restored instanceof Error) {
        expect(result.expected, failed).to.equal(null);
        expect(result.restored).to.be.instanceOf(RomulusError);
      } else if (result.restored.kind === 'failover') {
        expectRunsOn(result);
      } else {
        expect(cleaning).to.equal(true);
      }
    });
  });

  for (const at of ['checkpoint', 'postcopy', 'waitCheckpoint', 'suspend'] as const) {
    it(`runs on from its own state when ${at} says failover`, async () => {
      for (let epoch = 0; epoch < CHECKPOINTS; epoch++) {
        // The first suspend is for the second checkpoint.
        if (at === 'suspend' && epoch === 0) continue;
        const result = await runPair({ ...steady, failover: { at, epoch } });
        const before = at === 'checkpoint' || at === 'suspend';
        const applied = before ? epoch - 1 : epoch;
        if (result.saved instanceof Error) expect(judge(result)).to.equal(applied);
        // Too late for the primary: it had finished.
        else {
          expect([at, epoch]).to.deep.equal(['waitCheckpoint', CHECKPOINTS - 1]);
          expectRunsOn(result);
        }
      }
    });
  }
});
