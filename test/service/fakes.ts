// An agent's face, played by Subjects: what metrics, hooks and the HTTP side see of it.

import { Subject } from 'rxjs';
import type {
  AgentService,
  CheckpointReport,
  CommitReport,
  DomainStatus,
  FailoverEvent,
  RoleReport,
  StandbyLossReport,
  TransitionReport,
  TrialReport,
} from '../../src/report/reports.js';

export function status(changes: Partial<DomainStatus> = {}): DomainStatus {
  return {
    domain: 'web',
    role: 'primary',
    link: 'replicating',
    peer: '127.0.0.1:50000',
    streamUuid: 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
    epochSeen: 8,
    epochAcknowledged: 7,
    epochCommitted: 7,
    acknowledgedAtMs: 1000,
    bufferedBytes: 4096,
    heldOutputBytes: 12,
    error: null,
    ...changes,
  };
}

export function checkpoint(changes: Partial<CheckpointReport> = {}): CheckpointReport {
  return {
    domain: 'web',
    streamUuid: 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
    epoch: 7,
    dirtyPages: 200,
    bytes: 820_000,
    pause: 0.004,
    phases: { suspend: 0.001, copy: 0.002, state: 0.0009, resume: 0.0001, send: 0.003, acknowledge: 0.001 },
    outputBytes: 100,
    ...changes,
  };
}

export function commit(changes: Partial<CommitReport> = {}): CommitReport {
  return {
    domain: 'web',
    streamUuid: 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
    epoch: 7,
    records: 5,
    pages: 200,
    bytes: 820_000,
    applySeconds: 0.002,
    acknowledgedAtMs: 1000,
    outputBytes: 100,
    ...changes,
  };
}

const failoverFacts = {
  domain: 'web',
  streamUuid: 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
  epoch: 7,
  reason: 'HEARTBEAT_TIMEOUT',
  planned: false,
};
export const failoverStarted: FailoverEvent = { phase: 'started', ...failoverFacts, atMs: 1250 };
export const failoverCompleted: FailoverEvent = {
  phase: 'completed',
  ...failoverFacts,
  atMs: 1260,
  takeoverSeconds: 0.01,
};
export const failoverFailed: FailoverEvent = {
  phase: 'failed',
  ...failoverFacts,
  atMs: 1260,
  error: { code: 'DOMAIN_GONE', message: 'the standby is gone' },
};

export class FakeAgent implements AgentService {
  domains: DomainStatus[];
  readonly host = 'alpha';
  readonly port = 0;
  readonly checkpoints$ = new Subject<CheckpointReport>();
  readonly commits$ = new Subject<CommitReport>();
  readonly failover$ = new Subject<FailoverEvent>();
  readonly standbyLosses$ = new Subject<StandbyLossReport>();
  readonly transitions$ = new Subject<TransitionReport>();
  readonly roles$ = new Subject<RoleReport>();
  readonly trials$ = new Subject<TrialReport>();

  constructor(...domains: DomainStatus[]) {
    this.domains = domains;
  }
  start = () => Promise.resolve();
  stop = () => Promise.resolve();
  reload = () => Promise.resolve();
  statuses = () => this.domains;
  refresh = () => Promise.resolve();
  requestCheckpoint = () => undefined;
  force = () => false;
  switchover = () => Promise.reject(new Error('this is no agent'));
  evacuate = () => Promise.resolve([]);
  testFailover = () => Promise.reject(new Error('this is no agent'));
}
