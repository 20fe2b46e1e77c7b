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
import { gauge, stateSet } from './kinds.js';
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

export function createPrimaryMetrics(service: PrimaryService, options: MetricsOptions = {}): Metrics {
  const { registry, subscriptions } = start('primary', service, options);
  const statuses = () => service.statuses();
  gauge(
    registry,
    'romulus_epoch_captured',
    'The last epoch captured; -1: none.',
    statuses,
    (status) => status.epochSeen,
  );
  subscriptions.add(watchCheckpoints(registry, statuses, service.checkpoints$));
  return finish(registry, subscriptions);
}

export function createSecondaryMetrics(service: SecondaryService, options: MetricsOptions = {}): Metrics {
  const { registry, subscriptions } = start('secondary', service, options);
  const statuses = () => service.statuses();
  gauge(
    registry,
    'romulus_epoch_received',
    'The last epoch received whole; -1: none.',
    statuses,
    (status) => status.epochSeen,
  );
  gauge(
    registry,
    'romulus_epoch_committed',
    'The last epoch applied to the standby domain; -1: none.',
    statuses,
    (status) => status.epochCommitted,
  );
  subscriptions.add(watchCommits(registry, statuses, service.commits$));
  subscriptions.add(watchFailovers(registry, statuses, service.failover$));
  subscriptions.add(watchStandbys(registry, statuses, service.standbyLosses$));
  return finish(registry, subscriptions);
}

function finish(registry: Registry, subscriptions: Subscription): Metrics {
  return { registry, stop: () => subscriptions.unsubscribe() };
}

/** What both sides have. */
function start(
  side: 'primary' | 'secondary',
  service: { statuses(): readonly DomainStatus[]; readonly transitions$: Observable<TransitionReport> },
  options: MetricsOptions,
): { registry: Registry; subscriptions: Subscription } {
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

  stateSet(
    registry,
    'romulus_domain_role',
    'role',
    ROLES,
    'Which part this side plays for the domain: 1 for the role it has, else 0.',
    statuses,
    (status) => status.role,
  );
  stateSet(
    registry,
    'romulus_link_state',
    'state',
    LINK_STATES,
    'State of the link to the other side: 1 for the state it is in, else 0.',
    statuses,
    (status) => status.link,
  );
  gauge(
    registry,
    'romulus_domain_protected',
    '1 if the domain survives the death of its primary host now, as far as this side knows.',
    statuses,
    (status) => Number(isLive(status) && status.link === 'replicating'),
  );
  gauge(
    registry,
    'romulus_epoch_acknowledged',
    'The last epoch acknowledged; -1: none.',
    statuses,
    (status) => status.epochAcknowledged,
  );
  gauge(
    registry,
    'romulus_lag_epochs',
    'Epochs captured (primary) or received (secondary) and not yet safe: acknowledged, or applied.',
    statuses,
    lagEpochs,
  );
  gauge(
    registry,
    'romulus_lag_seconds',
    'Time since the last acknowledgement: how much work of the domain a failover would lose.',
    statuses,
    (status) =>
      isLive(status) && status.acknowledgedAtMs !== null
        ? Math.max(0, nowMs() - status.acknowledgedAtMs) / 1000
        : null,
  );
  gauge(
    registry,
    'romulus_buffered_bytes',
    'Primary: octets of the stream in slabs and socket. Secondary: octets received and not yet applied.',
    statuses,
    (status) => status.bufferedBytes,
  );
  gauge(
    registry,
    'romulus_held_output_bytes',
    'Octets of the output of the domain that wait behind the gate.',
    statuses,
    (status) => status.heldOutputBytes,
  );
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
  subscriptions.add(watchLinks(registry, statuses, service.transitions$));
  subscriptions.add(watchHooks(registry, statuses, options.hookOutcomes$ ?? EMPTY));
  registerProcessMetrics(registry);
  return { registry, subscriptions };
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
