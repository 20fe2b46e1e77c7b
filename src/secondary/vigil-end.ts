// What ends: a link, what is held, and the vigil as a whole.

import { armReconnect, giveUpDial } from './redial.js';
import type { Effects, SecondaryState, Session } from './vigil-state.js';

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
  if (state.held !== null) discardHeld(state, effects);
  state.phase = 'over';
}

export function loseHeld(state: SecondaryState, reason: string, effects: Effects): void {
  if (state.held === null) return;
  // A primary that took its leave has nothing that we could fail over from.
  state.gone = state.phase === 'dialling' ? null : state.held;
  effects.push({ kind: 'standby-lost', was: 'held', reason });
  discardHeld(state, effects);
  effects.push({ kind: 'transition', reason: 'the standby was lost' });
}

export function discardHeld(state: SecondaryState, effects: Effects): void {
  state.held = null;
  effects.push({ kind: 'discard-held' });
}

export function lost(state: SecondaryState, session: Session, code: string, effects: Effects): void {
  if (!session.linked) return;
  session.linked = false;
  state.reason = code;
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
