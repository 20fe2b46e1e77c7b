// romulus agent: the agent of a host with its metrics, its HTTP side, its control socket and its hooks, from start to an end in order.
//
//   start: HTTP, control, agent, reports to a supervisor ── until: signal, or supervisor gone
//   end:   agent (says bye), hooks settled, HTTP last, so that the last scrape sees the end; then the log's last lines
//
// What Node would write to standard error by itself goes through the log: its warnings, and the error that ends the
// process. Node waits until they are written, and if nobody reads them, the process neither lives nor dies.

import type { Subscription } from 'rxjs';
import { loadCluster } from '../config/cluster.js';
import { agentHookEvents } from '../observe/hooks/events.js';
import { startHooks } from '../observe/hooks/hooks.js';
import { createControl } from '../observe/http/control.js';
import { createHttpServer } from '../observe/http/server.js';
import { createAgentMetrics } from '../observe/metrics/metrics.js';
import { createLogger, flushLog, type Logger } from '../report/log.js';
import type { AgentService, DomainStatus } from '../report/reports.js';
import { createAgent } from '../service/agent.js';
import { ExitCode, isInputCode } from './exit-codes.js';
import { aborted, onInterruption } from './signals.js';
import { leaveSupervisor, supervisorGone, tellSupervisor } from './supervisor.js';

const FLUSH_MS = 1000;

export async function agentVerb(file: string, host?: string): Promise<ExitCode> {
  const config = await loadCluster(file, host);
  const log = createLogger(config.log);
  const agent = createAgent(config, { log });
  lastWordsTo(log);
  // Before anything is open that could be opened anew.
  const interruption = onInterruption(() => void agent.reload());
  const orphaned = supervisorGone();
  const hooks = startHooks(config.hooks, agentHookEvents(agent), log);
  const metrics = createAgentMetrics(agent, { hookOutcomes$: hooks.outcomes$ });
  const { registry } = metrics;
  const statuses = () => agent.statuses();
  const http = config.http === false ? null : createHttpServer({ ...config.http, registry, statuses, log });
  const control = createControl({ socket: config.control, agent, log });
  const told = tellReports(agent);
  try {
    await http?.start();
    await control.start();
    await agent.start();
    const httpPort = http?.port ?? null;
    log.info({ port: agent.port, ...(httpPort !== null && { httpPort }) }, 'at work');
    tellSupervisor({ kind: 'listening', port: agent.port, httpPort });
    const why = await Promise.race([
      aborted(interruption.signal).then(() => 'asked to by a signal'),
      aborted(orphaned).then(() => 'the supervising program is gone'),
    ]);
    const code = exitCodeOf(agent.statuses());
    log.info({ why, exitCode: code }, 'stopping');
    return code;
  } finally {
    await agent.stop();
    await hooks.settled();
    await hooks.stop();
    metrics.stop();
    await control.stop();
    await http?.stop();
    for (const subscription of told) subscription.unsubscribe();
    leaveSupervisor();
    await lastWords();
    interruption.dispose();
  }
}

/** Beside 'listening': what a supervising program is told. */
function tellReports(agent: AgentService): readonly Subscription[] {
  return [
    agent.checkpoints$.subscribe((report) => tellSupervisor({ kind: 'checkpoint', report })),
    agent.commits$.subscribe((report) => tellSupervisor({ kind: 'commit', report })),
    agent.failover$.subscribe((event) => tellSupervisor({ kind: 'failover', event })),
    agent.transitions$.subscribe((report) => tellSupervisor({ kind: 'transition', report })),
    agent.roles$.subscribe((report) => tellSupervisor({ kind: 'role', report })),
  ];
}

/** What the domains have come to; running ones count as well, they are stopped because somebody asked for it. */
function exitCodeOf(statuses: readonly DomainStatus[]): ExitCode {
  const failed = statuses.filter(({ role }) => role === 'failed');
  if (failed.length === 0) return ExitCode.OK;
  return failed.every(({ error }) => error !== null && isInputCode(error.code))
    ? ExitCode.USAGE
    : ExitCode.FAILED;
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
