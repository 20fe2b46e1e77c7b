// The services as numbers. Counters and histograms are fed by the reports that the services publish; what has a
// current value is read from statuses() when Prometheus asks for it, so that nothing has to be kept in step.
//
// Names: romulus_, base units, counters end in _total. Every series of a domain has the label `domain`; a counter is
// there from the first scrape on, at 0, because a rate cannot be taken of a series that appears when it first counts.

import { Gauge, Registry } from 'prom-client';
import { EMPTY, type Observable, Subscription } from 'rxjs';
import { VERSION } from '../../version.js';
import { monotonicMs } from '../../flow/clock.js';
import type { HookOutcome } from '../hooks/outcome.js';
import { gauge, stateSet, type GaugeRow, type StateRow, type Statuses } from './kinds.js';
import {
  LINK_STATES,
  watchCheckpoints,
  watchCommits,
  watchFailovers,
  watchHooks,
  watchLinks,
  watchStandbys,
} from './reports.js';
import { registerProcessMetrics } from './process.js';
import type {
  DomainRole,
  DomainStatus,
  PrimaryService,
  SecondaryService,
  TransitionReport,
} from '../../report/reports.js';

export interface Metrics {
  /** Its own for each service: two services in one process do not disturb each other. */
  readonly registry: Registry;
  /** Ends the subscriptions; the registry keeps its last values and may still be read. */
  stop(): void;
}

export interface MetricsOptions {
  readonly hookOutcomes$?: Observable<HookOutcome>;
  /** The monotonic clock of the reports, in milliseconds. */
  readonly nowMs?: () => number;
}

const ROLES: readonly DomainRole[] = ['primary', 'standby', 'active', 'fenced', 'ended', 'failed'];

const STATES: readonly StateRow[] = [
  {
    name: 'romulus_domain_role',
    label: 'role',
    states: ROLES,
    help: 'Which part this side plays for the domain: 1 for the role it has, else 0.',
    read: (status) => status.role,
  },
  {
    name: 'romulus_link_state',
    label: 'state',
    states: LINK_STATES,
    help: 'State of the link to the other side: 1 for the state it is in, else 0.',
    read: (status) => status.link,
  },
];

/** What both sides have. */
const GAUGES: readonly GaugeRow[] = [
  {
    name: 'romulus_domain_protected',
    help: '1 if the domain survives the death of its primary host now, as far as this side knows.',
    read: (status) => Number(isLive(status) && status.link === 'replicating'),
  },
  {
    name: 'romulus_epoch_acknowledged',
    help: 'The last epoch acknowledged; -1: none.',
    read: (status) => status.epochAcknowledged,
  },
  {
    name: 'romulus_lag_epochs',
    help: 'Epochs captured (primary) or received (secondary) and not yet safe: acknowledged, or applied.',
    read: lagEpochs,
  },
  {
    name: 'romulus_lag_seconds',
    help: 'Time since the last acknowledgement: how much work of the domain a failover would lose.',
    read: (status, nowMs) =>
      isLive(status) && status.acknowledgedAtMs !== null
        ? Math.max(0, nowMs - status.acknowledgedAtMs) / 1000
        : null,
  },
  {
    name: 'romulus_buffered_bytes',
    help: 'Primary: octets of the stream in slabs and socket. Secondary: octets received and not yet applied.',
    read: (status) => status.bufferedBytes,
  },
  {
    name: 'romulus_held_output_bytes',
    help: 'Octets of the output of the domain that wait behind the gate.',
    read: (status) => status.heldOutputBytes,
  },
];

const PRIMARY_GAUGES: readonly GaugeRow[] = [
  {
    name: 'romulus_epoch_captured',
    help: 'The last epoch captured; -1: none.',
    read: (status) => status.epochSeen,
  },
];

const SECONDARY_GAUGES: readonly GaugeRow[] = [
  {
    name: 'romulus_epoch_received',
    help: 'The last epoch received whole; -1: none.',
    read: (status) => status.epochSeen,
  },
  {
    name: 'romulus_epoch_committed',
    help: 'The last epoch applied to the standby domain; -1: none.',
    read: (status) => status.epochCommitted,
  },
];

export function createPrimaryMetrics(service: PrimaryService, options: MetricsOptions = {}): Metrics {
  const { registry, subscriptions, statuses } = start('primary', service, options, PRIMARY_GAUGES);
  subscriptions.add(watchCheckpoints(registry, statuses, service.checkpoints$));
  return finish(registry, subscriptions);
}

export function createSecondaryMetrics(service: SecondaryService, options: MetricsOptions = {}): Metrics {
  const { registry, subscriptions, statuses } = start('secondary', service, options, SECONDARY_GAUGES);
  subscriptions.add(watchCommits(registry, statuses, service.commits$));
  subscriptions.add(watchFailovers(registry, statuses, service.failover$));
  subscriptions.add(watchStandbys(registry, statuses, service.standbyLosses$));
  return finish(registry, subscriptions);
}

function finish(registry: Registry, subscriptions: Subscription): Metrics {
  return { registry, stop: () => subscriptions.unsubscribe() };
}

/** `own`: what this side has beside what both have. */
function start(
  side: 'primary' | 'secondary',
  service: { statuses(): readonly DomainStatus[]; readonly transitions$: Observable<TransitionReport> },
  options: MetricsOptions,
  own: readonly GaugeRow[],
): { registry: Registry; subscriptions: Subscription; statuses: Statuses } {
  const registry = new Registry();
  const subscriptions = new Subscription();
  const statuses = () => service.statuses();
  const nowMs = options.nowMs ?? monotonicMs;
  new Gauge({
    name: 'romulus_build_info',
    help: 'Always 1; what runs is in the labels.',
    labelNames: ['side', 'version', 'node_version'],
    registers: [registry],
  }).set({ side, version: VERSION, node_version: process.version }, 1);
  for (const row of STATES) stateSet(registry, row, statuses);
  for (const row of [...GAUGES, ...own]) gauge(registry, row, statuses, nowMs);
  certificateGauge(registry, statuses);
  subscriptions.add(watchLinks(registry, statuses, service.transitions$));
  subscriptions.add(watchHooks(registry, statuses, options.hookOutcomes$ ?? EMPTY));
  registerProcessMetrics(registry);
  return { registry, subscriptions, statuses };
}

function certificateGauge(registry: Registry, statuses: Statuses): void {
  new Gauge({
    name: 'romulus_certificate_expiry_timestamp_seconds',
    help: 'When a certificate of this side ends, since 1970: its own, and that of the authority that it trusts. None without TLS.',
    labelNames: ['domain', 'certificate'],
    registers: [registry],
    collect() {
      this.reset();
      for (const { domain, certificates = [] } of statuses()) {
        for (const { certificate, expiresAtMs } of certificates)
          this.set({ domain, certificate }, expiresAtMs / 1000);
      }
    },
  });
}

/** Replication still goes on or is to come: a lag means something. */
function isLive(status: DomainStatus): boolean {
  return status.role === 'primary' || status.role === 'standby';
}

function lagEpochs(status: DomainStatus): number | null {
  if (!isLive(status)) return null;
  const safe = status.role === 'primary' ? status.epochAcknowledged : status.epochCommitted;
  return Math.max(0, status.epochSeen - safe);
}
