// What a host does about a domain, over its life: who may run it says the register, and this is what follows from that. A
// pure function: no clock, no I/O, no randomness.
//
//   none ─▶ reading ─┬─ absent, and we are the first of its hosts ─┐
//            ▲       ├─ alone, ours ───────────────────────────────┴─▶ booting: written anew ─▶ owner
//            │       ├─ paired, ours, and it runs here ───────────────────────────────────────▶ owner
//            │       └─ anything else ─▶ standby ─ took over ─────────────────────────────────▶ owner
//            │                             ▲                                                      │
//            └─ crashed, nobody stood by ──┼───────────── replaced, or crashed while paired ──────┤
//                                          │                     none: shut down by itself ◀──────┘
//
// An owner that comes back without the domain while the register is paired must not boot it: the standby is the domain.
// Where the witness is nothing that all hosts see, nobody boots before the others were heard: they may run it.

import { backoffMs } from '../flow/backoff.js';
import type { Register } from '../failover/register.js';
import type { Effects, RoleEffect, RoleEvent, RoleState } from './role-state.js';

export function stepRole(before: RoleState, event: RoleEvent): readonly [RoleState, readonly RoleEffect[]] {
  const state: RoleState = { ...before };
  const effects: Effects = [];
  if (state.phase !== 'over') handle(state, event, effects);
  return [state, effects];
}

function handle(state: RoleState, event: RoleEvent, effects: Effects): void {
  switch (event.kind) {
    case 'start':
      state.found = event.found;
      read(state, effects);
      return;
    case 'register':
      state.error = null;
      learn(state, event.register);
      decide(state, effects);
      return;
    case 'register-failed':
      state.error = { code: event.code, message: event.message };
      retryLater(state, effects);
      // Somebody may be there who needs a standby; one without a checkpoint takes nothing over.
      if (state.phase === 'reading' && !state.found) standBy(state, 'the witness cannot be asked', effects);
      return;
    case 'answered':
      answered(state, event, effects);
      return;
    case 'owner-over':
      if (state.phase === 'owner') ownerOver(state, event, effects);
      return;
    case 'took-over':
      if (state.phase !== 'standby') return;
      learn(state, event.register);
      isOwner(state);
      effects.push(
        { kind: 'disarm', timer: 'retry' },
        { kind: 'inherit', register: event.register },
        { kind: 'transition', reason: 'taken over' },
      );
      return;
    case 'standby-over':
      if (state.phase !== 'standby') return;
      if (event.how === 'failed') state.crashes++;
      change(state, `the standby is over: ${event.how}`, effects);
      return;
    case 'standby':
      if (state.phase === 'standby' && state.busy !== event.busy) turn(state, event.busy, effects);
      return;
    case 'not-here':
      if (state.phase !== 'standby' || state.absent.includes(event.host)) return;
      state.absent = [...state.absent, event.host];
      if (state.known) decide(state, effects);
      return;
    case 'changed':
      if (state.phase !== 'changing') return;
      if (state.crashes > 0) {
        state.phase = 'reading';
        retryLater(state, effects, state.crashes - 1);
      } else {
        read(state, effects);
      }
      return;
    case 'timer':
      if (state.phase === 'reading' || state.phase === 'standby') effects.push({ kind: 'read' });
      return;
    case 'force':
      force(state, effects);
      return;
    case 'stop':
      state.phase = 'over';
      effects.push({ kind: 'disarm', timer: 'retry' }, { kind: 'end' });
      return;
  }
}

/** What follows from the register, for one who is reading it or stands by. */
function decide(state: RoleState, effects: Effects): void {
  if (state.phase !== 'reading' && state.phase !== 'standby') return;
  if (state.asking || state.busy) return;
  const { found } = state;
  const ours = found ? foundBy(state) : null;
  if (ours) {
    own(state, ours, 'it runs here, and by the register it is ours', effects);
  } else if (mayBoot(state)) {
    if (state.phase === 'standby') change(state, 'by the register it may be started here', effects);
    else boot(state, effects);
  } else {
    if (state.found) effects.push({ kind: 'stop-found' });
    state.found = false;
    if (state.phase === 'reading') standBy(state, whyNot(state), effects);
    else retryLater(state, effects);
  }
}

/** By which register what was found running here is ours; null: it is not. */
function foundBy({ register, settings }: RoleState): Register | null {
  const { host, hosts, shared } = settings;
  // What we let out while we are alone, nobody must take over from before: a late write of who was here could allow that
  // yet. So alone is written anew first (boot), and such a write comes to nothing.
  if (register?.owner === host && (register.mode === 'paired' || !shared)) return register;
  const other = hosts.find((name) => name !== host);
  if (shared || register || other === undefined) return null;
  // Nobody remembers who stood by: it counts as one who may take over.
  return { generation: 1, mode: 'paired', owner: host, standby: other, stream: 'unknown', token: 'unknown' };
}

function mayBoot(state: RoleState): boolean {
  const { register, forced, absent, settings } = state;
  const { host, hosts, shared } = settings;
  if (forced) return true;
  // Those who have the domain by what we know, or might have it.
  const isFirst = hosts[0] === host;
  const others = hosts.filter((other) => other !== host);
  if (!shared) return isFirst && others.every((other) => absent.includes(other));
  if (register === null) return isFirst;
  return register.mode === 'alone' && register.owner === host;
}

function whyNot({ register, settings }: RoleState): string {
  if (!settings.shared) return 'the other hosts are asked first';
  if (register === null) return `${settings.hosts[0] ?? ''} starts it`;
  if (register.owner !== settings.host) return `${register.owner} runs it`;
  return `${register.standby ?? ''} has the last checkpoint`;
}

function boot(state: RoleState, effects: Effects): void {
  const { host, instance } = state.settings;
  state.phase = 'booting';
  state.writes++;
  state.asking = {
    expected: state.register,
    claim: { mode: 'alone', owner: host, standby: null, stream: null },
    token: `${instance}-boot-${state.writes}`,
  };
  effects.push({ kind: 'write', write: state.asking }, { kind: 'transition', reason: 'to be started here' });
}

function answered(
  state: RoleState,
  { token, won, register }: RoleEvent & { readonly kind: 'answered' },
  effects: Effects,
): void {
  if (state.asking?.token !== token) return;
  state.asking = null;
  learn(state, register);
  if (won && register) {
    own(state, register, 'started', effects);
  } else {
    // Somebody was faster.
    state.phase = 'reading';
    decide(state, effects);
  }
}

function own(state: RoleState, register: Register, reason: string, effects: Effects): void {
  if (state.phase === 'standby') {
    change(state, reason, effects);
    return;
  }
  isOwner(state);
  effects.push({ kind: 'boot', register }, { kind: 'transition', reason });
}

/** What was wanted, or known, before is of no meaning for what comes after. */
function isOwner(state: RoleState): void {
  state.phase = 'owner';
  state.found = false;
  state.forced = false;
  state.busy = false;
}

function ownerOver(
  state: RoleState,
  { how, alone, steady }: RoleEvent & { readonly kind: 'owner-over' },
  effects: Effects,
): void {
  switch (how) {
    case 'ended':
      state.phase = 'none';
      effects.push({ kind: 'end' }, { kind: 'transition', reason: 'the domain shut down' });
      return;
    case 'fenced':
      change(state, 'another host has taken it over', effects);
      return;
    case 'failed':
      if (alone && state.settings.onCrash === 'stay') {
        state.phase = 'none';
        effects.push({ kind: 'end' }, { kind: 'transition', reason: 'the domain crashed' });
        return;
      }
      state.crashes = steady ? 1 : state.crashes + 1;
      change(state, 'the domain crashed', effects);
      return;
  }
}

function standBy(state: RoleState, reason: string, effects: Effects): void {
  if (!state.settings.canStandBy) {
    retryLater(state, effects);
    return;
  }
  state.phase = 'standby';
  state.absent = [];
  state.busy = false;
  state.failures = 0;
  effects.push({ kind: 'stand-by' }, { kind: 'transition', reason });
  retryLater(state, effects);
}

/** The standby is about something, or no more. */
function turn(state: RoleState, busy: boolean, effects: Effects): void {
  state.busy = busy;
  state.failures = 0;
  if (!busy) {
    retryLater(state, effects);
    return;
  }
  state.absent = [];
  state.crashes = 0;
  effects.push({ kind: 'disarm', timer: 'retry' });
}

/** What is here is ended, and the register read anew. */
function change(state: RoleState, reason: string, effects: Effects): void {
  state.phase = 'changing';
  state.busy = false;
  effects.push({ kind: 'disarm', timer: 'retry' }, { kind: 'end' }, { kind: 'transition', reason });
}

function force(state: RoleState, effects: Effects): void {
  switch (state.phase) {
    case 'none':
      state.forced = true;
      read(state, effects);
      return;
    case 'reading':
    case 'standby':
      if (state.busy) return;
      state.forced = true;
      if (state.known) decide(state, effects);
      else effects.push({ kind: 'read' });
      return;
    case 'booting':
    case 'owner':
    case 'changing':
    case 'over':
      return;
  }
}

function read(state: RoleState, effects: Effects): void {
  state.phase = 'reading';
  effects.push({ kind: 'read' });
}

function learn(state: RoleState, register: Register | null): void {
  state.register = register;
  state.known = true;
  state.owner = register?.owner ?? null;
}

function retryLater(state: RoleState, effects: Effects, attempt = state.failures++): void {
  const { retryMinMs, retryMaxMs } = state.settings;
  effects.push({ kind: 'arm', timer: 'retry', delayMs: backoffMs(retryMinMs, retryMaxMs, attempt) });
}
