// Is the other side alive? The decision, with no clock and no socket in it.
//
//               every interval: tick(now, heard), and when the silence has been as long as it may be
//   heard since the last tick ──▶ silence begins anew
//   paused by us              ──▶ silence begins anew (we do not listen, so we cannot accuse)
//   silent > timeout          ──▶ lost
//   … but this tick is late   ──▶ one more interval: it was we who were stopped, or the clock jumped, and what the
//                                 other side said meanwhile still stands unread in the socket
//
// Times are milliseconds of a monotonic clock. The timeout should be three intervals or more.
//
// A domain whose disks both hosts see must not run on both, not even for a moment and unheard: each would write. There
// is no clock that both share, so each counts from what it knows:
//
//   secondary  ──── last word ✕ link lost ················ standstillMs ················▶ may take over
//                       ╲
//   primary    ───────── heard, late ···· silence ····▶ guest told to stop ── stopped
//                        ≤ stall + interval    ≤ timeout + beat + stall    ≤ STOP_MS
//
// The primary counts from when it last heard the secondary, and may hear late: its process may stand still, but for no
// longer than a stall; if longer, it trusts nothing that it heard before. A primary that stands still for good cannot
// stop anything: that is what the fence is for that the configuration asks for.

import type { Welcome } from '../contract.js';

/** From telling the hypervisor to stop a guest until it has, its last writes done. */
const STOP_MS = 500;

export interface HeartbeatState {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly heardAtMs: number;
  readonly tickedAtMs: number;
  readonly paused: boolean;
}

export type HeartbeatEvent =
  /** `heard`: anything at all came in since the last tick. */
  /** `heardAtMs`: when the last of it came, where that is known. */
  | { readonly kind: 'tick'; readonly nowMs: number; readonly heard: boolean; readonly heardAtMs?: number }
  /** We stop reading the socket. */
  | { readonly kind: 'paused' }
  | { readonly kind: 'resumed'; readonly nowMs: number };

export type HeartbeatEffect =
  | { readonly kind: 'send' }
  | { readonly kind: 'heard' }
  | { readonly kind: 'lost'; readonly silentMs: number };

type Step = readonly [HeartbeatState, readonly HeartbeatEffect[]];

export function startHeartbeat(intervalMs: number, timeoutMs: number, nowMs: number): HeartbeatState {
  return { intervalMs, timeoutMs, heardAtMs: nowMs, tickedAtMs: nowMs, paused: false };
}

export function step(state: HeartbeatState, event: HeartbeatEvent): Step {
  switch (event.kind) {
    case 'paused':
      return [{ ...state, paused: true }, []];
    case 'resumed':
      return [{ ...state, paused: false, heardAtMs: event.nowMs }, []];
    case 'tick':
      return tick(state, event.nowMs, event.heard, event.heardAtMs);
  }
}

function tick(state: HeartbeatState, nowMs: number, heard: boolean, heardAtMs = nowMs): Step {
  const ticked = { ...state, tickedAtMs: nowMs };
  const lateMs = nowMs - state.tickedAtMs - state.intervalMs;
  const isLate = lateMs > state.intervalMs;
  if (heard) {
    // What it said while we were stopped is not read yet.
    const sinceMs = isLate ? nowMs : heardAtMs;
    return [{ ...ticked, heardAtMs: sinceMs }, [{ kind: 'send' }, { kind: 'heard' }]];
  }
  if (state.paused) return [{ ...ticked, heardAtMs: nowMs }, [{ kind: 'send' }]];
  const silentMs = nowMs - state.heardAtMs;
  if (silentMs <= state.timeoutMs) return [ticked, [{ kind: 'send' }]];
  if (isLate) {
    // One interval short of nothing left: the next tick, if it is in time and nothing was heard, decides.
    return [{ ...ticked, heardAtMs: nowMs - state.timeoutMs }, [{ kind: 'send' }]];
  }
  return [ticked, [{ kind: 'lost', silentMs }]];
}

/** When to tick ahead of the interval, so that silence is not noticed an interval late; null: the interval will do. */
export function tickAheadMs({
  intervalMs,
  timeoutMs,
  heardAtMs,
  tickedAtMs,
  paused,
}: HeartbeatState): number | null {
  const restMs = Math.ceil(heardAtMs + timeoutMs - tickedAtMs) + 1;
  return paused || restMs >= intervalMs ? null : Math.max(1, restMs);
}

/** This process was stopped if it hears nothing, not even its own beat, for longer. */
export function stallMsOf(heartbeatTimeoutMs: number): number {
  return heartbeatTimeoutMs / 2;
}

/** Who is silent for longer may have sent what comes next before that; between two words it may be an interval, and late. */
export function silenceMsOf(heartbeatIntervalMs: number, heartbeatTimeoutMs: number): number {
  return Math.max(stallMsOf(heartbeatTimeoutMs), 1.5 * heartbeatIntervalMs);
}

export function beatMsOf(heartbeatTimeoutMs: number): number {
  return stallMsOf(heartbeatTimeoutMs) / 4;
}

/** From the loss of the link, as the secondary sees it, until the primary's guest surely stands still. */
export function standstillMsOf({
  heartbeatIntervalMs,
  heartbeatTimeoutMs,
}: Pick<Welcome, 'heartbeatIntervalMs' | 'heartbeatTimeoutMs'>): number {
  const heardLate = stallMsOf(heartbeatTimeoutMs) + heartbeatIntervalMs;
  const decided = heartbeatTimeoutMs + beatMsOf(heartbeatTimeoutMs) + stallMsOf(heartbeatTimeoutMs);
  return heardLate + decided + STOP_MS;
}
