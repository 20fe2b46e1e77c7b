// Whether the domain is taken over, and what becomes of it then; and how the vigil ends, or what is held.
//
//   suspect ──▶ deciding: the register is asked ─ granted ─▶ starting ──▶ over
//      ▲                     │       │                          │ does not start
//      ├──────── unknown ────┘       └ denied ─▶ dialling       │
//      └────────────────────────────────────────────────────────┘
//
// The answer may be long in coming: the primary is dialled meanwhile; but not one that has the same disks, for its guest
// goes on as soon as it hears us. Once it is granted, a link that came is left again: what its stream brought is what is
// taken over, when the primary has had the time to notice: it may have acknowledgements of it still to read.

import type { ChannelErrorCode } from '../channel/contract.js';
import { armReconnect, dial, fillAgain, giveUpDial, redialLater } from './redial.js';
import {
  HANDED_OVER,
  TAKEN_BACK,
  keepsDomain,
  type Effects,
  type Held,
  type SecondaryState,
  type Session,
} from './vigil-state.js';

/** The codes of a domain that does not start, and never will. */
const GONE: ReadonlySet<string> = new Set(['DOMAIN_GONE', TAKEN_BACK]);

/** The code of a link that was lost because nothing was heard for as long as that takes. */
const SILENT = 'HEARTBEAT_TIMEOUT';

/** The primary is dead as far as can be known from here. */
export function decide(state: SecondaryState, effects: Effects): void {
  effects.push({ kind: 'disarm', timer: 'reconnect' });
  if (state.granted) {
    takeOver(state, effects);
    return;
  }
  if (state.held === null) {
    giveUpDial(state, effects);
    nothingToTakeOver(state, effects);
    return;
  }
  state.phase = 'deciding';
  if (!state.asking) effects.push({ kind: 'ask-witness', held: state.held, handedOver: false });
  state.asking = true;
  if (state.standstillMs > 0) giveUpDial(state, effects);
  else if (state.dial === 0) redialLater(state, effects);
}

export function witness(
  state: SecondaryState,
  answer: 'granted' | 'denied' | 'unknown',
  effects: Effects,
): void {
  const { claiming } = state;
  state.asking = false;
  state.claiming = null;
  switch (answer) {
    case 'granted':
      state.tentative = claiming !== null && state.standstillMs === 0;
      if (claiming === null || !state.tentative || isHere(state, claiming)) granted(state, effects);
      // Its owner takes it back.
      else if (state.phase === 'deciding') decide(state, effects);
      return;
    case 'denied':
      denied(state, effects);
      return;
    case 'unknown':
      notTaken(state, effects);
      if (state.phase !== 'deciding') return;
      state.phase = 'suspect';
      effects.push({ kind: 'transition', reason: 'the witness cannot be asked' });
      armReconnect(state, effects);
      if (state.dial === 0) redialLater(state, effects);
      return;
  }
}

/** What was handed over is held, and its owner has not come back with another stream meanwhile. */
function isHere({ held, session }: SecondaryState, { streamUuid, epoch }: Held): boolean {
  const isHeld = held?.streamUuid === streamUuid && held.epoch === epoch;
  return isHeld && (session === null || session.streamUuid === streamUuid);
}

/** What is held may be granted yet. */
export function isAskedForHeld(state: SecondaryState): boolean {
  return state.asking && (state.claiming === null || isHere(state, state.claiming));
}

/** What was handed over is not what is held: its owner takes it back. */
export function giveUpClaim(state: SecondaryState, session: Session | null): void {
  if (state.tentative) state.granted = false;
  if (session !== null) session.claimed = false;
}

function granted(state: SecondaryState, effects: Effects): void {
  const { session } = state;
  if (session?.linked === true && session.lastAtMs !== null) {
    session.claimed = true;
    startWhatIsClaimed(state, session, effects);
    return;
  }
  state.granted = true;
  if (session?.linked === true) {
    effects.push({
      kind: 'drop-link',
      streamUuid: session.streamUuid,
      code: 'FENCED',
      message: 'the register has granted the domain to the secondary',
    });
    unlinked(state, session, 'GRANTED', effects);
  }
  if (isWaitedFor(state)) giveUpDial(state, effects);
  else if (session === null) takeOver(state, effects);
  // Else the restorer is waited for: only then it is known what we hold.
}

/**
 * The last checkpoint is in the domain, it is ours by the register, and nothing more is let out there: it is started, and the
 * primary is told when it runs.
 */
export function startWhatIsClaimed(state: SecondaryState, session: Session, effects: Effects): void {
  if (!session.claimed || !session.done || !session.handedOver || !session.linked) return;
  state.reason = HANDED_OVER;
  takeOver(state, effects);
}

/** A link came while the register was asked, and the primary may not have noticed that it is lost. */
export function isWaitedFor({ phase, unheardMs, windowOver }: SecondaryState): boolean {
  return phase === 'suspect' && unheardMs > 0 && !windowOver;
}

/** Ours by the register, and nobody works on it. */
export function takeOver(state: SecondaryState, effects: Effects): void {
  state.granted = false;
  giveUpDial(state, effects);
  effects.push({ kind: 'disarm', timer: 'reconnect' });
  if (state.held === null) {
    reportImpossible(state, effects);
    over(state, 'failed', 'granted, with nothing left to run', effects);
    return;
  }
  state.phase = 'starting';
  // From here on it may be as of another epoch.
  state.shared = null;
  effects.push({ kind: 'take-over', held: state.held, reason: state.reason });
}

/** The primary went on without us, or somebody else took over. */
function denied(state: SecondaryState, effects: Effects): void {
  notTaken(state, effects);
  if (state.phase !== 'deciding') return;
  state.phase = 'dialling';
  // What was lost was not ours to take over, so no failover was lost with it.
  state.gone = null;
  // What was held is kept to go on from, if that can be.
  if (state.shared !== null) state.held = null;
  else if (state.held !== null) discardHeld(state, effects);
  effects.push({ kind: 'transition', reason: 'by the register the domain is not ours to take over' });
  if (state.dial === 0) redialLater(state, effects);
}

/** The primary is not to wait for us. */
function notTaken(state: SecondaryState, effects: Effects): void {
  const { session } = state;
  if (session?.linked !== true || session.lastAtMs === null) return;
  const { streamUuid } = session;
  const message = 'the register has not granted the domain to the secondary';
  effects.push({ kind: 'drop-link', streamUuid, code: 'INTERNAL', message });
  unlinked(state, session, 'NOT_GRANTED', effects);
}

/** The restorer of a stream is done, and its link lost. */
export function goOn(state: SecondaryState, session: Session, effects: Effects): void {
  state.session = null;
  // What is claimed may have been taken back: that shows when it is confirmed, or when it is asked again behind the window.
  const isClaimed = session.claimed && state.held !== null && !isWaitedFor(state);
  if (state.granted || isClaimed) takeOverInTime(state, session, effects);
  else if (session.broken) fillAgain(state, effects);
  else if (state.phase === 'suspect') askAgainOrDecide(state, effects);
  else if (state.phase === 'dialling') redialLater(state, effects);
}

/** Of a link, whatever its restorer is about. */
export function unlinked(state: SecondaryState, session: Session, code: string, effects: Effects): void {
  if (state.phase === 'starting') {
    // What becomes of what is being started says the register.
    state.session = null;
    return;
  }
  lost(state, session, code, effects);
  if (session.done) goOn(state, session, effects);
}

/** The primary may have acknowledgements still to read, as long as the window lasts. */
function takeOverInTime(state: SecondaryState, session: Session, effects: Effects): void {
  if (!isWaitedFor(state)) takeOver(state, effects);
  else if (session.broken) armReconnect(state, effects);
}

/** The restorer is done after the loss of the link. With nothing to take over, a window that it has used up says nothing. */
function askAgainOrDecide(state: SecondaryState, effects: Effects): void {
  if (state.windowOver && state.held !== null) {
    decide(state, effects);
    return;
  }
  if (state.windowOver) armReconnect(state, effects);
  state.windowOver = false;
  dial(state, effects);
}

function nothingToTakeOver(state: SecondaryState, effects: Effects): void {
  state.phase = 'dialling';
  reportImpossible(state, effects);
  effects.push({ kind: 'transition', reason: 'the primary is dead, and its standby was lost before' });
  redialLater(state, effects);
}

function reportImpossible(state: SecondaryState, effects: Effects): void {
  const { gone, reason } = state;
  state.gone = null;
  if (gone !== null) effects.push({ kind: 'report-impossible', gone, reason });
}

export function started(
  state: SecondaryState,
  { epochsBack, runsSinceMs }: { readonly epochsBack: number; readonly runsSinceMs: number },
  effects: Effects,
): void {
  if (state.phase !== 'starting' || state.held === null) return;
  // Whoever protects it from now on hears what it does.
  state.phase = 'over';
  state.role = 'active';
  state.held = { ...state.held, epoch: state.held.epoch - epochsBack };
  // First of all who has handed it over, and waits for that.
  const lastAtMs = state.session?.lastAtMs ?? null;
  const tookMs = lastAtMs === null ? {} : { tookMs: runsSinceMs - lastAtMs };
  leaveLink(state, effects, 'FENCED', 'the domain runs on the secondary', tookMs);
  effects.push(
    { kind: 'report-completed', held: state.held },
    { kind: 'transition', reason: 'failover' },
    { kind: 'finished' },
  );
}

/** That of who has handed it over. */
function leaveLink(
  state: SecondaryState,
  effects: Effects,
  code: ChannelErrorCode,
  message: string,
  took: { readonly tookMs?: number } = {},
): void {
  const { session } = state;
  state.session = null;
  if (session === null) return;
  effects.push({ kind: 'drop-link', streamUuid: session.streamUuid, code, message, ...took });
}

/** The last copy is kept, and tried again; unless the primary is found alive meanwhile. */
export function startFailed(
  state: SecondaryState,
  { code, message, epochsBack }: { code: string; message: string; epochsBack: number },
  effects: Effects,
): void {
  effects.push({ kind: 'report-failed', code, message });
  leaveLink(state, effects, 'INTERNAL', `the domain did not start: ${code}`);
  if (GONE.has(code) || state.endedEarly) {
    over(state, 'failed', `the domain did not start: ${code}`, effects);
    return;
  }
  state.phase = 'suspect';
  if (state.held !== null) state.held = { ...state.held, epoch: state.held.epoch - epochsBack };
  armReconnect(state, effects);
  redialLater(state, effects);
  state.failedStarts++;
  effects.push({ kind: 'transition', reason: `the domain did not start: ${code}` });
}

export function over(
  state: SecondaryState,
  role: 'ended' | 'failed',
  reason: string,
  effects: Effects,
): void {
  if (state.session) state.session.linked = false;
  letGo(state, effects);
  state.role = role;
  effects.push({ kind: 'transition', reason }, { kind: 'finished' });
}

export function stop(state: SecondaryState, effects: Effects): void {
  if (state.session?.linked === true) {
    state.session.linked = false;
    effects.push({ kind: 'bye', streamUuid: state.session.streamUuid, reason: 'shutdown' });
  }
  letGo(state, effects);
  effects.push({ kind: 'transition', reason: 'stopped' });
}

function letGo(state: SecondaryState, effects: Effects): void {
  giveUpDial(state, effects);
  effects.push({ kind: 'disarm', timer: 'reconnect' }, { kind: 'disarm', timer: 'steady' });
  if (keepsDomain(state)) discardHeld(state, effects);
  state.phase = 'over';
}

export function loseHeld(state: SecondaryState, reason: string, effects: Effects): void {
  if (state.held === null) {
    // Nothing could have been taken over.
    if (state.shared !== null) discardHeld(state, effects);
    return;
  }
  // A primary that took its leave has nothing that we could fail over from.
  state.gone = state.phase === 'dialling' ? null : state.held;
  giveUpClaim(state, state.session);
  effects.push({ kind: 'standby-lost', was: 'held', reason });
  discardHeld(state, effects);
  effects.push({ kind: 'transition', reason: 'the standby was lost' });
}

export function discardHeld(state: SecondaryState, effects: Effects): void {
  state.held = state.shared = null;
  effects.push({ kind: 'discard-held' });
}

export function lost(state: SecondaryState, session: Session, code: string, effects: Effects): void {
  if (!session.linked) return;
  session.linked = false;
  state.reason = code;
  state.unheardMs = code === SILENT || session.handedOver ? 0 : state.silenceMs;
  state.windowOver = false;
  if (state.held !== null || state.gone !== null) {
    state.phase = 'suspect';
    // A primary that we have left is not suspect before it is dialled again.
    if (!session.broken) armReconnect(state, effects);
  } else {
    state.phase = 'dialling';
  }
  // Dialling waits for the restorer: only then it is known what we hold.
  effects.push({ kind: 'transition', reason: code });
}
