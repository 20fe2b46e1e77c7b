// What hooks are told: the failover as the secondary sees it, and its mirror image on the old primary. And what becomes of
// a hook.

import { filter, map, merge, type Observable } from 'rxjs';
import type { AgentService } from '../../report/reports.js';

export interface HookEvent {
  readonly event: 'failover-started' | 'failover-completed' | 'failover-failed' | 'fenced';
  readonly domain: string;
  /** Null where it is not known. */
  readonly streamUuid: string | null;
  /** The epoch that the domain goes on from; null where it is not known. */
  readonly epoch: number | null;
  readonly reason: string;
  /** Of a failover: it was asked for, as a switchover. */
  readonly planned?: boolean;
  /** The time of day, ISO 8601. */
  readonly time: string;
  /** failover-completed: from the decision to the domain running. */
  readonly takeoverSeconds?: number;
  /** failover-failed. */
  readonly error?: { readonly code: string; readonly message: string };
}

export type HookKind = 'command' | 'webhook';
/** `cancelled`: the service stopped, or the queue was full. */
export type HookResult = 'success' | 'failure' | 'timeout' | 'cancelled';

/** What one attempt, or a row of them, came to. */
export interface HookRun {
  readonly result: HookResult;
  /** What an operator needs to know: exit code, signal, HTTP status, the command's last words. */
  readonly details: Readonly<Record<string, string | number | null>>;
}

export interface HookOutcome extends HookRun {
  readonly hook: HookKind;
  readonly event: HookEvent['event'];
  readonly domain: string;
  readonly seconds: number;
}

type Told = Pick<AgentService, 'failover$' | 'transitions$' | 'statuses'>;

export function agentHookEvents(agent: Told): Observable<HookEvent> {
  return merge(failovers(agent), fencings(agent));
}

function failovers({ failover$ }: Told): Observable<HookEvent> {
  return failover$.pipe(
    map((failover): HookEvent => {
      const { domain, streamUuid, epoch, reason, planned } = failover;
      const common = { domain, streamUuid, epoch, reason, planned, time: new Date().toISOString() };
      switch (failover.phase) {
        case 'started':
          return { event: 'failover-started', ...common };
        case 'completed':
          return { event: 'failover-completed', ...common, takeoverSeconds: failover.takeoverSeconds };
        case 'failed':
          return { event: 'failover-failed', ...common, error: failover.error };
      }
    }),
  );
}

/** The old primary learns that it is no longer one. */
function fencings(agent: Told): Observable<HookEvent> {
  return agent.transitions$.pipe(
    filter(({ role }) => role === 'fenced'),
    map(({ domain, reason }): HookEvent => {
      const status = agent.statuses().find((candidate) => candidate.domain === domain);
      return {
        event: 'fenced',
        domain,
        streamUuid: status?.streamUuid ?? null,
        epoch: status?.epochAcknowledged ?? null,
        reason,
        time: new Date().toISOString(),
      };
    }),
  );
}
