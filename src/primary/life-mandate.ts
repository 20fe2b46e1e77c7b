// What the register lets a primary do: see failover/mandate.ts.
//
//   a stream's first checkpoint is acknowledged ─▶ paired is written; what is acknowledged may leave meanwhile
//   the link is lost                            ─▶ held, alone is written ─▶ won: all may leave │ lost: we are replaced
//
//   a link whose pairing the register does not name ─▶ no stream before alone is won
//
// A standby that comes back while the register still names it has a checkpoint that is good: nothing is written then.

import {
  answered as answeredMandate,
  isAlone,
  isPairedBy,
  isTentative,
  mayBePairedOtherwise,
  wanted,
  type Pairing,
} from '../failover/mandate.js';
import { fenced } from './life-ends.js';
import { handBack } from './life-hand-over.js';
import { startDomain } from './life-standstill.js';
import {
  linkStateOf,
  type LifeEffect,
  type LifeEvent,
  type LifeState,
  type StreamState,
} from './life-state.js';

export function answered(
  state: LifeState,
  { token, ...outcome }: LifeEvent & { readonly kind: 'answered' },
  effects: LifeEffect[],
): void {
  const before = linkStateOf(state);
  state.mandate = answeredMandate(state.mandate, token, outcome);
  if (before === 'syncing' && linkStateOf(state) === 'replicating')
    effects.push({ kind: 'transition', reason: 'by the register its standby may take it over' });
  if (state.mandate.lost && state.role === 'primary' && !state.stopped) fenced(state, effects);
}

/**
 * What this stream acknowledges may leave: nobody can have taken over by another pairing, one that is written or one that
 * may be. Else the standby may have done that, and come back with nothing: it would take from us what it has left behind.
 */
export function mayReplicate({ mandate }: LifeState, { pairing }: StreamState): boolean {
  // By a register of our own there is nothing more to find out.
  return !mandate.shared || !mayBePairedOtherwise(mandate, pairing);
}

/** Asks the register for what is the case, and lets output pass when nobody else may run the domain. */
export function settleMandate(state: LifeState, effects: LifeEffect[]): void {
  if (state.role === 'fenced' || state.role === 'failed') return;
  // It is theirs: here it ends.
  if (state.stopped && isTentative(state.mandate)) return;
  const pairing = pairingOf(state);
  if (pairing !== 'as it is') {
    const [mandate, write] = wanted(state.mandate, pairing);
    state.mandate = mandate;
    if (write) effects.push({ kind: 'write', write });
  }
  if (state.stopped) return;
  if (isAlone(state.mandate)) handBack(state, effects);
  const alone = isAlone(state.mandate) && state.stream?.holding !== true;
  if (alone) {
    state.exposed = false;
    // One that was found, and stood still as long as its standby might have had it.
    if (state.wanted && state.role === 'primary') startDomain(state, effects);
  }
  const passing = alone && state.running && !state.waiting;
  if (passing && !state.passing) {
    state.letOut = { released: null, streamsSince: state.stream ? [state.stream.streamUuid] : [] };
    effects.push({ kind: 'pass' }, { kind: 'transition', reason: 'no other host may run it' });
  }
  state.passing = passing;
}

/** Who holds a checkpoint that may be taken over. */
function pairingOf({ stream, mandate }: LifeState): Pairing | null | 'as it is' {
  if (!stream) return null;
  if (stream.acknowledged >= 0) return stream.pairing;
  // By a register of its own the standby takes over what it holds, whether or not we have heard that it does.
  if (!mandate.shared && stream.captured >= 0) return stream.pairing;
  // It may hold an older one, which stays good while it is filled.
  if (isPairedBy(mandate, stream.pairing)) return 'as it is';
  // One that is linked is not turned off, nor waited for in vain, so as to be alone for a moment.
  return !mandate.shared && mandate.register.standby === stream.pairing.standby ? 'as it is' : null;
}
