// What `romulus primary` and `romulus secondary` have in common: a service with its metrics, its HTTP side and its
// hooks, from start to an end in order.
//
//   start: service, HTTP, reports to a supervisor ── until: signal, supervisor gone, or all domains at their end
//   end:   service (says bye), hooks settled, HTTP last, so that the last scrape sees the end; then the log's last lines

import { Subscription, type Observable } from 'rxjs';
import type { HooksConfig, HttpConfig } from '../config/schema.js';
import type { HookEvent, HookOutcome } from '../observe/hooks/events.js';
import { startHooks } from '../observe/hooks/hooks.js';
import { createHttpServer } from '../observe/http/server.js';
import type { Logger } from '../report/log.js';
import type { Metrics } from '../observe/metrics/metrics.js';
import type { DomainStatus, PrimaryService, SecondaryService } from '../report/reports.js';
import { ExitCode, isInputCode } from './exit-codes.js';
import { lastWords, lastWordsTo } from './last-words.js';
import { aborted, onInterruption } from './signals.js';
import { leaveSupervisor, supervisorGone, tellSupervisor, type SupervisorMessage } from './supervisor.js';

export interface Side<Service extends PrimaryService | SecondaryService> {
  readonly side: 'primary' | 'secondary';
  readonly service: Service;
  readonly log: Logger;
  readonly http: HttpConfig;
  readonly hooks: HooksConfig;
  readonly hookEvents$: Observable<HookEvent>;
  metrics(hookOutcomes$: Observable<HookOutcome>): Metrics;
  /** Beside 'listening': what a supervising program is told. */
  report(tell: (message: SupervisorMessage) => void): readonly Subscription[];
  /** The port of the replication; null for a secondary, which dials. */
  port(): number | null;
}

export async function serve<Service extends PrimaryService | SecondaryService>(
  side: Side<Service>,
): Promise<ExitCode> {
  const { service, log } = side;
  lastWordsTo(log);
  // Before anything is open that could be opened anew.
  const interruption = onInterruption(() => void service.reload());
  const orphaned = supervisorGone();
  const hooks = startHooks(side.hooks, side.hookEvents$, log);
  const metrics = side.metrics(hooks.outcomes$);
  const http =
    side.http === false
      ? null
      : createHttpServer({
          ...side.http,
          side: side.side,
          registry: metrics.registry,
          statuses: () => service.statuses(),
          log,
        });
  const reports = new Subscription();
  for (const subscription of side.report(tellSupervisor)) reports.add(subscription);
  try {
    await http?.start();
    await service.start();
    const unusable = unusableDomains(service.statuses());
    const ports = { port: side.port(), httpPort: http?.port ?? null };
    const open = Object.fromEntries(Object.entries(ports).filter(([, port]) => port !== null));
    log.info(open, side.side === 'primary' ? 'waiting for secondaries' : 'looking for the primaries');
    tellSupervisor({ kind: 'listening', ...ports });
    const why = await Promise.race([
      aborted(interruption.signal).then(() => 'asked to by a signal'),
      aborted(orphaned).then(() => 'the supervising program is gone'),
      service.finished.then(() => 'every domain has come to its end'),
    ]);
    const code = exitCodeOf(service.statuses(), unusable);
    log.info({ why, exitCode: code }, 'stopping');
    return code;
  } finally {
    await service.stop();
    await hooks.settled();
    await hooks.stop();
    metrics.stop();
    await http?.stop();
    reports.unsubscribe();
    leaveSupervisor();
    await lastWords();
    interruption.dispose();
  }
}

/** Those that could not be made as they are configured, right after the start. */
function unusableDomains(statuses: readonly DomainStatus[]): ReadonlySet<string> {
  const unusable = statuses.filter(
    ({ role, error }) => role === 'failed' && error && isInputCode(error.code),
  );
  return new Set(unusable.map(({ domain }) => domain));
}

/** What the domains came to; running ones count as well, they are stopped because somebody asked for it. */
function exitCodeOf(statuses: readonly DomainStatus[], unusable: ReadonlySet<string>): ExitCode {
  const failed = statuses.filter((status) => status.role === 'failed');
  if (failed.some(({ domain }) => !unusable.has(domain))) return ExitCode.FAILED;
  if (failed.length > 0) return ExitCode.USAGE;
  if (statuses.some((status) => status.role === 'fenced')) return ExitCode.FENCED;
  return ExitCode.OK;
}
