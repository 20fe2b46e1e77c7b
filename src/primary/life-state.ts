// What is known of a domain on its primary, what can happen to it and what can be asked for. The decisions stand in
// life.ts.

import type { ByeReason, ChannelErrorCode, Hello } from '../channel/contract.js';
import { isPairedBy, isWritten, type Mandate, type Pairing } from '../failover/mandate.js';
import type { Register, RegisterWrite } from '../failover/register.js';
import type { Leave } from '../hypervisor/port.js';
import type { SwitchoverErrorCode } from '../report/error.js';
import type { LinkState } from '../report/reports.js';
import type { StreamNews } from './stream.js';

export interface LifeSettings {
  /** The domain starts when the first standby is linked, not at once, and says nothing before that protects it. */
  readonly startWithStandby: boolean;
  /**
   * This process was stopped if it hears nothing, not even its own beat, for longer. Must be shorter than the silence
   * after which the secondary takes over.
   */
  readonly stallMs: number;
  /**
   * Not null: it must not run while a secondary may run it (see life-standstill.ts), which a secondary may once it
   * was not heard for so long.
   */
  readonly standstill: { readonly silenceMs: number } | null;
  /** A standby that does not take over in time what is handed to it is left. */
  readonly handOverTimeoutMs: number;
}

/** One stream of checkpoints over one link. */
export interface StreamState {
  readonly streamUuid: string;
  /** Who takes over, and by which pairing. */
  readonly pairing: Pairing;
  /** Its first capture has begun: what the domain says since waits for an acknowledgement. */
  holding: boolean;
  /** The last epoch captured whole; -1: none. */
  captured: number;
  /** The last epoch acknowledged; -1: none. */
  acknowledged: number;
  /** Acknowledgements of epochs up to this one may be older than a stop of this process: they prove nothing. */
  staleEpoch: number;
  /** This process was stopped, and no epoch captured since is acknowledged. */
  stalled: boolean;
  /** When the secondary was last heard on this link; null: not yet. */
  heardAtMs: number | null;
  /** It is captured, or will be when the stream before it has let go of the domain. */
  begun: boolean;
}

/** A planned switchover; see life-hand-over.ts. */
export interface HandOver {
  /** Whoever asked for it. */
  readonly id: number;
  readonly stage: 'asked' | 'still' | 'undoing';
  readonly streamUuid: string;
  readonly standby: string;
  /** Null until it is captured. */
  readonly lastEpoch: number | null;
  /** When it was asked for, and when the domain was stopped last: monotonic milliseconds. */
  readonly askedAtMs: number;
  readonly stoppedAtMs: number;
  /** When the last epoch was acknowledged; null: it is not. */
  readonly acknowledgedAtMs: number | null;
  /** Why it is undone. */
  readonly reason: string;
}

export type HandOverOutcome =
  | {
      readonly how: 'done';
      readonly standby: string;
      /** From which it goes on there; null: not from the last one, as far as is known. */
      readonly epoch: number | null;
      /** From before the domain was stopped until it ran there; where that is not told, until it was known to be theirs. */
      readonly pauseMs: number;
      /** From the request on. */
      readonly totalMs: number;
    }
  | { readonly how: SwitchoverErrorCode; readonly message: string };

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

export interface LifeState {
  readonly settings: LifeSettings;
  role: 'primary' | 'ended' | 'fenced' | 'failed';
  /** What the register lets us do. */
  mandate: Mandate;
  /** All that the domain says leaves, by that mandate. */
  passing: boolean;
  /** It has never been protected, and says nothing before it is. */
  waiting: boolean;
  /** It shall run as soon as it may. */
  wanted: boolean;
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
  /** The domain has shut down by itself, and its last words wait for END's acknowledgement. */
  ending: boolean;
  /** It is handed over, or that is being undone. */
  handOver: HandOver | null;
  letOut: LetOut;
  /** When an epoch was acknowledged last, monotonic milliseconds; null: never. */
  acknowledgedAtMs: number | null;
  /** What is wrong, for those who look at it; null: nothing. */
  error: { readonly code: string; readonly message: string } | null;
  /** When the last event came, monotonic milliseconds. */
  lastAtMs: number;
}

export type LifeEvent = Readonly<
  /** `orphaned`: as SourceDomain says; `running`: the domain was found running. */
  | { kind: 'start'; orphaned: boolean; running: boolean }
  | { kind: 'linked'; streamUuid: string; pairing: Pairing }
  /** Of a link, whether or not its stream has begun. */
  | { kind: 'heard'; streamUuid: string }
  | { kind: 'bye'; streamUuid: string; reason: ByeReason }
  /** `tookMs`: of FENCED, from the acknowledgement of the last epoch until the domain ran on the other side, if that was told. */
  | { kind: 'lost'; streamUuid: string; code: string; message: string; tookMs?: number }
  /** Of a stream. */
  | StreamNews
  /** Our goodbye is over; `confirmed`: the secondary has read it, and will not take over. */
  | { kind: 'goodbye'; streamUuid: string; confirmed: boolean }
  /** The domain has become another machine than the secondary was compared with. */
  | { kind: 'machine-changed'; message: string }
  | { kind: 'domain-shutdown' }
  | { kind: 'domain-crashed'; reason: string }
  /** The hypervisor failed where the domain cannot go on without it. */
  | { kind: 'domain-failed'; code: string; message: string }
  /** What became of a write to the register; `register`: as it is now. */
  | { kind: 'answered'; token: string; won: boolean; register: Register | null }
  /** The domain is to be taken over by its standby, which is to be this host; null: whichever it is. */
  | { kind: 'hand-over'; id: number; to: string | null }
  | { kind: 'timer'; timer: 'hand-over' }
  /** Nothing happened, but we live. */
  | { kind: 'beat' }
  | { kind: 'stop' }
>;

export type LifeEffect = Readonly<
  | { kind: 'start-domain' }
  /** Ends the domain, or leaves it so if it is not ours to end. `afterOutput`: when what was let out has left. */
  | { kind: 'let-go'; how: Leave; afterOutput?: boolean }
  /** A secondary may run it: it must stand still, before anything else; and may go on. */
  | { kind: 'halt-domain' | 'unhalt-domain' }
  /** Whether its hypervisor is to stop it should we die; in force before the first capture. */
  | { kind: 'expose'; on: boolean }
  /** Begins the stream over its link, when the one before has let go of the domain. */
  | { kind: 'replicate'; streamUuid: string }
  /** The fourth checkpoint from now on is the last. */
  | { kind: 'hand-over' }
  /** It is acknowledged: when what was let out has left, the standby hears that nothing else will be. */
  | { kind: 'handed-over'; streamUuid: string; epoch: number }
  /** The domain that stood still behind it goes on. */
  | { kind: 'hand-back' }
  | { kind: 'hand-over-settled'; id: number; outcome: HandOverOutcome }
  | { kind: 'arm'; timer: 'hand-over'; delayMs: number }
  | { kind: 'disarm'; timer: 'hand-over' }
  | { kind: 'restart' | 'hold' | 'pass' | 'discard' }
  | { kind: 'bye'; streamUuid: string; reason: ByeReason }
  | { kind: 'drop-link'; streamUuid: string; code: ChannelErrorCode; message: string }
  /** To be written to the register, and written again until it is known what became of it. */
  | { kind: 'write'; write: RegisterWrite }
  /** No secondary will be welcome any more. */
  | { kind: 'withdraw' }
  | { kind: 'transition'; reason: string }
  /** The domain has come to an end of its own. */
  | { kind: 'finished' }
>;

/** With a mandate that is paired: the domain was found, and its standby may take it over. */
export function birth(settings: LifeSettings, atMs: number, mandate: Mandate): LifeState {
  return {
    settings,
    role: 'primary',
    mandate,
    passing: false,
    waiting: settings.startWithStandby,
    wanted: false,
    running: false,
    stopped: false,
    leaving: null,
    exposed: mandate.register.mode === 'paired',
    exposing: false,
    still: false,
    stream: null,
    lastStream: null,
    ending: false,
    handOver: null,
    letOut: { released: null, streamsSince: [] },
    acknowledgedAtMs: null,
    error: null,
    lastAtMs: atMs,
  };
}

/** replicating: the standby may take over, by a checkpoint and by the register. */
export function linkStateOf({ stream, mandate }: LifeState): LinkState {
  if (stream === null) return 'down';
  return stream.acknowledged >= 0 && isWritten(mandate, stream.pairing) ? 'replicating' : 'syncing';
}

/**
 * The welcome's `continuous`: may a standby that holds this epoch whole still fail over to it? Only if nothing that
 * the domain said afterwards was let out, and if the register lets it.
 */
export function isContinuous(
  state: LifeState,
  hello: Pick<Hello, 'streamUuid' | 'epoch' | 'host' | 'pairing'>,
): boolean {
  const { released, streamsSince } = state.letOut;
  if (hello.streamUuid === null || hello.epoch === null || hello.pairing === null) return false;
  if (!isPairedBy(state.mandate, { standby: hello.host, stream: hello.pairing })) return false;
  if (released?.streamUuid === hello.streamUuid) return hello.epoch >= released.epoch;
  return streamsSince.includes(hello.streamUuid);
}
