// What the register lets a primary do: see failover/mandate.ts.
//
//   a stream's first checkpoint is acknowledged ─▶ paired is written; what is acknowledged may leave meanwhile
//   the link is lost                            ─▶ held, alone is written ─▶ won: all may leave │ lost: we are replaced
//
// A standby that comes back while the register still names it has a checkpoint that is good: nothing is written then.

import {
  answered as answeredMandate,
  isAlone,
  isPairedBy,
  wanted,
  type Pairing,
} from '../failover/mandate.js';
import { fenced } from './life-ends.js';
import { startDomain } from './life-standstill.js';
import type { LifeEffect, LifeEvent, LifeState } from './life-state.js';

export function answered(
  state: LifeState,
  { token, ...outcome }: LifeEvent & { readonly kind: 'answered' },
  effects: LifeEffect[],
): void {
  if (!state.mandate) return;
  state.mandate = answeredMandate(state.mandate, token, outcome);
  if (state.mandate.lost && state.role === 'primary' && !state.stopped) fenced(state, effects);
}

/** Asks the register for what is the case, and lets output pass when nobody else may run the domain. */
export function settleMandate(state: LifeState, effects: LifeEffect[]): void {
  if (!state.mandate || state.role === 'fenced' || state.role === 'failed') return;
  const pairing = pairingOf(state);
  if (pairing !== 'as it is') {
    const [mandate, write] = wanted(state.mandate, pairing);
    state.mandate = mandate;
    if (write) effects.push({ kind: 'write', write });
  }
  if (state.stopped) return;
  const alone = isAlone(state.mandate) && state.stream?.holding !== true;
  if (alone) {
    state.exposed = false;
    // One that was found, and stood still as long as its standby might have had it.
    if (state.wanted && state.role === 'primary') startDomain(state, effects);
  }
  const passing = alone && state.running;
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
  // It may hold an older one, which stays good while it is filled.
  return mandate && isPairedBy(mandate, stream.pairing) ? 'as it is' : null;
}
