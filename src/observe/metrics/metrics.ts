// An agent as numbers. Counters and histograms are fed by the reports that it publishes; what has a
// current value is read from statuses() when Prometheus asks for it, so that nothing has to be kept in step.
//
// Names: romulus_, base units, counters end in _total. Every series of a domain has the label `domain`; a counter is
// there from the first scrape on, at 0, because a rate cannot be taken of a series that appears when it first counts.

import { Gauge, Registry } from 'prom-client';
import { EMPTY, type Observable, Subscription } from 'rxjs';
import { VERSION } from '../../version.js';
import { monotonicMs } from '../../flow/clock.js';
import type { AgentService, DiskStatus, DomainRole, DomainStatus, HostPhase } from '../../report/reports.js';
import type { HookOutcome } from '../hooks/events.js';
import { registerProcessMetrics } from './process.js';
import {
  LINK_STATES,
  watchCheckpoints,
  watchCommits,
  watchFailovers,
  watchHooks,
  watchLinks,
  watchStandbys,
  watchTrials,
} from './reports.js';
import { DomainSeries } from './series.js';

export interface Metrics {
  /** Its own for each agent: two of them in one process do not disturb each other. */
  readonly registry: Registry;
  /** Ends the subscriptions; the registry keeps its last values and may still be read. */
  stop(): void;
}

export interface MetricsOptions {
  readonly hookOutcomes$?: Observable<HookOutcome>;
  /** The monotonic clock of the reports, in milliseconds. */
  readonly nowMs?: () => number;
}

const ROLES: readonly DomainRole[] = ['primary', 'standby', 'active', 'fenced', 'ended', 'failed', 'none'];
const PHASES: readonly HostPhase[] = ['none', 'reading', 'booting', 'owner', 'standby', 'changing', 'over'];

/** One host's, for its domains in whichever role. */
export function createAgentMetrics(
  agent: AgentService,
  { hookOutcomes$ = EMPTY, nowMs = monotonicMs }: MetricsOptions = {},
): Metrics {
  const registry = new Registry();
  const subscriptions = new Subscription();
  const series = new DomainSeries(registry, () => agent.statuses());
  new Gauge({
    name: 'romulus_build_info',
    help: 'Always 1; what runs is in the labels.',
    labelNames: ['version', 'node_version'],
    registers: [registry],
  }).set({ version: VERSION, node_version: process.version }, 1);
  ofStatuses(series, nowMs);
  subscriptions.add(watchLinks(series, agent.transitions$));
  subscriptions.add(watchHooks(series, hookOutcomes$));
  registerProcessMetrics(registry);
  series.gauge(
    'romulus_epoch_seen',
    'The last epoch captured, or received whole; -1: none.',
    (status) => status.epochSeen,
  );
  series.gauge(
    'romulus_epoch_committed',
    'The last epoch applied to the standby domain; -1: none.',
    (status) => status.epochCommitted,
  );
  series.gauge(
    'romulus_register_generation',
    'How often who may run the domain has changed, as this host knows; 0: never, or not known.',
    ({ register }) => register?.generation ?? 0,
  );
  series.states(
    'romulus_host_phase',
    'What this host does about the domain: 1 for the phase that it is in, else 0.',
    'phase',
    PHASES,
    ({ phase }) => phase ?? 'none',
  );
  subscriptions.add(watchCheckpoints(series, agent.checkpoints$));
  subscriptions.add(watchCommits(series, agent.commits$));
  subscriptions.add(watchFailovers(series, agent.failover$));
  subscriptions.add(watchStandbys(series, agent.standbyLosses$));
  subscriptions.add(watchTrials(series, agent.trials$));
  return { registry, stop: () => subscriptions.unsubscribe() };
}

function ofStatuses(series: DomainSeries, nowMs: () => number): void {
  series.states(
    'romulus_domain_role',
    'Which part this side plays for the domain: 1 for the role it has, else 0.',
    'role',
    ROLES,
    (status) => status.role,
  );
  series.states(
    'romulus_link_state',
    'State of the link to the other side: 1 for the state it is in, else 0.',
    'state',
    LINK_STATES,
    (status) => status.link,
  );
  series.gauge(
    'romulus_domain_protected',
    '1 if the domain survives the death of its primary host now, as far as this side knows.',
    (status) => Number(isLive(status) && status.link === 'replicating'),
  );
  series.gauge(
    'romulus_epoch_acknowledged',
    'The last epoch acknowledged; -1: none.',
    (status) => status.epochAcknowledged,
  );
  series.gauge(
    'romulus_lag_epochs',
    'Epochs captured (primary) or received (secondary) and not yet safe: acknowledged, or applied.',
    lagEpochs,
  );
  series.gauge(
    'romulus_lag_seconds',
    'Time since the last acknowledgement: how much work of the domain a failover would lose.',
    (status) =>
      isLive(status) && status.acknowledgedAtMs !== null
        ? Math.max(0, nowMs() - status.acknowledgedAtMs) / 1000
        : null,
  );
  series.gauge(
    'romulus_buffered_bytes',
    'Primary: octets of the stream in slabs and socket. Secondary: octets received and not yet applied.',
    (status) => status.bufferedBytes,
  );
  ofSynchronisation(series);
  ofDisks(series);
  series.gauge(
    'romulus_held_output_bytes',
    'Octets of the output of the domain that wait behind the gate.',
    (status) => status.heldOutputBytes,
  );
  series.gauges(
    'romulus_certificate_expiry_timestamp_seconds',
    'When a certificate of this side ends, since 1970: its own, and that of the authority that it trusts. None without TLS.',
    ['certificate'],
    ({ certificates = [] }) =>
      certificates.map(({ certificate, expiresAtMs }) => [{ certificate }, expiresAtMs / 1000]),
  );
}

function ofSynchronisation(series: DomainSeries): void {
  series.gauges(
    'romulus_synchronisation_pages',
    'Of the standby that is brought to its first checkpoint: pages sent, and pages to be sent as far as is known. None is: none.',
    ['pages'],
    ({ synchronisation }) =>
      synchronisation
        ? [
            [{ pages: 'sent' }, synchronisation.pagesSent],
            [{ pages: 'total' }, synchronisation.pagesTotal],
          ]
        : [],
  );
  series.gauges(
    'romulus_synchronisation_disk_bytes',
    'Of the standby that is brought to its first checkpoint: octets of each disk copied, and to be copied. None is: none.',
    ['disk', 'bytes'],
    ({ synchronisation }) =>
      (synchronisation?.disks ?? []).flatMap(({ disk, doneBytes, totalBytes }) => [
        [{ disk, bytes: 'copied' }, doneBytes] as const,
        [{ disk, bytes: 'total' }, totalBytes] as const,
      ]),
  );
  series.gauges(
    'romulus_synchronisation_disk_remaining_seconds',
    'Of the standby that is brought to its first checkpoint: until each disk is copied, at the speed of late. Not known is: none.',
    ['disk'],
    ({ synchronisation }) =>
      (synchronisation?.disks ?? []).flatMap(({ disk, remainingSeconds }) =>
        remainingSeconds === null ? [] : [[{ disk }, remainingSeconds] as const],
      ),
  );
}

function ofDisks(series: DomainSeries): void {
  const each =
    (read: (disk: DiskStatus) => number) =>
    ({ disks = [] }: DomainStatus) =>
      disks.map((disk) => [{ disk: disk.disk }, read(disk)] as const);
  series.counters(
    'romulus_disk_written_bytes_total',
    'Octets of data that the domain has written to each of its replicated disks, since a standby first came.',
    ['disk'],
    each(({ writtenBytes }) => writtenBytes),
  );
  series.counters(
    'romulus_disk_write_requests_total',
    'Requests to write, to zero and to discard that the domain has made to each of its replicated disks.',
    ['disk'],
    each(({ writeRequests }) => writeRequests),
  );
  series.gauges(
    'romulus_disk_journal_bytes',
    'Octets of data in the journal of each disk: what was written since the last checkpoint, and is kept for the next.',
    ['disk'],
    each(({ journalBytes }) => journalBytes),
  );
  series.gauges(
    'romulus_disk_out_of_step',
    '1 if no standby has the disk as of the last checkpoint: none is replicating, or it is not known what was written.',
    ['disk'],
    each(({ inStep }) => Number(!inStep)),
  );
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
