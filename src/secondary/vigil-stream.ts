// One stream from its link to its end: what its acknowledgements make of the domain that it fills, and what is known when
// the link is lost and the restorer is done.

import type { ByeReason, ChannelErrorCode } from '../channel/contract.js';
import { armReconnect, dial, fillAgain, redialLater } from './redial.js';
import { decide, isWaitedFor, loseHeld, lost, over, takeOver } from './vigil-failover.js';
import type { Effects, SecondaryEvent, SecondaryState, Session } from './vigil-state.js';

/** The restorer's code where the hypervisor does not take a checkpoint. */
const REFUSED_STATE = 'BAD_CONTEXT';

export function acknowledged(
  state: SecondaryState,
  session: Session,
  { epoch, digest }: SecondaryEvent & { readonly kind: 'acknowledged' },
  effects: Effects,
): void {
  if (session.spoilt) return;
  const first = session.acknowledged < 0;
  session.acknowledged = epoch;
  const { streamUuid, owner, pairing } = session;
  state.held = { streamUuid, epoch, owner, pairing };
  state.shared = { streamUuid, epoch, digest };
  if (!first) return;
  state.gone = null;
  if (state.losses > 0) effects.push({ kind: 'arm', timer: 'steady', delayMs: state.settings.redialMaxMs });
  if (!session.resumes) effects.push({ kind: 'adopt' });
  effects.push({ kind: 'transition', reason: 'first checkpoint acknowledged' });
  // It was whole before the link was lost, and is read only now: there is something to fail over to after all.
  if (state.phase === 'dialling' && !session.left) {
    state.phase = 'suspect';
    armReconnect(state, effects);
  }
}

/** The primary stands still until it is known whose the domain is. */
export function takeWhatIsHandedOver(state: SecondaryState, session: Session, effects: Effects): void {
  if (!session.complete || !session.handedOver || !session.linked || state.held === null) return;
  if (!state.asking) effects.push({ kind: 'ask-witness', held: state.held });
  state.asking = true;
}

export function bye(state: SecondaryState, session: Session, reason: ByeReason, effects: Effects): void {
  if (reason === 'domain-ended') over(state, 'ended', 'the domain shut down', effects);
  else if (reason === 'shutdown') tookLeave(state, session, effects);
  else lost(state, session, `bye ${reason}`, effects);
}

function tookLeave(state: SecondaryState, session: Session, effects: Effects): void {
  if (!session.linked) return;
  session.linked = false;
  session.left = true;
  state.gone = null;
  state.phase = 'dialling';
  effects.push({ kind: 'transition', reason: 'bye shutdown' });
}

/** How the restorer has ended. */
type Restored = Omit<SecondaryEvent & { readonly kind: 'restored' }, 'kind' | 'streamUuid'>;

export function restored(
  state: SecondaryState,
  session: Session,
  { consistent, epochsBack, code, message }: Restored,
  effects: Effects,
): void {
  const own = session.acknowledged >= 0;
  if (state.phase === 'over') {
    state.session = null;
    if (!own && !session.resumes) effects.push({ kind: 'discard-filling' });
    return;
  }
  // It was the stream that could not be gone on with: the next one begins with all memory.
  if (session.resumes && !own && session.linked) goOnNoMore(state, effects);
  if (session.linked) {
    if (!consistent || code === REFUSED_STATE) {
      breakOff(state, session, linkCode(code), code, message, effects);
    } else {
      effects.push({ kind: 'drop-link', streamUuid: session.streamUuid, code: linkCode(code), message });
      lost(state, session, code, effects);
    }
  }
  state.session = null;
  if (!own) {
    if (!session.resumes) effects.push({ kind: 'discard-filling' });
  } else if (!consistent) {
    loseHeld(state, `what it acknowledged could not be applied: ${code}`, effects);
  } else if (epochsBack > 0) {
    wentBack(state, session, epochsBack, effects);
  }
  if (state.granted) takeOverInTime(state, session, effects);
  else if (session.broken) fillAgain(state, effects);
  else if (state.phase === 'suspect') askAgainOrDecide(state, effects);
  else if (state.phase === 'dialling') redialLater(state, effects);
}

/** What is held is as of so many epochs before. */
function wentBack(state: SecondaryState, session: Session, epochsBack: number, effects: Effects): void {
  const { held } = state;
  state.shared = null;
  if (held === null) return;
  if (epochsBack <= held.epoch) {
    state.held = { ...held, epoch: held.epoch - epochsBack };
  } else if (session.heldBefore !== null) {
    const { heldBefore } = session;
    state.held = { ...heldBefore, epoch: heldBefore.epoch - (epochsBack - held.epoch - 1) };
  } else {
    loseHeld(state, 'it is as of a checkpoint that is not ours to take over from', effects);
  }
}

function goOnNoMore(state: SecondaryState, effects: Effects): void {
  state.shared = null;
  if (state.held === null) effects.push({ kind: 'discard-held' });
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

/** We cannot go on with a stream: the link is dropped, and another one begun when the restorer is done. */
function breakOff(
  state: SecondaryState,
  session: Session,
  linkCode: ChannelErrorCode,
  reason: string,
  message: string,
  effects: Effects,
): void {
  if (!session.linked) return;
  session.broken = true;
  state.losses++;
  effects.push(
    { kind: 'disarm', timer: 'steady' },
    { kind: 'drop-link', streamUuid: session.streamUuid, code: linkCode, message },
  );
  lost(state, session, reason, effects);
}

/** The domain of the stream has ended. What was acknowledged meanwhile is lost with it. */
export function spoilt(state: SecondaryState, session: Session, effects: Effects): void {
  session.spoilt = true;
  breakOff(state, session, 'STANDBY_LOST', 'STANDBY_LOST', 'the standby was lost', effects);
}

/** What the primary is told when it was the stream that was wrong. */
function linkCode(code: string): ChannelErrorCode {
  if (code === 'BUFFER_LIMIT' || code === 'DIGEST_MISMATCH') return code;
  if (code === REFUSED_STATE) return 'STATE_REFUSED';
  return 'INTERNAL';
}
