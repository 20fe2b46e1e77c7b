// What the log says of a failover: one line with all its times, whatever became of it.

import { expect } from 'chai';
import { FailoverReport, NO_STANDBY } from '../../src/secondary/failover-report.js';
import { MONOTONIC, monotonicMs } from '../../src/flow/clock.js';
import { createLogger } from '../../src/report/log.js';
import type { FailoverEvent } from '../../src/report/reports.js';

const held = { streamUuid: 'A', epoch: 7 };

describe('service: the report of a failover', () => {
  let lines: Record<string, unknown>[];
  let report: FailoverReport;
  beforeEach(() => {
    lines = [];
    const log = createLogger(
      { level: 'info', format: 'json' },
      { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
    );
    report = new FailoverReport('web', MONOTONIC, log);
  });

  it('says in one line how long detection and takeover took, and both together', () => {
    const events = [report.started(held, 'LINK_CLOSED', monotonicMs() - 120), report.completed(held)];
    const line = lines.at(-1) ?? {};
    expect(line).to.include({ msg: 'failover: the domain runs here', epoch: 7, reason: 'LINK_CLOSED' });
    expect(line['detectMs']).to.be.within(120, 1000);
    expect(line['takeoverMs']).to.be.within(0, 1000);
    expect(Number(line['totalMs'])).to.be.closeTo(Number(line['detectMs']) + Number(line['takeoverMs']), 0.2);
    expect(events.map((event) => event?.phase)).to.deep.equal(['started', 'completed']);
  });

  it('says nothing of a detection that is not known', () => {
    report.started(held, 'LINK_CLOSED', null);
    report.completed(held);
    expect(lines.at(-1)).not.to.have.any.keys('detectMs', 'totalMs');
  });

  it('of one that cannot be, says so, and why', () => {
    const event: FailoverEvent = report.impossible(held, 'HEARTBEAT_TIMEOUT', 'killed');
    expect(lines.at(-1)).to.include({ level: 'error', epoch: 7, reason: 'HEARTBEAT_TIMEOUT' });
    expect(event).to.deep.include({
      phase: 'failed',
      domain: 'web',
      ...held,
      error: { code: NO_STANDBY, message: 'killed' },
    });
  });
});
