// romulus agent, romulus primary and romulus secondary: a service with its metrics, its HTTP side and its hooks, from start to an end in
// order.
//
//   start: service, HTTP, reports to a supervisor ── until: signal, supervisor gone, or all domains at their end
//   end:   service (says bye), hooks settled, HTTP last, so that the last scrape sees the end; then the log's last lines
//
// What Node would write to standard error by itself goes through the log: its warnings, and the error that ends the
// process. Node waits until they are written, and if nobody reads them, the process neither lives nor dies.

import type { Observable, Subscription } from 'rxjs';
import { loadCluster } from '../config/cluster.js';
import { loadPrimaryConfig, loadSecondaryConfig } from '../config/load.js';
import type { HooksConfig, HttpConfig } from '../config/schema.js';
import {
  agentHookEvents,
  failoverHookEvents,
  fencedHookEvents,
  type HookEvent,
  type HookOutcome,
} from '../observe/hooks/events.js';
import { startHooks } from '../observe/hooks/hooks.js';
import { createControl } from '../observe/http/control.js';
import { createHttpServer } from '../observe/http/server.js';
import {
  createAgentMetrics,
  createPrimaryMetrics,
  createSecondaryMetrics,
  type Metrics,
} from '../observe/metrics/metrics.js';
import { createLogger, flushLog, type Logger } from '../report/log.js';
import type { AgentService, DomainStatus, PrimaryService, SecondaryService } from '../report/reports.js';
import { createAgent } from '../service/agent.js';
import { createPrimaryService } from '../service/primary-service.js';
import { createSecondaryService } from '../service/secondary-service.js';
import { ExitCode, isInputCode } from './exit-codes.js';
import { aborted, onInterruption } from './signals.js';
import { leaveSupervisor, supervisorGone, tellSupervisor } from './supervisor.js';

const FLUSH_MS = 1000;

const STARTED = {
  primary: 'waiting for secondaries',
  secondary: 'looking for the primaries',
  agent: 'at work',
} as const;

/** What a service is configured to do beside its own. */
interface SideConfig {
  /** The socket of an agent. */
  readonly control?: string;
  readonly http: HttpConfig;
  readonly hooks: HooksConfig;
}

interface Side {
  readonly side: 'primary' | 'secondary' | 'agent';
  readonly service: PrimaryService | SecondaryService | AgentService;
  readonly log: Logger;
  readonly hookEvents$: Observable<HookEvent>;
  metrics(hookOutcomes$: Observable<HookOutcome>): Metrics;
  /** Beside 'listening': what a supervising program is told. */
  tell(): readonly Subscription[];
  /** The port of the replication; null for a secondary, which dials. */
  port(): number | null;
}

export async function primaryVerb(file: string): Promise<ExitCode> {
  const config = await loadPrimaryConfig(file);
  const log = createLogger(config.log);
  const service = createPrimaryService(config, { log });
  return serve(config, {
    side: 'primary',
    service,
    log,
    hookEvents$: fencedHookEvents(service),
    metrics: (hookOutcomes$) => createPrimaryMetrics(service, { hookOutcomes$ }),
    tell: () => [
      service.checkpoints$.subscribe((report) => tellSupervisor({ kind: 'checkpoint', report })),
      service.transitions$.subscribe((report) => tellSupervisor({ kind: 'transition', report })),
    ],
    port: () => service.port,
  });
}

export async function secondaryVerb(file: string): Promise<ExitCode> {
  const config = await loadSecondaryConfig(file);
  const log = createLogger(config.log);
  const service = createSecondaryService(config, { log });
  return serve(config, {
    side: 'secondary',
    service,
    log,
    hookEvents$: failoverHookEvents(service),
    metrics: (hookOutcomes$) => createSecondaryMetrics(service, { hookOutcomes$ }),
    tell: () => [
      service.commits$.subscribe((report) => tellSupervisor({ kind: 'commit', report })),
      service.failover$.subscribe((event) => tellSupervisor({ kind: 'failover', event })),
      service.transitions$.subscribe((report) => tellSupervisor({ kind: 'transition', report })),
    ],
    port: () => null,
  });
}

export async function agentVerb(file: string, host?: string): Promise<ExitCode> {
  const config = await loadCluster(file, host);
  const log = createLogger(config.log);
  const service = createAgent(config, { log });
  return serve(config, {
    side: 'agent',
    service,
    log,
    hookEvents$: agentHookEvents(service),
    metrics: (hookOutcomes$) => createAgentMetrics(service, { hookOutcomes$ }),
    tell: () => [
      service.checkpoints$.subscribe((report) => tellSupervisor({ kind: 'checkpoint', report })),
      service.commits$.subscribe((report) => tellSupervisor({ kind: 'commit', report })),
      service.failover$.subscribe((event) => tellSupervisor({ kind: 'failover', event })),
      service.roles$.subscribe((report) => tellSupervisor({ kind: 'role', report })),
      service.transitions$.subscribe((report) => tellSupervisor({ kind: 'transition', report })),
    ],
    port: () => service.port,
  });
}

async function serve(config: SideConfig, side: Side): Promise<ExitCode> {
  const { service, log } = side;
  lastWordsTo(log);
  // Before anything is open that could be opened anew.
  const interruption = onInterruption(() => void service.reload());
  const orphaned = supervisorGone();
  const hooks = startHooks(config.hooks, side.hookEvents$, log);
  const metrics = side.metrics(hooks.outcomes$);
  const { registry } = metrics;
  const http =
    config.http === false
      ? null
      : createHttpServer({
          ...config.http,
          side: side.side,
          registry,
          statuses: () => service.statuses(),
          log,
        });
  const control =
    config.control !== undefined && 'force' in service
      ? createControl({ socket: config.control, agent: service, log })
      : null;
  const told = side.tell();
  try {
    await http?.start();
    await control?.start();
    await service.start();
    const unusable = unusableDomains(service.statuses());
    const ports = { port: side.port(), httpPort: http?.port ?? null };
    const open = Object.fromEntries(Object.entries(ports).filter(([, port]) => port !== null));
    log.info(open, STARTED[side.side]);
    tellSupervisor({ kind: 'listening', ...ports });
    const why = await Promise.race([
      aborted(interruption.signal).then(() => 'asked to by a signal'),
      aborted(orphaned).then(() => 'the supervising program is gone'),
      ...('finished' in service ? [service.finished.then(() => 'every domain has come to its end')] : []),
    ]);
    const code = exitCodeOf(service.statuses(), unusable);
    log.info({ why, exitCode: code }, 'stopping');
    return code;
  } finally {
    await service.stop();
    await hooks.settled();
    await hooks.stop();
    metrics.stop();
    await control?.stop();
    await http?.stop();
    for (const subscription of told) subscription.unsubscribe();
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

function lastWordsTo(log: Logger): void {
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.warn({ err: warning }, 'a warning of Node'));
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'an error that nobody expected: the process ends');
    process.exit(ExitCode.FAILED);
  });
}

/** At an orderly end: what the log still has to write has its time. */
export function lastWords(): Promise<void> {
  return flushLog(FLUSH_MS);
}
