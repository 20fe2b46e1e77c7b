import { expect } from 'chai';
import {
  countSeenBeforeAcknowledgement,
  measure,
  percentile,
  ticks,
  type Observations,
} from '../../src/cli/demo/measure.js';
import type { CheckpointReport, CommitReport } from '../../src/report/reports.js';

function commit(epoch: number, outputBytes: number, acknowledgedAtMs: number): CommitReport {
  return {
    domain: 'demo',
    streamUuid: 'a',
    epoch,
    records: 5,
    pages: 10,
    bytes: 40_000,
    applySeconds: 0.001,
    acknowledgedAtMs,
    outputBytes,
  };
}

function checkpoint(epoch: number, pause: number): CheckpointReport {
  const phases = { suspend: 0, copy: pause, state: 0, resume: 0, send: 0, acknowledge: 0 };
  return {
    domain: 'demo',
    streamUuid: 'a',
    epoch,
    dirtyPages: 1,
    bytes: 1,
    pause,
    phases,
    outputBytes: 0,
  };
}

const first = 'tick 0 ok\ntick 1 ok\n';

function observations(changes: Partial<Observations> = {}): Observations {
  return {
    checkpoints: [1, 2, 3, 4].map((ms, epoch) => checkpoint(epoch, ms / 1000)),
    commits: [commit(0, 10, 100), commit(1, first.length, 200)],
    seenOnPrimary: [
      { bytes: 10, atMs: 101 },
      { bytes: 10, atMs: 201 },
    ],
    saidOnPrimary: `${first}tick 2 ok\n`,
    saidOnSecondary: 'tick 2 ok\ntick 3 ok\n',
    killedAtMs: 300,
    failoverStartedAtMs: 303.456,
    runningAtMs: 310,
    ...changes,
  };
}

describe('demo: what is measured', () => {
  it('reads whole tick lines, and only those', () => {
    expect(ticks('k 1 ok\ntick 2 ok\r\ntick 3 BAD 7\ntick 4 o')).to.deep.equal([
      { number: 2, badPages: 0, end: 18 },
      { number: 3, badPages: 7, end: 31 },
    ]);
  });

  it('takes percentiles by nearest rank', () => {
    expect(percentile([4, 1, 3, 2], 0.5)).to.equal(2);
    expect(percentile([4, 1, 3, 2], 0.99)).to.equal(4);
    expect(percentile([], 0.5)).to.be.NaN;
  });

  it('finds a clean failover sound', () => {
    expect(measure(observations())).to.deep.equal({
      ok: true,
      epochsCommitted: 2,
      tickCommitted: 1,
      tickResumed: 2,
      badPages: 0,
      outputBeforeAck: 0,
      pauseMs: { p50: 2, p99: 4 },
      detectMs: 3.46,
      takeoverMs: 6.54,
    });
  });

  it('counts a line that the checkpoint cut as printed by the secondary', () => {
    const report = measure(
      observations({
        commits: [commit(0, first.length + 6, 100)],
        seenOnPrimary: [],
        saidOnSecondary: ' ok\ntick 3 ok\n',
      }),
    );
    expect(report).to.include({ ok: true, tickCommitted: 1, tickResumed: 2 });
  });

  it('finds a lost and a repeated tick', () => {
    expect(measure(observations({ saidOnSecondary: 'tick 3 ok\n' }))).to.include({
      ok: false,
      tickCommitted: 1,
      tickResumed: 3,
    });
    expect(measure(observations({ saidOnSecondary: 'tick 1 ok\n' }))).to.include({
      ok: false,
      tickResumed: 1,
    });
    expect(measure(observations({ saidOnSecondary: '' }))).to.include({ ok: false, tickResumed: -1 });
  });

  it('counts bad pages of both sides once', () => {
    const report = measure(
      observations({
        saidOnPrimary: 'tick 0 ok\ntick 1 BAD 3\n',
        commits: [commit(0, 23, 100)],
        saidOnSecondary: 'tick 2 BAD 4\n',
      }),
    );
    expect(report).to.include({ ok: false, badPages: 7 });
  });

  it('is not ok without a commit', () => {
    expect(measure(observations({ commits: [], seenOnPrimary: [] }))).to.include({ ok: false });
  });
});

describe('demo: output before its acknowledgement', () => {
  const commits = [commit(0, 10, 100), commit(1, 30, 200)];

  it('counts nothing that came after', () => {
    expect(
      countSeenBeforeAcknowledgement(
        [
          { bytes: 10, atMs: 100 },
          { bytes: 20, atMs: 250 },
        ],
        commits,
      ),
    ).to.equal(0);
  });

  it('counts what came before', () => {
    expect(countSeenBeforeAcknowledgement([{ bytes: 10, atMs: 99 }], commits)).to.equal(10);
    expect(countSeenBeforeAcknowledgement([{ bytes: 14, atMs: 150 }], commits)).to.equal(4);
  });

  it('counts what no acknowledgement ever covered', () => {
    expect(countSeenBeforeAcknowledgement([{ bytes: 35, atMs: 900 }], commits)).to.equal(5);
  });

  it('counts each octet once, however the outside cut it', () => {
    const pieces = Array.from({ length: 30 }, () => ({ bytes: 1, atMs: 150 }));
    expect(countSeenBeforeAcknowledgement(pieces, commits)).to.equal(20);
  });
});
