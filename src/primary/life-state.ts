// What the primary's machine knows of its domain, what can happen to it and what it can ask for. The decisions stand
// in primary-machine.ts.

import type { ByeReason, ChannelErrorCode, Hello } from '../channel/contract.js';
import type { Leave } from '../hypervisor/port.js';
import type { DomainRole } from '../report/reports.js';

export interface PrimarySettings {
  /** From the start of one checkpoint to the start of the next. */
  readonly intervalMs: number;
  /** Epochs that may be captured and not acknowledged. */
  readonly windowEpochs: number;
  /** From an epoch's capture to its acknowledgement. */
  readonly acknowledgeTimeoutMs: number;
  /** What the gate does while no secondary is linked. */
  readonly whenUnprotected: 'hold' | 'pass';
  /** The domain starts when the first secondary is linked, not at once. */
  readonly startWithSecondary: boolean;
  /**
   * This process was stopped if it hears nothing, not even its own beat, for longer. Must be shorter than the silence
   * after which the secondary takes over.
   */
  readonly stallMs: number;
  /**
   * Not null: it must not run while a secondary may run it (see primary-standstill.ts), which a secondary may once it
   * was not heard for so long.
   */
  readonly standstill: { readonly silenceMs: number } | null;
}

/** One stream of checkpoints over one link. */
export interface StreamState {
  readonly streamUuid: string;
  /** The last epoch captured whole; -1: none. */
  captured: number;
  /** The last epoch acknowledged; -1: none. */
  acknowledged: number;
  /** The saver is between checkpoints and waits to be told. */
  waiting: boolean;
  /** The interval since the start of the last checkpoint is over. */
  due: boolean;
  /** The domain has shut down: END is wanted, asked of the saver, or on its way as the epoch after the last. */
  ending: 'no' | 'wanted' | 'asked' | 'sent';
  /** Acknowledgements of epochs up to this one may be older than a stop of this process: they release nothing. */
  staleEpoch: number;
  /** This process was stopped, and no epoch captured since is acknowledged. */
  stalled: boolean;
  /** When the secondary was last heard on this link; null: not yet. */
  heardAtMs: number | null;
  /** The saver works on it. */
  begun: boolean;
}

/**
 * How far output has been let out: an epoch stays a valid point to fail over to as long as nothing was let out that
 * the domain said after it.
 */
export interface LetOut {
  /** The epoch up to which output was released. */
  readonly released: { readonly streamUuid: string; readonly epoch: number } | null;
  /** Streams begun after that (the latest of them): all their epochs are valid. */
  readonly streamsSince: readonly string[];
}

export interface PrimaryState {
  readonly settings: PrimarySettings;
  role: DomainRole & ('primary' | 'ended' | 'fenced' | 'failed');
  /** The domain was let run. */
  running: boolean;
  stopped: boolean;
  /** Stopped, and this stream's secondary has still to answer our goodbye. */
  leaving: string | null;
  /** A secondary may hold a checkpoint, and so may take over; no more once it has said or heard a goodbye. */
  exposed: boolean;
  /** As its hypervisor was told: a secondary may hold a checkpoint, or will soon. */
  exposing: boolean;
  /** It was let run, and stands still because a secondary may run it. */
  still: boolean;
  stream: StreamState | null;
  /** The stream before, for those who ask how far it came. */
  lastStream: StreamState | null;
  /** How far the streams before came, of those of which a secondary may hold something (the latest of them). */
  sent: readonly Pick<StreamState, 'streamUuid' | 'captured'>[];
  /** A checkpoint was asked for. */
  requested: boolean;
  /** The gate holds more than its limit. */
  pressure: boolean;
  letOut: LetOut;
  /** When the last event came, monotonic milliseconds. */
  lastAtMs: number;
}

export type PrimaryEvent = { readonly atMs: number } &
  /** `orphaned`: as SourceDomain says; `running`: the domain was found running. */
  (
    | { readonly kind: 'start'; readonly orphaned: boolean; readonly running: boolean }
    | { readonly kind: 'linked'; readonly streamUuid: string }
    | { readonly kind: 'heard'; readonly streamUuid: string }
    /** The saver begins to suspend the domain for an epoch. */
    | { readonly kind: 'suspending'; readonly streamUuid: string; readonly epoch: number }
    /** The epoch is in the slab, the domain is about to go on. */
    | { readonly kind: 'captured'; readonly streamUuid: string; readonly epoch: number }
    /** The saver waits for a decision. */
    | { readonly kind: 'ready'; readonly streamUuid: string; readonly epoch: number }
    /** The END record leaves; its acknowledgement will name this epoch. */
    | { readonly kind: 'end-sent'; readonly streamUuid: string; readonly epoch: number }
    | { readonly kind: 'acknowledged'; readonly streamUuid: string; readonly epoch: number }
    | { readonly kind: 'save-failed'; readonly streamUuid: string; readonly code: string }
    /** The domain has become another machine than the secondary was compared with. */
    | { readonly kind: 'machine-changed'; readonly message: string }
    | { readonly kind: 'lost'; readonly streamUuid: string; readonly code: string }
    | { readonly kind: 'bye'; readonly streamUuid: string; readonly reason: ByeReason }
    /** Our goodbye is over; `confirmed`: the secondary has read it, and will not take over. */
    | { readonly kind: 'goodbye'; readonly streamUuid: string; readonly confirmed: boolean }
    | { readonly kind: 'timer'; readonly timer: PrimaryTimer }
    | { readonly kind: 'request' }
    | { readonly kind: 'pressure'; readonly on: boolean }
    | { readonly kind: 'domain-shutdown' }
    | { readonly kind: 'domain-crashed'; readonly reason: string }
    /** The hypervisor failed where the domain cannot go on without it. */
    | { readonly kind: 'domain-failed'; readonly code: string }
    | { readonly kind: 'fenced' }
    /** Nothing happened, but we live. */
    | { readonly kind: 'beat' }
    | { readonly kind: 'stop' }
  );

export type PrimaryTimer = 'interval' | 'acknowledge';

export type PrimaryEffect =
  | { readonly kind: 'start-domain' }
  /** Ends the domain, or leaves it so if it is not ours to end. */
  | { readonly kind: 'let-go'; readonly how: Leave }
  /** The gate is over its limit: the domain must stop talking, and may go on. */
  | { readonly kind: 'pause-domain' }
  | { readonly kind: 'unpause-domain' }
  /** A secondary may run it: it must stand still, before anything else; and may go on. */
  | { readonly kind: 'halt-domain' }
  | { readonly kind: 'unhalt-domain' }
  /** Whether its hypervisor is to stop it should we die; in force before the saver begins. */
  | { readonly kind: 'expose'; readonly on: boolean }
  /** Starts the saver over the link of this stream. */
  | { readonly kind: 'save'; readonly streamUuid: string }
  /** The answer to `ready`. */
  | { readonly kind: 'decide'; readonly decision: 'continue' | 'finish' }
  /** The stream is over: whatever the saver still does, it must give up. */
  | { readonly kind: 'abandon'; readonly streamUuid: string }
  /** Only while the decision is fresh: a process that was stopped since (after `untilMs`) must not carry it out. */
  | { readonly kind: 'release'; readonly epoch: number; readonly untilMs: number }
  | { readonly kind: 'restart-gate' | 'hold' | 'pass' | 'discard' }
  | { readonly kind: 'bye'; readonly streamUuid: string; readonly reason: ByeReason }
  | {
      readonly kind: 'drop-link';
      readonly streamUuid: string;
      readonly code: ChannelErrorCode;
      readonly message: string;
    }
  /** No secondary will be welcome any more. */
  | { readonly kind: 'withdraw' }
  | { readonly kind: 'arm'; readonly timer: PrimaryTimer; readonly delayMs: number }
  | { readonly kind: 'disarm'; readonly timer: PrimaryTimer }
  | { readonly kind: 'report'; readonly streamUuid: string; readonly epoch: number }
  | { readonly kind: 'transition'; readonly reason: string }
  /** The domain has come to an end of its own. */
  | { readonly kind: 'finished' };

export function initialPrimaryState(settings: PrimarySettings, atMs: number): PrimaryState {
  return {
    settings,
    role: 'primary',
    running: false,
    stopped: false,
    leaving: null,
    exposed: false,
    exposing: false,
    still: false,
    stream: null,
    lastStream: null,
    sent: [],
    requested: false,
    pressure: false,
    letOut: { released: null, streamsSince: [] },
    lastAtMs: atMs,
  };
}

export function primaryLinkState(state: PrimaryState): 'down' | 'syncing' | 'replicating' {
  if (state.stream === null) return 'down';
  return state.stream.acknowledged < 0 ? 'syncing' : 'replicating';
}

/**
 * The welcome's `continuous`: may a standby that holds this epoch whole still fail over to it? Only if nothing that
 * the domain said afterwards was let out.
 */
export function isContinuous(state: PrimaryState, hello: Pick<Hello, 'streamUuid' | 'epoch'>): boolean {
  const { released, streamsSince } = state.letOut;
  if (hello.streamUuid === null || hello.epoch === null) return false;
  if (released?.streamUuid === hello.streamUuid) return hello.epoch >= released.epoch;
  return streamsSince.includes(hello.streamUuid);
}

/**
 * May somebody hold this epoch of ours, and so run the domain from it? Its acknowledgement need not have arrived; but
 * what was never captured was never acknowledged.
 */
export function mayBeHeld(
  { stream, sent }: Pick<PrimaryState, 'stream' | 'sent'>,
  { streamUuid, epoch }: Pick<Hello, 'streamUuid' | 'epoch'>,
): boolean {
  const streams = stream ? [stream, ...sent] : sent;
  const own = streams.find((each) => each.streamUuid === streamUuid);
  return own !== undefined && epoch !== null && epoch <= own.captured;
}
