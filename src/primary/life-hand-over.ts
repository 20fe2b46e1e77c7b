// The domain is handed over to its standby while both hosts are well: a planned switchover, as its owner sees it.
//
//   asked ──▶ still ── acknowledged, all is let out: handed over ── FENCED, or the register is lost ──▶ theirs
//     │         └───── link lost, or late ──▶ undoing ──── lost ──▶ theirs
//     │                                           └─────── alone ─▶ ours: the domain goes on
//     └── link lost, or late ──▶ ours: it never stood still
//
// From its last checkpoint on the domain stands still as long as it is not known whose it is: that says the register.
// Nothing is let out meanwhile but what is acknowledged, and that is all there is once the last one is.

import type { SwitchoverErrorCode } from '../report/error.js';
import type { Ledger } from './ledger.js';
import type { HandOverOutcome, LifeEffect, LifeEvent, LifeState, StreamState } from './life-state.js';

export function handOver(
  state: LifeState,
  { id, to }: LifeEvent & { readonly kind: 'hand-over' },
  effects: LifeEffect[],
): void {
  const { stream, lastAtMs } = state;
  const refusal = refusalOf(state, to);
  if (refusal !== null || stream === null) {
    const outcome = refusal ?? { how: 'NOT_PAIRED' as const, message: 'no standby is linked' };
    effects.push({ kind: 'hand-over-settled', id, outcome });
    return;
  }
  const { streamUuid, pairing } = stream;
  state.handOver = {
    id,
    stage: 'asked',
    streamUuid,
    standby: pairing.standby,
    lastEpoch: null,
    askedAtMs: lastAtMs,
    stoppedAtMs: lastAtMs,
    acknowledgedAtMs: null,
    reason: '',
  };
  effects.push(
    { kind: 'arm', timer: 'hand-over', delayMs: state.settings.handOverTimeoutMs },
    { kind: 'hand-over' },
    { kind: 'transition', reason: `to be handed over to ${pairing.standby}` },
  );
}

function refusalOf(
  state: LifeState,
  to: string | null,
): { readonly how: SwitchoverErrorCode; readonly message: string } | null {
  const { role, running, ending, stream, mandate } = state;
  const refusal = (how: SwitchoverErrorCode, message: string) => ({ how, message });
  if (role !== 'primary' || !running || ending) return refusal('NOT_OWNER', 'the domain does not run here');
  if (state.handOver) return refusal('UNDER_WAY', 'the domain is being handed over already');
  if (stream === null) return refusal('NOT_PAIRED', 'no standby is linked');
  const { standby } = stream.pairing;
  if (to !== null && to !== standby) return refusal('NOT_STANDBY', `its standby is ${standby}, not ${to}`);
  if (stream.acknowledged < 0) return refusal('NOT_PAIRED', 'the standby holds no checkpoint yet');
  if (stream.stalled)
    return refusal('NOT_PAIRED', 'no checkpoint was acknowledged since this process was stopped');
  const register = mandate.asking === null ? mandate.register : null;
  if (register?.standby !== standby || register.stream !== stream.pairing.stream)
    return refusal('NOT_PAIRED', 'the register does not name the standby yet');
  return null;
}

/** It is about to be stopped for a checkpoint, which may be the last. */
export function noteStop(state: LifeState): void {
  if (state.handOver?.stage !== 'asked') return;
  state.handOver = { ...state.handOver, stoppedAtMs: state.lastAtMs };
}

export function noteLast(state: LifeState, stream: StreamState, { captured, lastEpoch }: Ledger): void {
  const { handOver: given } = state;
  if (given?.streamUuid !== stream.streamUuid || captured !== lastEpoch) return;
  state.handOver = { ...given, stage: 'still', lastEpoch };
}

/** Of an epoch that is acknowledged. What is stale lets nothing out, and so is no word of ours that all is out. */
export function acknowledgedLast(state: LifeState, stream: StreamState, effects: LifeEffect[]): void {
  const { streamUuid, acknowledged: epoch } = stream;
  if (epoch !== state.handOver?.lastEpoch || !allIsSaid(state)) return;
  state.handOver = { ...state.handOver, acknowledgedAtMs: state.lastAtMs };
  effects.push({ kind: 'handed-over', streamUuid, epoch });
}

/** The standby may have taken it over, from the last checkpoint. */
export function mayBeTheirs({ handOver: given }: LifeState): boolean {
  return given !== null && given.stage !== 'asked';
}

/** The standby holds all that the domain said here: it may leave, whoever runs it now. */
export function allIsSaid({ handOver: given, stream, lastStream }: LifeState): boolean {
  const last = stream ?? lastStream;
  if (!given || !last || given.lastEpoch === null || given.streamUuid !== last.streamUuid) return false;
  return last.acknowledged === given.lastEpoch && last.staleEpoch < given.lastEpoch;
}

/** The standby has had its time. */
export function late(state: LifeState, effects: LifeEffect[]): boolean {
  const { handOver: given, stream, settings } = state;
  if (given === null || given.streamUuid !== stream?.streamUuid) return false;
  undo(state, `not within ${settings.handOverTimeoutMs} ms`, effects);
  return true;
}

/** The link is gone, or is left. */
export function undo(state: LifeState, reason: string, effects: LifeEffect[]): void {
  const { handOver: given } = state;
  if (given === null || given.stage === 'undoing') return;
  effects.push({ kind: 'disarm', timer: 'hand-over' });
  state.handOver = { ...given, stage: 'undoing', reason };
  // It may have been stopped for the last one.
  if (given.stage === 'asked') handBack(state, effects);
}

/** It is ours. */
export function handBack(state: LifeState, effects: LifeEffect[]): void {
  if (state.handOver?.stage !== 'undoing') return;
  const { standby, reason } = state.handOver;
  effects.push({ kind: 'hand-back' });
  settle(state, { how: 'NOT_SWITCHED', message: `${standby} has not taken it over: ${reason}` }, effects);
}

/** It has come to an end here. `tookMs`: as the standby says. */
export function end(
  state: LifeState,
  role: LifeState['role'],
  reason: string,
  effects: LifeEffect[],
  tookMs?: number,
): void {
  const { handOver: given, lastAtMs } = state;
  if (given === null) return;
  if (role !== 'fenced') {
    settle(state, { how: 'NOT_SWITCHED', message: reason }, effects);
    return;
  }
  const { standby, lastEpoch, stoppedAtMs, askedAtMs, acknowledgedAtMs } = given;
  const epoch = allIsSaid(state) ? lastEpoch : null;
  // The acknowledgement's way is counted, and that of the word that it runs there is not.
  const runsAtMs = tookMs === undefined || acknowledgedAtMs === null ? lastAtMs : acknowledgedAtMs + tookMs;
  const pauseMs = Math.max(0, Math.min(runsAtMs, lastAtMs) - stoppedAtMs);
  settle(state, { how: 'done', standby, epoch, pauseMs, totalMs: lastAtMs - askedAtMs }, effects);
}

/** We leave, and do not wait for what becomes of it. */
export function leave(state: LifeState, effects: LifeEffect[]): void {
  const { handOver: given } = state;
  if (given === null) return;
  settle(state, { how: 'STOPPED', message: 'the agent was stopped' }, effects);
  if (given.stage !== 'asked') state.handOver = { ...given, stage: 'undoing' };
}

function settle(state: LifeState, outcome: HandOverOutcome, effects: LifeEffect[]): void {
  if (state.handOver === null) return;
  const { id } = state.handOver;
  state.handOver = null;
  effects.push({ kind: 'disarm', timer: 'hand-over' }, { kind: 'hand-over-settled', id, outcome });
}
