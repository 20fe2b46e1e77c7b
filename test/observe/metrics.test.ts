// The numbers of an agent: what the reports add up to, what the statuses say at the scrape, and that Prometheus' own
// checker finds nothing to complain about.

import { expect } from 'chai';
import { Subject } from 'rxjs';
import type { HookOutcome } from '../../src/observe/hooks/events.js';
import { createAgentMetrics, type Metrics } from '../../src/observe/metrics/metrics.js';
import { promtool, PROMTOOL_TIMEOUT_MS } from '../support/promtool.js';
import {
  checkpoint,
  commit,
  failoverCompleted,
  failoverFailed,
  failoverStarted,
  FakeAgent,
  status,
} from '../service/fakes.js';

/** The value of one series, by its name and labels as the text format writes them; undefined: no such series. */
async function read(metrics: Metrics, series: string): Promise<number | undefined> {
  const line = (await metrics.registry.metrics()).split('\n').find((one) => one.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

describe('metrics of an owner', () => {
  it('adds up checkpoints', async () => {
    const service = new FakeAgent(status());
    const metrics = createAgentMetrics(service);
    service.checkpoints$.next(checkpoint());
    service.checkpoints$.next(checkpoint({ epoch: 8, dirtyPages: 50, bytes: 1000, pause: 0.04 }));
    expect(await read(metrics, 'romulus_checkpoints_total{domain="web"}')).to.equal(2);
    expect(await read(metrics, 'romulus_checkpoint_dirty_pages_total{domain="web"}')).to.equal(250);
    expect(await read(metrics, 'romulus_checkpoint_bytes_total{domain="web"}')).to.equal(821_000);
    expect(await read(metrics, 'romulus_checkpoint_pause_seconds_sum{domain="web"}')).to.be.closeTo(
      0.044,
      1e-9,
    );
    expect(await read(metrics, 'romulus_checkpoint_pause_seconds_bucket{le="0.005",domain="web"}')).to.equal(
      1,
    );
    expect(await read(metrics, 'romulus_checkpoint_pause_seconds_bucket{le="+Inf",domain="web"}')).to.equal(
      2,
    );
    for (const phase of ['suspend', 'copy', 'state', 'resume', 'send', 'acknowledge']) {
      const series = `romulus_checkpoint_phase_seconds_count{domain="web",phase="${phase}"}`;
      expect(await read(metrics, series), phase).to.equal(2);
    }
    metrics.stop();
  });

  it('says when certificates end, where there are any', async () => {
    const certificates = [
      { certificate: 'own', expiresAtMs: 1_800_000_000_500 },
      { certificate: 'authority', expiresAtMs: 1_900_000_000_000 },
    ] as const;
    const metrics = createAgentMetrics(new FakeAgent(status({ certificates }), status({ domain: 'db' })));
    const series = (domain: string, certificate: string) =>
      `romulus_certificate_expiry_timestamp_seconds{domain="${domain}",certificate="${certificate}"}`;
    expect(await read(metrics, series('web', 'own'))).to.equal(1_800_000_000.5);
    expect(await read(metrics, series('web', 'authority'))).to.equal(1_900_000_000);
    expect(await read(metrics, series('db', 'own'))).to.equal(undefined);
    metrics.stop();
  });

  it('reads what is current at the scrape', async () => {
    const service = new FakeAgent(status());
    const metrics = createAgentMetrics(service, { nowMs: () => 1200 });
    expect(await read(metrics, 'romulus_domain_role{domain="web",role="primary"}')).to.equal(1);
    expect(await read(metrics, 'romulus_domain_role{domain="web",role="fenced"}')).to.equal(0);
    expect(await read(metrics, 'romulus_link_state{domain="web",state="replicating"}')).to.equal(1);
    expect(await read(metrics, 'romulus_domain_protected{domain="web"}')).to.equal(1);
    expect(await read(metrics, 'romulus_epoch_seen{domain="web"}')).to.equal(8);
    expect(await read(metrics, 'romulus_epoch_acknowledged{domain="web"}')).to.equal(7);
    expect(await read(metrics, 'romulus_lag_epochs{domain="web"}')).to.equal(1);
    expect(await read(metrics, 'romulus_lag_seconds{domain="web"}')).to.equal(0.2);
    expect(await read(metrics, 'romulus_buffered_bytes{domain="web"}')).to.equal(4096);
    expect(await read(metrics, 'romulus_held_output_bytes{domain="web"}')).to.equal(12);

    service.domains = [
      status({ role: 'fenced', link: 'down' }),
      status({
        ...{ domain: 'mail', link: 'syncing', acknowledgedAtMs: null },
        synchronisation: {
          ...{ resumes: false, pagesSent: 5, pagesTotal: 9, seconds: 1 },
          disks: [
            { disk: 'root', doneBytes: 65_536, totalBytes: 131_072, remainingSeconds: 2.5 },
            { disk: 'data', doneBytes: 0, totalBytes: 131_072, remainingSeconds: null },
          ],
        },
      }),
    ];
    const copied = (bytes: string) =>
      read(metrics, `romulus_synchronisation_disk_bytes{domain="mail",disk="root",bytes="${bytes}"}`);
    expect(await copied('copied')).to.equal(65_536);
    expect(await copied('total')).to.equal(131_072);
    const remaining = (disk: string) =>
      read(metrics, `romulus_synchronisation_disk_remaining_seconds{domain="mail",disk="${disk}"}`);
    expect(await remaining('root')).to.equal(2.5);
    expect(await remaining('data'), 'not known').to.equal(undefined);
    expect(await read(metrics, 'romulus_synchronisation_pages{domain="mail",pages="sent"}')).to.equal(5);
    expect(await read(metrics, 'romulus_domain_role{domain="web",role="primary"}')).to.equal(0);
    expect(await read(metrics, 'romulus_domain_role{domain="web",role="fenced"}')).to.equal(1);
    expect(await read(metrics, 'romulus_domain_protected{domain="web"}')).to.equal(0);
    expect(await read(metrics, 'romulus_lag_seconds{domain="web"}')).to.equal(undefined);
    expect(await read(metrics, 'romulus_domain_protected{domain="mail"}')).to.equal(0);
    expect(await read(metrics, 'romulus_lag_seconds{domain="mail"}')).to.equal(undefined);

    service.domains = [];
    expect(await read(metrics, 'romulus_buffered_bytes{domain="web"}')).to.equal(undefined);
    metrics.stop();
  });

  it('tells of each replicated disk what is written to it, what waits, and whether it is in step', async () => {
    const written = { writeRequests: 3, writtenBytes: 8192, journalBytes: 4096 };
    const root = { disk: 'root', bytes: 2 ** 20, ...written, inStep: true, lost: null };
    const data = { ...root, disk: 'data', inStep: false, lost: 'its mirror has gone' };
    const service = new FakeAgent(status({ disks: [root, data] }), status({ domain: 'mail' }));
    const metrics = createAgentMetrics(service);
    const of = (name: string, disk: string) => read(metrics, `${name}{domain="web",disk="${disk}"}`);
    expect(await of('romulus_disk_written_bytes_total', 'root')).to.equal(8192);
    expect(await of('romulus_disk_write_requests_total', 'root')).to.equal(3);
    expect(await of('romulus_disk_journal_bytes', 'root')).to.equal(4096);
    expect(await of('romulus_disk_out_of_step', 'root')).to.equal(0);
    expect(await of('romulus_disk_out_of_step', 'data')).to.equal(1);
    service.domains = [status({ disks: [{ ...root, writeRequests: 4, writtenBytes: 12_288 }] })];
    expect(await of('romulus_disk_written_bytes_total', 'root'), 'not added').to.equal(12_288);
    expect(await of('romulus_disk_out_of_step', 'data'), 'gone').to.equal(undefined);
    expect(await metrics.registry.metrics()).not.to.match(/domain="mail",disk=/);
    metrics.stop();
  });

  it('has each counter at 0 before anything happens, and counts no more once stopped', async () => {
    const outcomes$ = new Subject<HookOutcome>();
    const service = new FakeAgent(status());
    const metrics = createAgentMetrics(service, { hookOutcomes$: outcomes$ });
    expect(await read(metrics, 'romulus_checkpoints_total{domain="web"}')).to.equal(0);
    expect(await read(metrics, 'romulus_link_transitions_total{domain="web",state="suspect"}')).to.equal(0);
    expect(
      await read(metrics, 'romulus_hook_runs_total{domain="web",hook="webhook",result="timeout"}'),
    ).to.equal(0);
    metrics.stop();
    for (const subject of [service.checkpoints$, service.transitions$, outcomes$]) {
      expect(subject.observed).to.equal(false);
    }
  });

  it('counts changes of the link, not those of the role alone, and hook runs', async () => {
    const outcomes$ = new Subject<HookOutcome>();
    const service = new FakeAgent(status());
    const metrics = createAgentMetrics(service, { hookOutcomes$: outcomes$ });
    const change = { domain: 'web', reason: 'LINK_CLOSED', atMs: 1 } as const;
    service.transitions$.next({ ...change, role: 'primary', link: 'replicating' });
    service.transitions$.next({ ...change, role: 'primary', link: 'down' });
    service.transitions$.next({ ...change, role: 'fenced', link: 'down' });
    service.transitions$.next({ ...change, role: 'fenced', link: 'replicating' });
    expect(await read(metrics, 'romulus_link_transitions_total{domain="web",state="down"}')).to.equal(1);
    expect(await read(metrics, 'romulus_link_transitions_total{domain="web",state="replicating"}')).to.equal(
      2,
    );
    outcomes$.next({
      hook: 'command',
      event: 'fenced',
      domain: 'web',
      seconds: 1,
      result: 'timeout',
      details: {},
    });
    expect(
      await read(metrics, 'romulus_hook_runs_total{domain="web",hook="command",result="timeout"}'),
    ).to.equal(1);
    metrics.stop();
  });

  it('keeps two agents in one process apart, and shows the process in both', async () => {
    const one = new FakeAgent(status());
    const metrics = [createAgentMetrics(one), createAgentMetrics(new FakeAgent(status()))] as const;
    one.checkpoints$.next(checkpoint());
    expect(await read(metrics[0], 'romulus_checkpoints_total{domain="web"}')).to.equal(1);
    expect(await read(metrics[1], 'romulus_checkpoints_total{domain="web"}')).to.equal(0);
    for (const { registry } of metrics) {
      expect(await registry.metrics()).to.match(/^process_resident_memory_bytes \d+/m);
      expect(await registry.metrics()).to.match(/^nodejs_eventloop_lag_p99_seconds /m);
    }
    for (const one of metrics) one.stop();
  });
});

describe('metrics of a standby', () => {
  const standby = () => status({ role: 'standby', epochSeen: 8, epochAcknowledged: 8, epochCommitted: 6 });

  it('adds up commits and measures the lag of applying', async () => {
    const service = new FakeAgent(standby());
    const metrics = createAgentMetrics(service);
    service.commits$.next(commit());
    service.commits$.next(commit({ epoch: 8, records: 2, pages: 1, bytes: 10, applySeconds: 0.5 }));
    expect(await read(metrics, 'romulus_commits_total{domain="web"}')).to.equal(2);
    expect(await read(metrics, 'romulus_commit_records_total{domain="web"}')).to.equal(7);
    expect(await read(metrics, 'romulus_commit_pages_total{domain="web"}')).to.equal(201);
    expect(await read(metrics, 'romulus_commit_bytes_total{domain="web"}')).to.equal(820_010);
    expect(await read(metrics, 'romulus_commit_apply_seconds_count{domain="web"}')).to.equal(2);
    expect(await read(metrics, 'romulus_epoch_seen{domain="web"}')).to.equal(8);
    expect(await read(metrics, 'romulus_epoch_committed{domain="web"}')).to.equal(6);
    expect(await read(metrics, 'romulus_lag_epochs{domain="web"}')).to.equal(2);
    metrics.stop();
  });

  it('counts the standbys that were lost, by what they were', async () => {
    const service = new FakeAgent(status({ role: 'standby' }));
    const metrics = createAgentMetrics(service);
    const series = (was: string) => read(metrics, `romulus_standby_losses_total{domain="web",was="${was}"}`);
    expect(await series('held')).to.equal(0);
    for (const was of ['held', 'held', 'filling'] as const) {
      service.standbyLosses$.next({ domain: 'web', was, reason: 'killed', atMs: 1 });
    }
    expect([await series('spare'), await series('filling'), await series('held')]).to.deep.equal([0, 1, 2]);
    metrics.stop();
  });

  it('counts failovers by result and measures them', async () => {
    const service = new FakeAgent(standby(), status({ ...standby(), domain: 'mail' }));
    const metrics = createAgentMetrics(service);
    expect(await read(metrics, 'romulus_failovers_total{domain="web",result="completed"}')).to.equal(0);
    expect(await read(metrics, 'romulus_failover_takeover_seconds{domain="web"}')).to.equal(undefined);
    service.failover$.next(failoverStarted);
    service.failover$.next(failoverCompleted);
    service.failover$.next({ ...failoverFailed, domain: 'mail' });
    expect(await read(metrics, 'romulus_failovers_total{domain="web",result="completed"}')).to.equal(1);
    expect(await read(metrics, 'romulus_failovers_total{domain="web",result="failed"}')).to.equal(0);
    expect(await read(metrics, 'romulus_failovers_total{domain="mail",result="failed"}')).to.equal(1);
    expect(await read(metrics, 'romulus_failover_detect_seconds{domain="web"}')).to.equal(0.25);
    service.failover$.next({ ...failoverStarted, planned: true, atMs: 5000 });
    service.failover$.next({ ...failoverCompleted, planned: true });
    expect(await read(metrics, 'romulus_failovers_total{domain="web",result="completed"}')).to.equal(1);
    expect(await read(metrics, 'romulus_switchovers_total{domain="web",result="completed"}')).to.equal(1);
    expect(await read(metrics, 'romulus_failover_detect_seconds{domain="web"}')).to.equal(0.25);
    expect(await read(metrics, 'romulus_failover_takeover_seconds{domain="web"}')).to.equal(0.01);
    metrics.stop();
    expect(service.failover$.observed || service.commits$.observed).to.equal(false);
  });
});

describe('metrics of an agent', () => {
  it('counts test failovers, by what they showed', async () => {
    const service = new FakeAgent(status({ role: 'standby' }));
    const metrics = createAgentMetrics(service);
    const count = (result: string) =>
      read(metrics, `romulus_test_failovers_total{domain="web",result="${result}"}`);
    expect([await count('lives'), await count('dead')]).to.deep.equal([0, 0]);
    const report = { domain: 'web', host: 'beta', epoch: 1, why: '', seconds: 1, changedPages: 1 };
    for (const lives of [true, false, true]) {
      service.trials$.next({ ...report, lives, outputBytes: 0, console: '' });
    }
    expect([await count('lives'), await count('dead')]).to.deep.equal([2, 1]);
    metrics.stop();
    expect(service.trials$.observed).to.equal(false);
  });
});

describe('metrics and Prometheus', () => {
  it('promtool check metrics has no complaint', async function () {
    this.timeout(PROMTOOL_TIMEOUT_MS);
    const agent = new FakeAgent(status(), status({ domain: 'mail', role: 'standby' }));
    const metrics = createAgentMetrics(agent);
    agent.checkpoints$.next(checkpoint());
    agent.commits$.next(commit({ domain: 'mail' }));
    for (const event of [failoverStarted, failoverCompleted])
      agent.failover$.next({ ...event, domain: 'mail' });
    const checked = await promtool(['check', 'metrics'], await metrics.registry.metrics());
    metrics.stop();
    if (checked === null) return this.skip();
    expect(checked).to.deep.equal({ code: 0, output: '' });
  });
});
