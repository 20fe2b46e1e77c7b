// How it ends: a stream, and the domain here. For what holds in between see life.ts.
//
//   stream:  dropped by us, lost, bye ──▶ unlinked: hold, until the register says that nobody else may run it
//   domain:  ended, failed, fenced: what is held leaves with END's acknowledgement only; fenced discards first of all
//   switchover: theirs ──▶ fenced: what they hold is what was said, so that may leave (life-hand-over.ts)
//   agent:   stop ─▶ goodbye confirmed? ─▶ let go: free, or held

import type { ByeReason, ChannelErrorCode } from '../channel/contract.js';
import { allIsSaid, end, leave, mayBeTheirs, undo } from './life-hand-over.js';
import type { LifeEffect, LifeState, StreamState } from './life-state.js';

export function shutDown(state: LifeState, effects: LifeEffect[]): void {
  if (state.role !== 'primary') return;
  if (mayBeTheirs(state)) {
    // It stood still: what the standby holds is the domain.
    failed(state, 'the domain ended while it was handed over', effects);
    return;
  }
  const { stream } = state;
  if (stream && stream.captured >= 0) {
    // Its last words belong to a last epoch: END, acknowledged, lets them out.
    state.ending = true;
    return;
  }
  if (stream) {
    const { streamUuid } = stream;
    leaveStream(state);
    effects.push(bye(streamUuid, 'domain-ended'));
  }
  finish(state, 'ended', 'the domain shut down unprotected', effects);
}

/**
 * It shut down in the middle of a checkpoint: that cannot be finished, nor can END be sent. A bye says the same, but
 * nobody answers it, so what the domain said since the last checkpoint stays held.
 */
export function endedInCheckpoint(state: LifeState, stream: StreamState, effects: LifeEffect[]): void {
  leaveStream(state);
  effects.push(bye(stream.streamUuid, 'domain-ended'));
  finish(state, 'ended', 'the domain shut down in a checkpoint', effects);
}

export function failed(state: LifeState, reason: string, effects: LifeEffect[]): void {
  if (state.role !== 'primary') return;
  end(state, 'failed', reason, effects);
  // A secondary that can will take over.
  if (state.exposed) effects.push({ kind: 'discard' });
  effects.push({ kind: 'withdraw' });
  if (state.stream) dropLink(state, 'INTERNAL', reason, effects);
  effects.push({ kind: 'let-go', how: state.exposed ? 'stopped' : 'free' });
  finish(state, 'failed', reason, effects);
}

/** By the register, or by its word that it runs what was handed over: it is theirs. */
export function fenced(state: LifeState, effects: LifeEffect[], tookMs?: number): void {
  const afterOutput = allIsSaid(state);
  if (!afterOutput) effects.push({ kind: 'discard' });
  if (state.stream) dropLink(state, 'FENCED', 'the secondary has taken over', effects);
  effects.push({ kind: 'let-go', how: 'stopped', ...(afterOutput && { afterOutput }) });
  finish(state, 'fenced', 'the secondary has taken over', effects, tookMs);
}

export function stop(state: LifeState, effects: LifeEffect[]): void {
  state.stopped = true;
  leave(state, effects);
  effects.push({ kind: 'withdraw' });
  if (state.stream) {
    const { streamUuid } = state.stream;
    leaveStream(state);
    state.leaving = streamUuid;
    effects.push(bye(streamUuid, 'shutdown'));
  } else {
    letGo(state, effects);
  }
  effects.push({ kind: 'transition', reason: 'stopped' });
}

/** The secondary's answer says what becomes of a domain that goes on without us. */
export function goodbye(
  state: LifeState,
  streamUuid: string,
  confirmed: boolean,
  effects: LifeEffect[],
): void {
  if (state.leaving !== streamUuid) return;
  state.leaving = null;
  // One that was asked to take it over may be about to.
  if (confirmed && !mayBeTheirs(state)) state.exposed = false;
  letGo(state, effects);
}

function letGo(state: LifeState, effects: LifeEffect[]): void {
  if (state.role === 'fenced' || state.role === 'failed') return; // it was then
  const free = !state.exposed;
  // An ended domain has said all it may; a gate that passes is left to finish its writing.
  if (!free && state.role !== 'ended') effects.push({ kind: 'discard' });
  effects.push({ kind: 'let-go', how: free ? 'free' : 'held' });
}

export function finish(
  state: LifeState,
  role: 'ended' | 'fenced' | 'failed',
  reason: string,
  effects: LifeEffect[],
  tookMs?: number,
): void {
  const first = state.role === 'primary';
  state.role = role;
  end(state, role, reason, effects, tookMs);
  effects.push({ kind: 'transition', reason });
  if (first) effects.push({ kind: 'finished' });
}

export function dropLink(
  state: LifeState,
  code: ChannelErrorCode,
  message: string,
  effects: LifeEffect[],
): void {
  if (!state.stream) return;
  effects.push({ kind: 'drop-link', streamUuid: state.stream.streamUuid, code, message });
  unlinked(state, code, effects);
}

/** The link is gone, whoever ended it: from here on the domain is unprotected. */
export function unlinked(state: LifeState, reason: string, effects: LifeEffect[]): void {
  if (!state.ending) undo(state, reason, effects);
  leaveStream(state);
  if (state.role !== 'primary') return;
  if (state.exposed && !allIsSaid(state) && !effects.some(({ kind }) => kind === 'discard')) {
    // From now on the secondary may take over: what was let out and is still here is kept back.
    effects.push({ kind: 'hold' });
  }
  // The domain is over, and END did not get through: the secondary may take over, so nothing more is let out.
  if (state.ending) finish(state, 'ended', `the domain shut down, link lost: ${reason}`, effects);
  else effects.push({ kind: 'transition', reason });
}

export function leaveStream(state: LifeState): void {
  if (!state.stream) return;
  state.lastStream = state.stream;
  state.stream = null;
}

export function bye(streamUuid: string, reason: ByeReason): LifeEffect {
  return { kind: 'bye', streamUuid, reason };
}
