// What the log says of a failover: one line with all its times, whatever became of it.

import { expect } from 'chai';
import { BehaviorSubject, Subject } from 'rxjs';
import { FailoverReport } from '../../src/secondary/taking-over.js';
import type { DomainStatus, FailoverEvent } from '../../src/report/reports.js';
import { captureLog } from '../support/capture.js';

const named = { streamUuid: 'A', epoch: 7 };
const held = { ...named, owner: 'north', pairing: 'A' };

describe('secondary/failover report', () => {
  let now: number;
  let acknowledgedAtMs: number | null;
  let lines: () => Record<string, unknown>[];
  let events: FailoverEvent[];
  let error$: BehaviorSubject<DomainStatus['error']>;
  let report: FailoverReport;
  beforeEach(() => {
    now = 1000;
    acknowledgedAtMs = null;
    events = [];
    error$ = new BehaviorSubject<DomainStatus['error']>(null);
    const captured = captureLog({ level: 'info' });
    lines = captured.lines;
    const failover$ = new Subject<FailoverEvent>();
    failover$.subscribe((event) => events.push(event));
    const stream$ = {
      get value() {
        return { acknowledgedAtMs };
      },
    };
    report = new FailoverReport(
      { name: 'web', failover$, error$, stream$, log: captured.log },
      { now: () => now },
    );
  });

  it('says in one line how long detection and takeover took, and both together', () => {
    acknowledgedAtMs = 880;
    report.started(held, 'LINK_CLOSED');
    now += 30;
    report.completed({ ...held, epoch: 6 });
    expect(lines().at(-1)).to.include({
      msg: 'failover: the domain runs here',
      ...{ epoch: 6, reason: 'LINK_CLOSED' },
      ...{ detectMs: 120, takeoverMs: 30, totalMs: 150 },
    });
    expect(events.map(({ phase, epoch }) => `${phase} ${epoch}`)).to.deep.equal(['started 7', 'completed 6']);
    expect(events.at(-1)).to.include({ takeoverSeconds: 0.03 });
  });

  it('says nothing of a detection that is not known', () => {
    report.started(held, 'LINK_CLOSED');
    report.completed(held);
    expect(lines().at(-1)).not.to.have.any.keys('detectMs', 'totalMs');
  });

  it('of one that is tried again: begun once, failed once for each reason', () => {
    for (const code of ['BAD_CONTEXT', 'BAD_CONTEXT', 'FAILED']) {
      report.started(held, 'LINK_CLOSED');
      report.failed(code, 'no');
    }
    const seen = events.map((event) => (event.phase === 'failed' ? event.error.code : event.phase));
    expect(seen).to.deep.equal(['started', 'BAD_CONTEXT', 'FAILED']);
  });

  it('of one that cannot be, says so, and why', () => {
    error$.next({ code: 'STANDBY_LOST', message: 'killed' });
    report.impossible(held, 'HEARTBEAT_TIMEOUT');
    const error = {
      code: 'NO_STANDBY',
      message: 'the primary died before its lost standby was replaced; killed',
    };
    expect(lines().at(-1)).to.include({ level: 'error', epoch: 7, reason: 'HEARTBEAT_TIMEOUT' });
    expect(events).to.deep.equal([
      {
        ...{ phase: 'failed', domain: 'web', ...named, reason: 'HEARTBEAT_TIMEOUT', planned: false },
        ...{ atMs: 1000, error },
      },
    ]);
    expect(error$.value).to.deep.equal(error);
  });
});
