// When a domain whose disks both hosts see must stand still: while a secondary may have taken it over.
//
//   no secondary has a checkpoint           it runs
//   the secondary is heard                  it runs
//   the link is lost, or silent             it stands still …
//   this process was stopped for a while    … first of all, and until a checkpoint taken since is acknowledged
//   a secondary is linked (again)           … until it is heard: its hello may be older than its takeover, but with its
//                                           first word after our welcome it stands by
//   it has said goodbye                     it runs
//   the register says that we are alone     it runs
//
// What follows from that is told in effects, once the step has decided everything else. A stream begins when the domain
// may run: what a dead agent left standing still is not captured before it is known to be ours.

import type { LifeEffect, LifeState } from './life-state.js';

/** No secondary can be running it. */
export function mayRun({ settings, exposed, stream, lastAtMs }: LifeState): boolean {
  if (settings.standstill === null || !exposed) return true;
  if (stream === null || stream.stalled || stream.heardAtMs === null) return false;
  return lastAtMs - stream.heardAtMs <= settings.standstill.silenceMs;
}

export function startDomain(state: LifeState, effects: LifeEffect[]): void {
  if (state.running || !mayRun(state)) return;
  state.running = true;
  effects.push({ kind: 'start-domain' });
}

/** Stops the domain or lets it go on; says to its hypervisor whether it is to be stopped should we die. */
export function settleStandstill(state: LifeState, effects: LifeEffect[]): void {
  if (state.settings.standstill === null || state.role !== 'primary') return;
  const still = state.running && !mayRun(state);
  // What becomes of a domain that is being left, its hypervisor is told with that.
  if (!state.stopped) {
    const exposing = state.exposed || state.stream?.begun === true;
    if (exposing !== state.exposing) effects.unshift({ kind: 'expose', on: exposing });
    state.exposing = exposing;
    if (!still && state.still) effects.push({ kind: 'unhalt-domain' });
  }
  if (still && !state.still) effects.unshift({ kind: 'halt-domain' });
  state.still = still;
}
