// When a secondary dials its primary, and how soon again.
//
//   no link, or a refusal      again, later and later; while the primary is suspect each moment counts
//   a standby did not last     again, at once the first time and then later and later: there is no use in filling one
//                              after another, and the primary pays for each
//
// The reconnect window is how long a primary that cannot be reached is not taken for dead; at least as long as its guest
// must not be taken over; and at least as long as it may go on without noticing that the link is lost: a link that is cut
// may be cut for us alone, and what we have acknowledged is let out when it is read.

import { backoffMs } from '../flow/backoff.js';
import type { Effects, SecondaryState } from './vigil-state.js';

export function dial(state: SecondaryState, effects: Effects): void {
  effects.push({ kind: 'disarm', timer: 'redial' });
  state.dials++;
  state.dial = state.dials;
  const { held, shared } = state;
  effects.push({ kind: 'dial', dial: state.dial, held, shared });
}

export function redialLater(state: SecondaryState, effects: Effects): void {
  // In `suspect` each moment counts, but for a domain that does not start.
  const attempt = state.phase === 'suspect' ? state.failedStarts : state.failures;
  state.failures++;
  effects.push({ kind: 'arm', timer: 'redial', delayMs: redialMs(state, attempt) });
}

export function giveUpDial(state: SecondaryState, effects: Effects): void {
  effects.push({ kind: 'disarm', timer: 'redial' });
  if (state.dial === 0) return;
  state.dial = 0;
  effects.push({ kind: 'abort-dial' });
}

/** The primary lived a moment ago, so it is suspect only if it does not answer now. */
export function fillAgain(state: SecondaryState, effects: Effects): void {
  const delayMs = state.losses <= 1 ? 0 : redialMs(state, state.losses - 2);
  if (state.phase === 'suspect') {
    effects.push({ kind: 'arm', timer: 'reconnect', delayMs: delayMs + reconnectWindowMs(state) });
  }
  if (delayMs === 0) dial(state, effects);
  else effects.push({ kind: 'arm', timer: 'redial', delayMs });
}

export function armReconnect(state: SecondaryState, effects: Effects): void {
  effects.push({ kind: 'arm', timer: 'reconnect', delayMs: reconnectWindowMs(state) });
}

export function reconnectWindowMs({ settings, standstillMs, unheardMs }: SecondaryState): number {
  return Math.max(settings.reconnectWindowMs, standstillMs, unheardMs);
}

function redialMs({ settings: { redialMinMs, redialMaxMs } }: SecondaryState, attempt: number): number {
  return backoffMs(redialMinMs, redialMaxMs, attempt);
}
