// Is the other side alive? The decision, with no clock and no socket in it.
//
//               every interval: tick(now, heard)
//   heard since the last tick ──▶ silence begins anew
//   paused by us              ──▶ silence begins anew (we do not listen, so we cannot accuse)
//   silent > timeout          ──▶ lost
//   … but this tick is late   ──▶ one more interval: it was we who were stopped, or the clock jumped, and what the
//                                 other side said meanwhile still stands unread in the socket
//
// Times are milliseconds of a monotonic clock. The timeout should be three intervals or more.

export interface HeartbeatState {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly heardAtMs: number;
  readonly tickedAtMs: number;
  readonly paused: boolean;
}

export type HeartbeatEvent =
  /** `heard`: anything at all came in since the last tick. */
  | { readonly kind: 'tick'; readonly nowMs: number; readonly heard: boolean }
  /** We stop reading the socket. */
  | { readonly kind: 'paused' }
  | { readonly kind: 'resumed'; readonly nowMs: number };

export type HeartbeatEffect =
  | { readonly kind: 'send' }
  | { readonly kind: 'heard' }
  | { readonly kind: 'lost'; readonly silentMs: number };

export function startHeartbeat(intervalMs: number, timeoutMs: number, nowMs: number): HeartbeatState {
  return { intervalMs, timeoutMs, heardAtMs: nowMs, tickedAtMs: nowMs, paused: false };
}

export function step(
  state: HeartbeatState,
  event: HeartbeatEvent,
): readonly [HeartbeatState, readonly HeartbeatEffect[]] {
  switch (event.kind) {
    case 'paused':
      return [{ ...state, paused: true }, []];
    case 'resumed':
      return [{ ...state, paused: false, heardAtMs: event.nowMs }, []];
    case 'tick':
      return tick(state, event.nowMs, event.heard);
  }
}

function tick(
  state: HeartbeatState,
  nowMs: number,
  heard: boolean,
): readonly [HeartbeatState, readonly HeartbeatEffect[]] {
  const ticked = { ...state, tickedAtMs: nowMs };
  if (heard) return [{ ...ticked, heardAtMs: nowMs }, [{ kind: 'send' }, { kind: 'heard' }]];
  if (state.paused) return [{ ...ticked, heardAtMs: nowMs }, [{ kind: 'send' }]];
  const silentMs = nowMs - state.heardAtMs;
  if (silentMs <= state.timeoutMs) return [ticked, [{ kind: 'send' }]];
  const lateMs = nowMs - state.tickedAtMs - state.intervalMs;
  if (lateMs > state.intervalMs) {
    // One interval short of nothing left: the next tick, if it is in time and nothing was heard, decides.
    return [{ ...ticked, heardAtMs: nowMs - state.timeoutMs }, [{ kind: 'send' }]];
  }
  return [ticked, [{ kind: 'lost', silentMs }]];
}
