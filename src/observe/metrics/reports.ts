// From an agent's reports to counters and histograms: one function for each kind of report.

import type { Observable, Subscription } from 'rxjs';
import type { HookOutcome } from '../hooks/events.js';
import type {
  CheckpointPhases,
  CheckpointReport,
  CommitReport,
  FailoverEvent,
  LinkState,
  StandbyLossReport,
  StandbyState,
  TransitionReport,
  TrialReport,
} from '../../report/reports.js';
import type { DomainSeries } from './series.js';

export const LINK_STATES: readonly LinkState[] = ['down', 'connecting', 'syncing', 'replicating', 'suspect'];
const STANDBY_STATES: readonly StandbyState[] = ['spare', 'filling', 'held'];
const PHASES: readonly (keyof CheckpointPhases)[] = [
  ...(['suspend', 'copy', 'state', 'resume', 'send', 'acknowledge'] as const),
];

/** Dense where a pause is felt or not: single milliseconds. */
const PAUSE_BUCKETS = [
  0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1,
];

/** From a resume (tens of microseconds) to an acknowledgement that is nearly given up. */
const PHASE_BUCKETS = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5,
];

export function watchCheckpoints(
  series: DomainSeries,
  checkpoints$: Observable<CheckpointReport>,
): Subscription {
  const checkpoints = series.counter('romulus_checkpoints_total', 'Checkpoints acknowledged.');
  const dirtyPages = series.counter(
    'romulus_checkpoint_dirty_pages_total',
    'Pages captured in the pauses of acknowledged checkpoints.',
  );
  const bytes = series.counter(
    'romulus_checkpoint_bytes_total',
    'Octets of the stream in acknowledged checkpoints.',
  );
  const pause = series.histogram(
    'romulus_checkpoint_pause_seconds',
    'How long the domain stood still for a checkpoint.',
    PAUSE_BUCKETS,
  );
  const phase = series.histogram(
    'romulus_checkpoint_phase_seconds',
    'The phases of a checkpoint: suspend, copy, state and resume make up the pause; send and acknowledge follow it.',
    PHASE_BUCKETS,
    ['phase'],
  );
  const synchronisations = series.counter(
    'romulus_synchronisations_total',
    'Standbys brought to their first checkpoint: from nothing, or from what they shared with the primary.',
    [{ from: 'nothing' }, { from: 'shared' }],
  );
  const synchronised = series.reported(
    'romulus_synchronisation_seconds',
    'How long the last one took, to its acknowledgement.',
  );
  return checkpoints$.subscribe((report) => {
    const { domain, synchronisation } = report;
    if (synchronisation) {
      synchronisations.inc({ domain, from: synchronisation.resumes ? 'shared' : 'nothing' });
      synchronised.set({ domain }, synchronisation.seconds);
    }
    checkpoints.inc({ domain });
    dirtyPages.inc({ domain }, report.dirtyPages);
    bytes.inc({ domain }, report.bytes);
    pause.observe({ domain }, report.pause);
    for (const name of PHASES) phase.observe({ domain, phase: name }, report.phases[name]);
  });
}

export function watchCommits(series: DomainSeries, commits$: Observable<CommitReport>): Subscription {
  const commits = series.counter('romulus_commits_total', 'Epochs applied to the standby domain.');
  const records = series.counter('romulus_commit_records_total', 'Records applied to the standby domain.');
  const pages = series.counter('romulus_commit_pages_total', 'Pages written into the standby domain.');
  const bytes = series.counter(
    'romulus_commit_bytes_total',
    'Octets of the stream applied to the standby domain.',
  );
  const apply = series.histogram(
    'romulus_commit_apply_seconds',
    'How long it took to apply an epoch to the standby domain.',
    PHASE_BUCKETS,
  );
  return commits$.subscribe((report) => {
    const { domain } = report;
    commits.inc({ domain });
    records.inc({ domain }, report.records);
    pages.inc({ domain }, report.pages);
    bytes.inc({ domain }, report.bytes);
    apply.observe({ domain }, report.applySeconds);
  });
}

export function watchFailovers(series: DomainSeries, failover$: Observable<FailoverEvent>): Subscription {
  const results = [{ result: 'completed' }, { result: 'failed' }];
  const failovers = series.counter('romulus_failovers_total', 'Failovers by how they ended.', results);
  const switchovers = series.counter(
    'romulus_switchovers_total',
    'Takeovers that were asked for on the other host, by how they ended.',
    results,
  );
  const detect = series.reported(
    'romulus_failover_detect_seconds',
    'From the last acknowledgement to the decision to fail over: at most this long the death of the primary went unnoticed.',
  );
  const takeover = series.reported(
    'romulus_failover_takeover_seconds',
    'From the decision to fail over to the domain running here.',
  );
  return failover$.subscribe((event) => {
    const { domain, phase: result } = event;
    if (event.phase === 'started') {
      // Of one that was asked for there was nothing to be noticed.
      if (event.planned) return;
      const at = series.statuses().find((status) => status.domain === domain)?.acknowledgedAtMs ?? null;
      if (at !== null) detect.set({ domain }, Math.max(0, event.atMs - at) / 1000);
      return;
    }
    (event.planned ? switchovers : failovers).inc({ domain, result });
    if (event.phase === 'completed') takeover.set({ domain }, event.takeoverSeconds);
  });
}

export function watchStandbys(series: DomainSeries, losses$: Observable<StandbyLossReport>): Subscription {
  const losses = series.counter(
    'romulus_standby_losses_total',
    'Standby domains that ended by themselves or were of no use, and were replaced, by what they were.',
    STANDBY_STATES.map((was) => ({ was })),
  );
  return losses$.subscribe(({ domain, was }) => losses.inc({ domain, was }));
}

export function watchTrials(series: DomainSeries, trials$: Observable<TrialReport>): Subscription {
  const results = [{ result: 'lives' }, { result: 'dead' }];
  const trials = series.counter(
    'romulus_test_failovers_total',
    'Test failovers by what they showed: the copy of the domain lives, or not.',
    results,
  );
  return trials$.subscribe(({ domain, lives }) => trials.inc({ domain, result: lives ? 'lives' : 'dead' }));
}

export function watchLinks(series: DomainSeries, transitions$: Observable<TransitionReport>): Subscription {
  const transitions = series.counter(
    'romulus_link_transitions_total',
    'Changes of the state of the link, by the state that it changed to.',
    LINK_STATES.map((state) => ({ state })),
  );
  // A transition may be one of the role alone.
  const last = new Map<string, LinkState>();
  return transitions$.subscribe(({ domain, link }) => {
    if (last.get(domain) === link) return;
    last.set(domain, link);
    transitions.inc({ domain, state: link });
  });
}

export function watchHooks(series: DomainSeries, outcomes$: Observable<HookOutcome>): Subscription {
  const results = ['success', 'failure', 'timeout', 'cancelled'];
  const runs = series.counter(
    'romulus_hook_runs_total',
    'Commands and webhooks that were run to tell of a failover, by how they ended.',
    ['command', 'webhook'].flatMap((hook) => results.map((result) => ({ hook, result }))),
  );
  return outcomes$.subscribe(({ domain, hook, result }) => runs.inc({ domain, hook, result }));
}
