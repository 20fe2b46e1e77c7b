import { expect } from 'chai';
import {
  countSeenBeforeAcknowledgement,
  measure,
  percentile,
  ticks,
  type Observations,
  type Run,
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
const second = 'tick 2 ok\ntick 3 ok\n';

function observations(changes: Partial<Observations> = {}): Observations {
  return {
    checkpoints: [1, 2, 3, 4].map((ms, epoch) => checkpoint(epoch, ms / 1000)),
    first: firstRun(),
    second: secondRun(),
    saidAtLast: 'tick 4 ok\ntick 5 ok\n',
    killedAtMs: 300,
    failoverStartedAtMs: 303.456,
    runningAtMs: 310,
    restartedAtMs: 350,
    reprotectedAtMs: 430.126,
    askedAtMs: 600,
    switchedAtMs: 617,
    ...changes,
  };
}

function firstRun(changes: Partial<Run> = {}): Run {
  return {
    said: `${first}tick 2 ok\n`,
    seen: [
      { bytes: 10, atMs: 101 },
      { bytes: 10, atMs: 201 },
    ],
    commits: [commit(0, 10, 100), commit(1, first.length, 200)],
    ...changes,
  };
}

/** The first line is let out unprotected. */
function secondRun(changes: Partial<Run> = {}): Run {
  return {
    said: second,
    seen: [
      { bytes: 10, atMs: 310 },
      { bytes: 10, atMs: 501 },
    ],
    commits: [commit(0, 10, 400), commit(1, second.length, 500)],
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

  it('finds a clean life sound', () => {
    expect(measure(observations())).to.deep.equal({
      ok: true,
      epochsCommitted: 2,
      tickCommitted: 1,
      tickResumed: 2,
      tickHandedOver: 3,
      tickGoneOn: 4,
      badPages: 0,
      outputBeforeAck: 0,
      pauseMs: { p50: 2, p99: 4 },
      detectMs: 3.46,
      takeoverMs: 6.54,
      reprotectMs: 80.13,
      switchoverMs: 17,
    });
  });

  it('counts a line that the checkpoint cut as printed by the other host', () => {
    const report = measure(
      observations({
        first: firstRun({ commits: [commit(0, first.length + 6, 100)], seen: [] }),
        second: secondRun({ said: ' ok\ntick 3 ok\ntick 4', seen: [] }),
        saidAtLast: ' ok\ntick 5 ok\n',
      }),
    );
    expect(report).to.include({ ok: true, tickCommitted: 1, tickResumed: 2 });
    expect(report).to.include({ tickHandedOver: 3, tickGoneOn: 4 });
  });

  it('finds a lost and a repeated tick after the failover', () => {
    const after = (said: string) => measure(observations({ second: secondRun({ said }) }));
    expect(after('tick 3 ok\n')).to.include({ ok: false, tickCommitted: 1, tickResumed: 3 });
    expect(after('tick 1 ok\ntick 2 ok\ntick 3 ok\n')).to.include({ ok: false, tickResumed: 1 });
    expect(after('')).to.include({ ok: false });
  });

  it('finds a lost and a repeated tick after the switchover', () => {
    const after = (saidAtLast: string) => measure(observations({ saidAtLast }));
    expect(after('tick 5 ok\n')).to.include({ ok: false, tickHandedOver: 3, tickGoneOn: 5 });
    expect(after('tick 3 ok\ntick 4 ok\n')).to.include({ ok: false, tickGoneOn: 3 });
    expect(after('')).to.include({ ok: false, tickGoneOn: -1 });
  });

  it('finds a gap within a run', () => {
    const said = 'tick 2 ok\ntick 4 ok\n';
    const report = measure(observations({ second: secondRun({ said }), saidAtLast: 'tick 5 ok\n' }));
    expect(report).to.include({ ok: false, tickResumed: 2, tickHandedOver: 4, tickGoneOn: 5 });
  });

  it('counts bad pages of all runs once', () => {
    const report = measure(
      observations({
        first: firstRun({ said: 'tick 0 ok\ntick 1 BAD 3\ntick 2 BAD 1\n', commits: [commit(0, 23, 100)] }),
        second: secondRun({ said: 'tick 2 BAD 4\n' }),
        saidAtLast: 'tick 3 BAD 5\n',
      }),
    );
    expect(report).to.include({ ok: false, badPages: 13 });
  });

  it('counts what each host let out too early', () => {
    const seen = [{ bytes: 20, atMs: 450 }];
    const report = measure(observations({ second: secondRun({ seen }) }));
    expect(report).to.include({ ok: false, outputBeforeAck: 10 });
  });

  it('is not ok without a commit on each of them', () => {
    const none = { commits: [], seen: [] };
    expect(measure(observations({ first: firstRun(none) }))).to.include({ ok: false });
    expect(measure(observations({ second: secondRun(none) }))).to.include({ ok: false });
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

  it('counts nothing that was said before the first checkpoint: it is let out as it comes', () => {
    expect(countSeenBeforeAcknowledgement([{ bytes: 10, atMs: 99 }], commits)).to.equal(0);
    expect(countSeenBeforeAcknowledgement([{ bytes: 90, atMs: 99 }], [])).to.equal(0);
  });

  it('counts what came before', () => {
    expect(countSeenBeforeAcknowledgement([{ bytes: 12, atMs: 99 }], commits)).to.equal(2);
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
