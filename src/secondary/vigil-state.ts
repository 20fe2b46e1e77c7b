// What the vigil of a secondary knows of its standby, what can happen and what it can ask for. The decisions stand in
// vigil.ts.

import type { ByeReason, ChannelErrorCode, SharedPoint } from '../channel/contract.js';
import type { Of } from '../flow/kinds.js';
import type { LinkState, StandbyState } from '../report/reports.js';
import type { Restored } from './restore-news.js';

export interface SecondarySettings {
  /** How long a primary that cannot be reached is tried again before its domain is taken over. */
  readonly reconnectWindowMs: number;
  readonly redialMinMs: number;
  readonly redialMaxMs: number;
}

/** A consistent checkpoint that a domain here holds whole. */
export interface Held {
  readonly streamUuid: string;
  readonly epoch: number;
  /** Whose it is, and by which pairing it may be taken over: the welcome's. */
  readonly owner: string;
  readonly pairing: string;
}

/** One stream being restored. */
export interface Session {
  readonly streamUuid: string;
  readonly owner: string;
  readonly pairing: string;
  /** It goes on in the domain that is kept, from the point that was shared. */
  readonly resumes: boolean;
  /** What that could be taken over from before; null: nothing, or it does not resume. */
  readonly heldBefore: Held | null;
  /** The link lives. */
  linked: boolean;
  /** The primary said goodbye: nothing to fail over from. */
  left: boolean;
  /** The last epoch acknowledged; -1: none. */
  acknowledged: number;
  /**
   * When its last checkpoint was acknowledged, monotonic: the primary stands still there until it is known whose the domain
   * is. Null: there is none yet.
   */
  lastAtMs: number | null;
  /** Its last checkpoint is in the domain; `done`: and the restorer has come to its end by that. */
  complete: boolean;
  done: boolean;
  /** The register names us as its owner, as long as the primary does not take it back. */
  claimed: boolean;
  /** The primary has let out all that it ever will, and waits for us. */
  handedOver: boolean;
  /** Its domain has ended by itself: nothing that comes is held any more. */
  spoilt: boolean;
  /** It was we who could not go on with it, while the primary lived: the next one is begun by us. */
  broken: boolean;
}

/**
 * dialling  no link; there was none, or the primary took its leave: nothing to fail over from
 * linked    a stream comes
 * suspect   the link of a domain that is or was protected is lost, and it is not decided what that means
 * deciding  the register is asked; dialled meanwhile, for the answer may be long in coming
 * starting  the domain is being started
 * over      taken over, ended, failed or stopped
 */
export type SecondaryPhase = 'dialling' | 'linked' | 'suspect' | 'deciding' | 'starting' | 'over';

export interface SecondaryState {
  readonly settings: SecondarySettings;
  /** `active`: it runs here, and is handed to whoever protects it from now on. */
  role: 'standby' | 'active' | 'ended' | 'failed';
  phase: SecondaryPhase;
  /** The stream that the restorer works on: its link may be lost already. */
  session: Session | null;
  /** What to fail over to: the session's own domain since its first acknowledgement, until then an older one. */
  held: Held | null;
  /** What the domain that is held, or was, equals, for a stream to go on from; null: there is none, or that is not known. */
  shared: SharedPoint | null;
  /** The register is asked, and has not answered. */
  asking: boolean;
  /** What it is asked for, if that is handed over; null: else. */
  claiming: Held | null;
  /** It has granted the domain, and the restorer is not done with it, or the window not over. */
  granted: boolean;
  /** … as what was handed over, and no other: its owner may take it back. */
  tentative: boolean;
  /** A checkpoint that was held and is lost with its domain, until another one is held: with it the failover is lost. */
  gone: Held | null;
  /** Standbys in a row that did not last. */
  losses: number;
  /** The dial under way; 0: none. Dials are numbered, so that the answer of one given up is known as such. */
  dial: number;
  dials: number;
  /** Failed dials in a row. */
  failures: number;
  /** The reconnect window is over, the restorer still applies what was acknowledged. */
  windowOver: boolean;
  /** Takeovers in a row that failed, and are tried again. */
  failedStarts: number;
  /**
   * How long after the loss of the link the primary's guest may run on although the primary is dead, or does not know:
   * nothing is taken over before. 0: it may, it would not be heard.
   */
  standstillMs: number;
  /** After how long a silence the primary gives a link up: the welcome's heartbeat timeout. */
  silenceMs: number;
  /** For how long after the loss of the link the primary may not notice it; 0: it was silence that told us. */
  unheardMs: number;
  /** Why the link was lost. */
  reason: string;
  /** The domain that is being started has ended by itself already. */
  endedEarly: boolean;
}

/** The reason of a takeover that the owner has asked for. */
export const HANDED_OVER = 'HANDED_OVER';

/** The code of what was handed over, and is not ours any more: its owner has it again. */
export const TAKEN_BACK = 'TAKEN_BACK';

/** steady: the standby has lasted, what became of those before it is forgotten. */
export type SecondaryTimer = 'redial' | 'reconnect' | 'steady';

export type SecondaryEvent = Readonly<
  | { kind: 'start' }
  | {
      kind: 'dialled';
      dial: number;
      streamUuid: string;
      owner: string;
      pairing: string;
      continuous: boolean;
      /** Left out: false. */
      resumes?: boolean;
      standstillMs: number;
      /** Left out: 0. */
      silenceMs?: number;
    }
  | { kind: 'dial-failed'; dial: number; code: string }
  /**
   * The epoch is whole here, and the acknowledgement was given to the link: it counts whatever became of that. `lastAtMs`:
   * when, if the primary stands still there, for the domain is handed over.
   */
  | { kind: 'acknowledged'; streamUuid: string; epoch: number; digest: bigint; lastAtMs?: number }
  /** The last checkpoint is in the domain. */
  | { kind: 'complete'; streamUuid: string }
  /** The primary has let out all that it ever will: the domain is to be taken over from there. */
  | { kind: 'handed-over'; streamUuid: string }
  /** END came whole: the domain has shut down by itself. */
  | { kind: 'ended'; streamUuid: string }
  | { kind: 'lost'; streamUuid: string; code: string }
  | { kind: 'bye'; streamUuid: string; reason: ByeReason }
  /**
   * The restorer is done: its domain equals the last acknowledged epoch, or (BAD_CONTEXT: the hypervisor does not take
   * that) one so many before it; or is of no use.
   */
  | ({ streamUuid: string } & Pick<Restored, 'kind' | 'consistent' | 'epochsBack' | 'code' | 'message'>)
  /** `lateMs`: how long after its time it fired. */
  | { kind: 'timer'; timer: SecondaryTimer; lateMs: number }
  | { kind: 'witness'; answer: 'granted' | 'denied' | 'unknown' }
  /** It runs, from so many epochs before the one that is held. `runsSinceMs`: since when, monotonic. */
  | { kind: 'started'; epochsBack: number; runsSinceMs: number }
  /** DOMAIN_GONE: it is lost; TAKEN_BACK: its owner has it again. Else it can be tried again. */
  | { kind: 'start-failed'; code: string; message: string; epochsBack: number }
  /** The standby that is held, or is being started, has ended by itself. */
  | { kind: 'held-ended'; reason: string }
  /** The domain that is being filled has ended by itself. */
  | { kind: 'filling-ended'; reason: string }
  /** No domain to fill can be created. */
  | { kind: 'domain-failed'; code: string }
  | { kind: 'stop' }
>;

export type SecondaryEffect = Readonly<
  | { kind: 'dial'; dial: number; held: Held | null; shared: SharedPoint | null }
  /** Gives up the dial: a link that it brings nevertheless is closed. */
  | { kind: 'abort-dial' }
  /** Creates a domain and restores the stream of the link into it; or restores it into the one that is kept, as of `from`. */
  | { kind: 'restore'; streamUuid: string; from: SharedPoint | null }
  /** The domain being filled is the standby from now on; the older one, if any, is destroyed. */
  | { kind: 'adopt' }
  /** Destroys the domain that was being filled. */
  | { kind: 'discard-filling' }
  /** Destroys the standby domain. */
  | { kind: 'discard-held' }
  | { kind: 'bye'; streamUuid: string; reason: ByeReason }
  /** `tookMs`: as the primary is told, from the acknowledgement of the last checkpoint until the domain ran here. */
  | { kind: 'drop-link'; streamUuid: string; code: ChannelErrorCode; message: string; tookMs?: number }
  | { kind: 'arm'; timer: SecondaryTimer; delayMs: number }
  | { kind: 'disarm'; timer: SecondaryTimer }
  /** `handedOver`: by its owner, who stands still for it, and may have the domain until that is confirmed. */
  | { kind: 'ask-witness'; held: Held; handedOver: boolean }
  /** Failover has begun: report it, start the domain. */
  | { kind: 'take-over'; held: Held; reason: string }
  | { kind: 'report-completed'; held: Held }
  | { kind: 'report-failed'; code: string; message: string }
  /** A failover that cannot be: the checkpoint is lost, and so is the primary. */
  | { kind: 'report-impossible'; gone: Held; reason: string }
  | { kind: 'standby-lost'; was: Exclude<StandbyState, 'spare'>; reason: string }
  | { kind: 'transition'; reason: string }
  | { kind: 'finished' }
>;

/** An effect of one kind. */
export type Effect<Kind extends SecondaryEffect['kind']> = Of<SecondaryEffect, Kind>;

/** What a decision asks for, in the order in which it is done. */
export type Effects = SecondaryEffect[];

export function initialSecondaryState(settings: SecondarySettings): SecondaryState {
  return {
    settings,
    role: 'standby',
    phase: 'dialling',
    session: null,
    held: null,
    shared: null,
    asking: false,
    claiming: null,
    granted: false,
    tentative: false,
    gone: null,
    losses: 0,
    dial: 0,
    dials: 0,
    failures: 0,
    failedStarts: 0,
    windowOver: false,
    standstillMs: 0,
    silenceMs: 0,
    unheardMs: 0,
    reason: '',
    endedEarly: false,
  };
}

/** There is a domain that is held, or was: it may not be taken over any more, but a stream can go on in it. */
export function keepsDomain({ held, shared }: SecondaryState): boolean {
  return held !== null || shared !== null;
}

/** It has a link or a checkpoint, or is about one. */
export function isBusy({ phase, held, session }: SecondaryState): boolean {
  return phase !== 'dialling' || held !== null || session !== null;
}

export function secondaryLinkState({ phase, session, held, dial }: SecondaryState): LinkState {
  const unlinked = dial === 0 ? 'down' : 'connecting';
  const states: Readonly<Record<SecondaryPhase, LinkState>> = {
    dialling: unlinked,
    linked: (session?.acknowledged ?? -1) < 0 ? 'syncing' : 'replicating',
    suspect: held === null ? unlinked : 'suspect',
    deciding: 'suspect',
    starting: 'suspect',
    over: 'down',
  };
  return states[phase];
}
