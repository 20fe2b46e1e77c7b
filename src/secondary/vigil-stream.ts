// One stream from its link to its end: what its acknowledgements make of the domain that it fills, and what is known when
// the link is lost and the restorer is done.

import type { ByeReason, ChannelErrorCode } from '../channel/contract.js';
import { armReconnect } from './redial.js';
import { giveUpClaim, goOn, loseHeld, lost, over, startWhatIsClaimed, unlinked } from './vigil-failover.js';
import type { Effects, SecondaryEvent, SecondaryState, Session } from './vigil-state.js';

/** The restorer's code where the hypervisor does not take a checkpoint. */
const REFUSED_STATE = 'BAD_CONTEXT';

export function acknowledged(
  state: SecondaryState,
  session: Session,
  { epoch, digest, lastAtMs }: SecondaryEvent & { readonly kind: 'acknowledged' },
  effects: Effects,
): void {
  if (session.spoilt) return;
  const first = session.acknowledged < 0;
  session.acknowledged = epoch;
  const { streamUuid, owner, pairing } = session;
  state.held = { streamUuid, epoch, owner, pairing };
  state.shared = { streamUuid, epoch, digest };
  session.lastAtMs = lastAtMs ?? null;
  claimTheLast(state, session, effects);
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

/**
 * The primary stands still until it is known whose the domain is: that is asked while the last checkpoint is committed. Where
 * both hosts write to the same disks it cannot take the domain back: it is asked when nothing is left that can go wrong.
 */
export function claimTheLast(state: SecondaryState, session: Session, effects: Effects): void {
  if (session.lastAtMs === null || !session.linked || state.held === null) return;
  if (session.claimed || state.asking) return;
  if (state.standstillMs > 0 && !(session.done && session.handedOver)) return;
  state.asking = true;
  state.claiming = state.held;
  effects.push({ kind: 'ask-witness', held: state.held, handedOver: true });
}

export function bye(state: SecondaryState, session: Session, reason: ByeReason, effects: Effects): void {
  // What becomes of what is being started says the register.
  if (state.phase === 'starting') state.session = null;
  else if (reason === 'domain-ended') over(state, 'ended', 'the domain shut down', effects);
  else tookLeave(state, session, effects);
}

function tookLeave(state: SecondaryState, session: Session, effects: Effects): void {
  if (!session.linked) return;
  session.linked = false;
  session.left = true;
  state.gone = null;
  state.phase = 'dialling';
  effects.push({ kind: 'transition', reason: 'bye shutdown' });
  if (session.done) goOn(state, session, effects);
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
  if (session.linked && session.complete && consistent && code === '') {
    session.done = true;
    claimTheLast(state, session, effects);
    startWhatIsClaimed(state, session, effects);
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
    loseHeld(state, `what it acknowledged could not be applied: ${message === '' ? code : message}`, effects);
  } else if (epochsBack > 0) {
    wentBack(state, session, epochsBack, effects);
  }
  goOn(state, session, effects);
}

/** What is held is as of so many epochs before. */
function wentBack(state: SecondaryState, session: Session, epochsBack: number, effects: Effects): void {
  const { held } = state;
  state.shared = null;
  giveUpClaim(state, session);
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
  unlinked(state, session, reason, effects);
}

/** The domain of the stream has ended. What was acknowledged meanwhile is lost with it. */
export function spoilt(state: SecondaryState, session: Session, reason: string, effects: Effects): void {
  session.spoilt = true;
  breakOff(state, session, 'STANDBY_LOST', 'STANDBY_LOST', `the standby was lost: ${reason}`, effects);
}

/** What the primary is told when it was the stream that was wrong. */
function linkCode(code: string): ChannelErrorCode {
  if (code === 'BUFFER_LIMIT' || code === 'DIGEST_MISMATCH') return code;
  if (code === REFUSED_STATE) return 'STATE_REFUSED';
  return 'INTERNAL';
}
