// From the services' reports to counters and histograms: one function for each kind of report.

import { Gauge, Histogram, type Registry } from 'prom-client';
import type { Observable, Subscription } from 'rxjs';
import type { HookOutcome } from '../hooks/outcome.js';
import { counter, type Statuses } from './kinds.js';
import type {
  CheckpointPhases,
  CheckpointReport,
  CommitReport,
  FailoverEvent,
  LinkState,
  StandbyLossReport,
  StandbyState,
  TransitionReport,
} from '../../report/reports.js';

export const LINK_STATES: readonly LinkState[] = ['down', 'connecting', 'syncing', 'replicating', 'suspect'];

const PHASES: readonly (keyof CheckpointPhases)[] = [
  'suspend',
  'copy',
  'state',
  'resume',
  'send',
  'acknowledge',
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
  registry: Registry,
  statuses: Statuses,
  checkpoints$: Observable<CheckpointReport>,
): Subscription {
  const checkpoints = counter(registry, 'romulus_checkpoints_total', 'Checkpoints acknowledged.', statuses);
  const dirtyPages = counter(
    registry,
    'romulus_checkpoint_dirty_pages_total',
    'Pages captured in the pauses of acknowledged checkpoints.',
    statuses,
  );
  const bytes = counter(
    registry,
    'romulus_checkpoint_bytes_total',
    'Octets of the stream in acknowledged checkpoints.',
    statuses,
  );
  const pause = new Histogram({
    name: 'romulus_checkpoint_pause_seconds',
    help: 'How long the domain stood still for a checkpoint.',
    labelNames: ['domain'],
    buckets: PAUSE_BUCKETS,
    registers: [registry],
  });
  const phase = new Histogram({
    name: 'romulus_checkpoint_phase_seconds',
    help: 'The phases of a checkpoint: suspend, copy, state and resume make up the pause; send and acknowledge follow it.',
    labelNames: ['domain', 'phase'],
    buckets: PHASE_BUCKETS,
    registers: [registry],
  });
  return checkpoints$.subscribe((report) => {
    const { domain } = report;
    checkpoints.inc({ domain });
    dirtyPages.inc({ domain }, report.dirtyPages);
    bytes.inc({ domain }, report.bytes);
    pause.observe({ domain }, report.pause);
    for (const name of PHASES) phase.observe({ domain, phase: name }, report.phases[name]);
  });
}

export function watchCommits(
  registry: Registry,
  statuses: Statuses,
  commits$: Observable<CommitReport>,
): Subscription {
  const commits = counter(
    registry,
    'romulus_commits_total',
    'Epochs applied to the standby domain.',
    statuses,
  );
  const records = counter(
    registry,
    'romulus_commit_records_total',
    'Records applied to the standby domain.',
    statuses,
  );
  const pages = counter(
    registry,
    'romulus_commit_pages_total',
    'Pages written into the standby domain.',
    statuses,
  );
  const bytes = counter(
    registry,
    'romulus_commit_bytes_total',
    'Octets of the stream applied to the standby domain.',
    statuses,
  );
  const apply = new Histogram({
    name: 'romulus_commit_apply_seconds',
    help: 'How long it took to apply an epoch to the standby domain.',
    labelNames: ['domain'],
    buckets: PHASE_BUCKETS,
    registers: [registry],
  });
  return commits$.subscribe((report) => {
    const { domain } = report;
    commits.inc({ domain });
    records.inc({ domain }, report.records);
    pages.inc({ domain }, report.pages);
    bytes.inc({ domain }, report.bytes);
    apply.observe({ domain }, report.applySeconds);
  });
}

export function watchFailovers(
  registry: Registry,
  statuses: Statuses,
  failover$: Observable<FailoverEvent>,
): Subscription {
  const failovers = counter(registry, 'romulus_failovers_total', 'Failovers by how they ended.', statuses, [
    { result: 'completed' },
    { result: 'failed' },
  ]);
  const detect = new Gauge({
    name: 'romulus_failover_detect_seconds',
    help: 'From the last acknowledgement to the decision to fail over: at most this long the death of the primary went unnoticed.',
    labelNames: ['domain'],
    registers: [registry],
  });
  const takeover = new Gauge({
    name: 'romulus_failover_takeover_seconds',
    help: 'From the decision to fail over to the domain running here.',
    labelNames: ['domain'],
    registers: [registry],
  });
  return failover$.subscribe((event) => {
    const { domain } = event;
    switch (event.phase) {
      case 'started': {
        const at = statuses().find((status) => status.domain === domain)?.acknowledgedAtMs ?? null;
        if (at !== null) detect.set({ domain }, Math.max(0, event.atMs - at) / 1000);
        break;
      }
      case 'completed':
        failovers.inc({ domain, result: 'completed' });
        takeover.set({ domain }, event.takeoverSeconds);
        break;
      case 'failed':
        failovers.inc({ domain, result: 'failed' });
        break;
    }
  });
}

const STANDBY_STATES: readonly StandbyState[] = ['spare', 'filling', 'held'];

export function watchStandbys(
  registry: Registry,
  statuses: Statuses,
  losses$: Observable<StandbyLossReport>,
): Subscription {
  const losses = counter(
    registry,
    'romulus_standby_losses_total',
    'Standby domains that ended by themselves or were of no use, and were replaced, by what they were.',
    statuses,
    STANDBY_STATES.map((was) => ({ was })),
  );
  return losses$.subscribe(({ domain, was }) => losses.inc({ domain, was }));
}

export function watchLinks(
  registry: Registry,
  statuses: Statuses,
  transitions$: Observable<TransitionReport>,
): Subscription {
  const transitions = counter(
    registry,
    'romulus_link_transitions_total',
    'Changes of the state of the link, by the state that it changed to.',
    statuses,
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

export function watchHooks(
  registry: Registry,
  statuses: Statuses,
  outcomes$: Observable<HookOutcome>,
): Subscription {
  const hooks = ['command', 'webhook'];
  const results = ['success', 'failure', 'timeout', 'cancelled'];
  const runs = counter(
    registry,
    'romulus_hook_runs_total',
    'Commands and webhooks that were run to tell of a failover, by how they ended.',
    statuses,
    hooks.flatMap((hook) => results.map((result) => ({ hook, result }))),
  );
  return outcomes$.subscribe(({ domain, hook, result }) => runs.inc({ domain, hook, result }));
}
