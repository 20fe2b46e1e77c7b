// What an agent says of itself: the public face that programs subscribe to. All times in seconds unless the name
// says otherwise; `…At` are readings of the machine's monotonic clock in milliseconds (process.hrtime), comparable
// between processes of one host.

import type { Observable } from 'rxjs';
import type { CertificateExpiry } from '../channel/credentials/tls-files.js';
import type { DiskProgress } from '../save/callbacks.js';

export type { CertificateExpiry };

export interface CheckpointPhases {
  readonly suspend: number;
  readonly copy: number;
  readonly state: number;
  readonly resume: number;
  readonly send: number;
  /** From the last piece sent to the acknowledgement. */
  readonly acknowledge: number;
}

/** How a standby is, or was, brought to its first checkpoint. */
export interface Synchronisation {
  /** It goes on from what the standby has: what has changed since is sent, not all memory. */
  readonly resumes: boolean;
  /** Some of them more than once, for the domain runs meanwhile. */
  readonly pagesSent: number;
  /** As far as is known. */
  readonly pagesTotal: number;
  /** Before memory; none until it is known what they lack. */
  readonly disks: readonly DiskSynchronisation[];
  readonly seconds: number;
}

export interface DiskSynchronisation extends DiskProgress {
  /** At the speed of the last seconds, until this disk is copied; null: that is not known. */
  readonly remainingSeconds: number | null;
}

/** A replicated disk of a domain that runs here. */
export interface DiskStatus {
  readonly disk: string;
  /** Of the disk, as the guest sees it. */
  readonly bytes: number;
  /** The guest's writes, zeroes and discards, and octets of data in them, since they come to us: since the first standby came. */
  readonly writeRequests: number;
  readonly writtenBytes: number;
  /** Octets of data that wait for the end of the epoch. */
  readonly journalBytes: number;
  /** The standby's image is as of the last checkpoint that was acknowledged. */
  readonly inStep: boolean;
  /** Why it is not, if that is not only that no standby is replicating: what is written to it is not known. Else null. */
  readonly lost: string | null;
}

/** agent.checkpoints$: one for each acknowledged epoch. */
export interface CheckpointReport {
  readonly domain: string;
  readonly streamUuid: string;
  readonly epoch: number;
  readonly dirtyPages: number;
  readonly bytes: number;
  /** Of the first of a stream. */
  readonly synchronisation?: Synchronisation;
  /** suspend + copy + state + resume. */
  readonly pause: number;
  readonly phases: CheckpointPhases;
  /** Octets of output that the domain had emitted when the epoch was sealed, since the domain was created. */
  readonly outputBytes: number;
}

/** agent.commits$: one for each epoch that is applied to the standby domain. */
export interface CommitReport {
  readonly domain: string;
  readonly streamUuid: string;
  readonly epoch: number;
  readonly records: number;
  readonly pages: number;
  readonly bytes: number;
  readonly applySeconds: number;
  /** When the acknowledgement was given to the socket. */
  readonly acknowledgedAtMs: number;
  readonly outputBytes: number;
}

/**
 * agent.standbyLosses$: a standby has ended by itself, or is of no use, before it was taken over. It is replaced and
 * filled again.
 */
export interface StandbyLossReport {
  readonly domain: string;
  readonly was: StandbyState;
  readonly reason: string;
  readonly atMs: number;
}

export type StandbyState =
  | 'spare' // waits for a stream
  | 'filling' // has no whole checkpoint yet
  | 'held'; // what would have been failed over to

/**
 * agent.failover$: the decision (`started`), then its end. After `completed` this host runs the domain. `failed` after `started`: the domain did not start; unless its code is DOMAIN_GONE it is
 * tried again, and `completed` may follow. `failed` alone, with the code NO_STANDBY: the primary died when its standby was lost
 * and not replaced yet, and nothing was started.
 */
export type FailoverEvent = FailoverStarted | FailoverCompleted | FailoverFailed;

interface FailoverBase {
  readonly domain: string;
  readonly streamUuid: string;
  /** The epoch that the domain goes on from. In `completed` it may be one before that of `started`. */
  readonly epoch: number;
  /** Why: a code ("LINK_CLOSED", "HEARTBEAT_TIMEOUT", …). */
  readonly reason: string;
  /** It was handed over by its owner: a switchover. */
  readonly planned: boolean;
  readonly atMs: number;
}
export interface FailoverStarted extends FailoverBase {
  readonly phase: 'started';
}
export interface FailoverCompleted extends FailoverBase {
  readonly phase: 'completed';
  /** From `started` to the domain running. */
  readonly takeoverSeconds: number;
}
export interface FailoverFailed extends FailoverBase {
  readonly phase: 'failed';
  readonly error: { readonly code: string; readonly message: string };
}

export type DomainRole =
  | 'primary' // runs here, protected or waiting for a secondary
  | 'standby' // kept here, runs elsewhere
  | 'active' // taken over, and runs here: for the moment until its host plays the primary
  | 'fenced' // was primary here; the secondary has taken over
  | 'ended' // shut down by itself
  | 'failed' // cannot go on; the log says why
  | 'none'; // nothing of it is here

export type LinkState =
  | 'down'
  | 'connecting'
  | 'syncing' // linked, the first checkpoint is not committed yet: not protected
  | 'replicating'
  | 'suspect'; // lost, and not yet decided whether to fail over (secondary only)

/** A snapshot of one domain of an agent: what the metrics, the health checks and the page show. */
export interface DomainStatus {
  readonly domain: string;
  readonly role: DomainRole;
  readonly link: LinkState;
  readonly peer: string | null;
  readonly streamUuid: string | null;
  /** The last epoch captured (primary) or received whole (secondary); -1: none. */
  readonly epochSeen: number;
  /** The last epoch acknowledged; -1: none. */
  readonly epochAcknowledged: number;
  /** The last epoch applied to the standby domain (secondary); -1: none. */
  readonly epochCommitted: number;
  /** When the last acknowledgement was received (primary) or given (secondary), monotonic clock; null: never. */
  readonly acknowledgedAtMs: number | null;
  /** Primary: stream octets in slabs and socket. Secondary: octets received and not yet applied. */
  readonly bufferedBytes: number;
  /** Octets of output behind the gate. */
  readonly heldOutputBytes: number;
  /** Those that are replicated, on the primary; not there: none is. */
  readonly disks?: readonly DiskStatus[];
  /** Under way on the primary; null, or not there: none is. */
  readonly synchronisation?: Synchronisation | null;
  /** By what the domain was stopped, if not by us: it stands still until somebody lets it run. Null, or not there: it is not. */
  readonly stoppedBy?: string | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  /** What its host does about it, and the register as the host knows it; not there: there is none. */
  readonly phase?: HostPhase;
  readonly register?: RegisterReport | null;
  /** Of the certificates that its link depends on here; none without TLS. */
  readonly certificates?: readonly CertificateExpiry[];
}

/** What a host does about a domain. */
export type HostPhase =
  | 'none' // nothing runs here, and nothing shall
  | 'reading' // the register is asked
  | 'booting' // it is ours, and will be started
  | 'owner' // it runs here
  | 'standby' // it stands by here, or tries to
  | 'changing' // from one to the other
  | 'over'; // the host leaves

export interface RegisterReport {
  readonly generation: number;
  readonly mode: 'alone' | 'paired';
  readonly owner: string;
  readonly standby: string | null;
  readonly stream: string | null;
}

/** agent.roles$: one per change of what a host does about a domain. */
export interface RoleReport {
  readonly domain: string;
  readonly host: string;
  readonly phase: HostPhase;
  readonly register: RegisterReport | null;
  readonly reason: string;
  readonly atMs: number;
}

/** One per change of role or link state. */
export interface TransitionReport {
  readonly domain: string;
  readonly role: DomainRole;
  readonly link: LinkState;
  readonly reason: string;
  readonly atMs: number;
}

/** All that one host does for the domains of its cluster. */
export interface AgentService {
  /** The name of this host. */
  readonly host: string;
  /** The replication port, once started (for port 0). */
  readonly port: number;
  readonly checkpoints$: Observable<CheckpointReport>;
  readonly commits$: Observable<CommitReport>;
  readonly failover$: Observable<FailoverEvent>;
  readonly standbyLosses$: Observable<StandbyLossReport>;
  readonly transitions$: Observable<TransitionReport>;
  readonly roles$: Observable<RoleReport>;
  /** One for each trial that was made. */
  readonly trials$: Observable<TrialReport>;
  /** Resolves when it listens; what becomes of the domains then, the reports and statuses() tell. */
  start(): Promise<void>;
  /** Ends everything in order: links with a bye, domains destroyed, sockets closed. Safe to call twice. */
  stop(): Promise<void>;
  /**
   * Opens the files of the domains' outputs anew, by their names, and reads the certificates and the token again: for new
   * connections.
   * What cannot be opened or read stays as it is, and is logged. Never rejects; links and domains notice nothing.
   */
  reload(): Promise<void>;
  statuses(): readonly DomainStatus[];
  /** The registers in statuses() are those of the moment when this resolves, where the witness answers. Never rejects. */
  refresh(): Promise<void>;
  /** Asks for a checkpoint now, ahead of the interval. Nothing happens where the domain does not run. */
  requestCheckpoint(domain: string): void;
  /**
   * Lets the domain start here whatever the register says: for whoever knows that no other host runs it. False: it runs
   * or stands by here already.
   */
  force(domain: string): boolean;
  /**
   * The domain goes on at its standby, from where it stands; here it stands by from then on. `to`: only if that is the
   * standby's host. If it fails half way the domain goes on here.
   * @throws ServiceError UNKNOWN_DOMAIN, or a SwitchoverErrorCode
   */
  switchover(domain: string, to?: string): Promise<SwitchoverReport>;
  /** The same of all that run here, one after another; never rejects. */
  evacuate(): Promise<readonly EvacuationReport[]>;
  /**
   * Whether the domain that stands by here would live: a copy of its last checkpoint runs for a while, heard and seen by
   * nobody, and is ended; the standby goes on meanwhile. A failover ends it at once.
   * @throws ServiceError UNKNOWN_DOMAIN, or a TrialErrorCode; HypervisorError UNSUPPORTED, OUT_OF_MEMORY, …
   */
  testFailover(domain: string, request?: TrialRequest): Promise<TrialReport>;
}

export interface TrialRequest {
  /** How long it runs: an hour at most; default 10. */
  readonly seconds?: number;
  /** Ends it at once. */
  readonly signal?: AbortSignal;
}

/** What a domain did in a trial. */
export interface TrialReport {
  readonly domain: string;
  /** Where it stands by. */
  readonly host: string;
  /** The checkpoint that it ran from. */
  readonly epoch: number;
  /** It ran until the end, and its guest was still at work then. */
  readonly lives: boolean;
  /** A sentence: by what that is known, or what became of it. */
  readonly why: string;
  /** How long it ran. */
  readonly seconds: number;
  /** Pages of its memory that it changed. */
  readonly changedPages: number;
  /** What it said on its console, in octets, and the last lines of that: at most 2 KiB. */
  readonly outputBytes: number;
  readonly console: string;
}

export interface SwitchoverReport {
  readonly domain: string;
  /** Where it runs now. */
  readonly to: string;
  /** The checkpoint from which it goes on: the last one; null: an earlier one, as far as is known here. */
  readonly epoch: number | null;
  /** From before the guest was stopped until the other host had the domain; it goes on within milliseconds then. */
  readonly pauseMs: number;
  /** From the request on. */
  readonly totalMs: number;
}

export type EvacuationReport =
  | ({ readonly ok: true } & SwitchoverReport)
  | { readonly ok: false; readonly domain: string; readonly code: string; readonly message: string };
