// What the primary of one domain decides. A pure function: no clock, no I/O, no randomness.
//
//            linked             ack(0)
//   down ───────────▶ syncing ─────────▶ replicating ──┐ checkpoint: decide → suspending → captured → ready
//    ▲                   │                   │    ▲     │                        ack(n) → release(n)
//    └───────────────────┴───────────────────┘    └─────┘
//      lost, bye, ack timeout, protocol error        one at a time, at most `windowEpochs` unacknowledged
//
// Roles: primary → ended (the domain shut down by itself), fenced (the secondary has taken over), failed (the domain
// crashed or cannot be driven). Nothing is released but by the acknowledgement of an epoch of the present stream.
//
// A stopped process (SIGSTOP, a paused host) finds old acknowledgements in its socket when it goes on, and the
// secondary may have taken over meanwhile. So after a gap in time, acknowledgements of epochs that were captured
// before the gap release nothing; the next one, of an epoch captured after it, proves that the standby still is one.

import type { ChannelErrorCode } from '../channel/contract.js';
import { withOneTransition } from '../flow/machine-run.js';
import { mayRun, settleStandstill } from './life-standstill.js';
import type { PrimaryEffect, PrimaryEvent, PrimaryState, StreamState } from './life-state.js';

/** More are forgotten: a secondary that holds one of them has let as many resyncs go by. */
const STREAMS_SENT = 1024;
/** More streams in a row that never got a checkpoint through are not remembered as valid points. */
const STREAMS_REMEMBERED = 16;

export function stepPrimary(
  before: PrimaryState,
  event: PrimaryEvent,
): readonly [PrimaryState, readonly PrimaryEffect[]] {
  const state: PrimaryState = { ...before, stream: before.stream && { ...before.stream } };
  const effects: PrimaryEffect[] = [];
  if (state.stream && event.atMs - state.lastAtMs > state.settings.stallMs) {
    state.stream.staleEpoch = state.stream.captured;
    state.stream.stalled = true;
    // What was let out and is still here must wait for that, too.
    if (state.exposed && state.role === 'primary') effects.push({ kind: 'hold' });
  }
  state.lastAtMs = event.atMs;
  if (!state.stopped) handle(state, event, effects);
  else if (event.kind === 'goodbye') goodbye(state, event.streamUuid, event.confirmed, effects);
  settleStandstill(state, effects);
  return [state, withOneTransition(effects)];
}

function handle(state: PrimaryState, event: PrimaryEvent, effects: PrimaryEffect[]): void {
  if (state.stream?.stalled === true && !state.stream.begun) {
    // Whatever it says, it may have said it before.
    dropLink(state, 'INTERNAL', 'this process was stopped', effects);
  }
  switch (event.kind) {
    case 'start':
      state.exposed ||= event.orphaned;
      if (state.role !== 'primary') return;
      // One that runs already waits for nobody.
      if (state.settings.startWithSecondary && !event.running) return;
      startDomain(state, effects);
      if (state.settings.whenUnprotected === 'pass') effects.push({ kind: 'pass' });
      return;
    case 'linked': {
      linked(state, event.streamUuid, effects);
      return;
    }
    case 'heard': {
      withStream(state, event, (stream) => {
        stream.heardAtMs = event.atMs;
        begin(state, stream, effects);
      });
      return;
    }
    case 'suspending': {
      withStream(state, event, (stream) => {
        stream.due = false;
        state.requested = false;
        // What the domain says until it is suspended belongs to epoch 0 already.
        if (event.epoch === 0) effects.push({ kind: 'hold' });
      });
      return;
    }
    case 'captured': {
      withStream(state, event, (stream) => {
        if (stream.acknowledged === stream.captured) armAcknowledge(state, effects);
        stream.captured = event.epoch;
        state.exposed = true;
        // From here on it runs: however long a pause was, the domain has its interval before the next one.
        effects.push({ kind: 'arm', timer: 'interval', delayMs: state.settings.intervalMs });
      });
      return;
    }
    case 'ready': {
      withStream(state, event, (stream) => {
        stream.waiting = true;
        proceed(state, stream, effects);
      });
      return;
    }
    case 'end-sent': {
      withStream(state, event, (stream) => {
        if (stream.acknowledged === stream.captured) armAcknowledge(state, effects);
        stream.ending = 'sent';
        stream.waiting = false;
        effects.push({ kind: 'disarm', timer: 'interval' });
      });
      return;
    }
    case 'acknowledged': {
      withStream(state, event, (stream) => acknowledged(state, stream, event.epoch, effects));
      return;
    }
    case 'save-failed': {
      withStream(state, event, (stream) => {
        // A hypervisor that does not answer is as good as dead, where somebody can go on.
        if (event.code === 'HUNG' && state.exposed) failed(state, 'the hypervisor does not answer', effects);
        else if (stream.ending === 'no')
          dropLink(state, 'INTERNAL', `the saver failed: ${event.code}`, effects);
        else endedInCheckpoint(state, stream, effects);
      });
      return;
    }
    case 'machine-changed':
      // The next secondary is compared with what it is now.
      dropLink(state, 'DOMAIN_MISMATCH', event.message, effects);
      return;
    case 'lost': {
      withStream(state, event, () => unlinked(state, event.code, effects));
      return;
    }
    case 'bye': {
      withStream(state, event, () => {
        if (event.reason === 'shutdown') state.exposed = false;
        unlinked(state, `bye ${event.reason}`, effects);
      });
      return;
    }
    case 'timer': {
      timer(state, event.timer, effects);
      return;
    }
    case 'request':
      state.requested = state.stream !== null;
      if (state.stream) proceed(state, state.stream, effects);
      return;
    case 'pressure':
      if (state.role !== 'primary' || state.pressure === event.on) return;
      state.pressure = event.on;
      effects.push({ kind: event.on ? 'pause-domain' : 'unpause-domain' });
      return;
    case 'domain-shutdown': {
      domainShutdown(state, effects);
      return;
    }
    case 'domain-crashed': {
      failed(state, `crashed: ${event.reason}`, effects);
      return;
    }
    case 'domain-failed': {
      failed(state, event.code, effects);
      return;
    }
    case 'fenced': {
      fenced(state, effects);
      return;
    }
    case 'beat':
    case 'goodbye':
      return;
    case 'stop': {
      stop(state, effects);
      return;
    }
  }
}

/** Events of a stream that is over come late and mean nothing. */
function withStream(
  state: PrimaryState,
  event: { readonly streamUuid: string },
  action: (stream: StreamState) => void,
): void {
  if (state.stream?.streamUuid === event.streamUuid) action(state.stream);
}

function startDomain(state: PrimaryState, effects: PrimaryEffect[]): void {
  if (state.running || !mayRun(state)) return;
  state.running = true;
  effects.push({ kind: 'start-domain' });
}

function linked(state: PrimaryState, streamUuid: string, effects: PrimaryEffect[]): void {
  if (state.role === 'ended') {
    effects.push({ kind: 'bye', streamUuid, reason: 'domain-ended' });
    return;
  }
  if (state.role !== 'primary') {
    effects.push({
      kind: 'drop-link',
      streamUuid,
      code: state.role === 'fenced' ? 'FENCED' : 'UNKNOWN_DOMAIN',
      message: `the domain is ${state.role} here`,
    });
    return;
  }
  if (state.stream) {
    if (state.stream.streamUuid === streamUuid) return;
    dropLink(state, 'INTERNAL', 'another link took its place', effects);
  }
  state.stream = {
    streamUuid,
    captured: -1,
    acknowledged: -1,
    waiting: false,
    due: false,
    ending: 'no',
    staleEpoch: -1,
    stalled: false,
    heardAtMs: null,
    begun: false,
  };
  const streamsSince = [...state.letOut.streamsSince, streamUuid].slice(-STREAMS_REMEMBERED);
  state.letOut = { ...state.letOut, streamsSince };
  begin(state, state.stream, effects);
  effects.push({ kind: 'transition', reason: 'linked' });
}

function begin(state: PrimaryState, stream: StreamState, effects: PrimaryEffect[]): void {
  if (stream.begun || !mayRun(state)) return;
  stream.begun = true;
  startDomain(state, effects);
  effects.push({ kind: 'restart-gate' }, { kind: 'save', streamUuid: stream.streamUuid });
}

function acknowledged(
  state: PrimaryState,
  stream: StreamState,
  epoch: number,
  effects: PrimaryEffect[],
): void {
  const last = stream.captured + (stream.ending === 'sent' ? 1 : 0);
  if (epoch !== stream.acknowledged + 1 || epoch > last) {
    const expected =
      stream.acknowledged < last ? `${stream.acknowledged + 1} was expected` : 'none was expected';
    dropLink(state, 'BAD_MESSAGE', `epoch ${epoch} was acknowledged, ${expected}`, effects);
    return;
  }
  stream.acknowledged = epoch;
  if (epoch > stream.captured) {
    // END is safe: the secondary will never take over, so all that the domain said may leave.
    const { streamUuid } = stream;
    state.exposed = false;
    leaveStream(state, effects);
    effects.push({ kind: 'pass' }, { kind: 'bye', streamUuid, reason: 'domain-ended' });
    finish(state, 'ended', 'the domain shut down', effects);
    return;
  }
  if (epoch > stream.staleEpoch) {
    stream.stalled = false;
    stream.heardAtMs = state.lastAtMs;
    state.letOut = { released: { streamUuid: stream.streamUuid, epoch }, streamsSince: [] };
    effects.push({ kind: 'release', epoch, untilMs: state.lastAtMs + state.settings.stallMs });
  }
  effects.push({ kind: 'report', streamUuid: stream.streamUuid, epoch });
  if (epoch === 0) effects.push({ kind: 'transition', reason: 'first checkpoint acknowledged' });
  if (epoch < last) armAcknowledge(state, effects);
  else effects.push({ kind: 'disarm', timer: 'acknowledge' });
  proceed(state, stream, effects);
}

/** Takes the next checkpoint, or finishes the stream, if the saver waits and there is reason and room. */
function proceed(state: PrimaryState, stream: StreamState, effects: PrimaryEffect[]): void {
  if (!stream.waiting) return;
  if (stream.ending !== 'no') {
    stream.waiting = false;
    stream.ending = 'asked';
    effects.push({ kind: 'decide', decision: 'finish' });
    return;
  }
  const room = stream.captured - stream.acknowledged < state.settings.windowEpochs;
  if (!room || !(stream.due || state.requested)) return;
  stream.waiting = false;
  stream.due = false;
  state.requested = false;
  effects.push({ kind: 'decide', decision: 'continue' });
}

function timer(state: PrimaryState, which: 'interval' | 'acknowledge', effects: PrimaryEffect[]): void {
  const { stream } = state;
  if (!stream) return;
  if (which === 'interval') {
    stream.due = true;
    proceed(state, stream, effects);
  } else if (stream.acknowledged < stream.captured || stream.ending === 'sent') {
    dropLink(
      state,
      'ACKNOWLEDGE_TIMEOUT',
      `epoch ${stream.acknowledged + 1} was not acknowledged within ${state.settings.acknowledgeTimeoutMs} ms`,
      effects,
    );
  }
}

function domainShutdown(state: PrimaryState, effects: PrimaryEffect[]): void {
  if (state.role !== 'primary') return;
  const { stream } = state;
  if (stream && stream.captured >= 0) {
    // Its last words belong to a last epoch: END, acknowledged, lets them out.
    if (stream.ending === 'no') stream.ending = 'wanted';
    proceed(state, stream, effects);
    return;
  }
  if (stream) {
    const { streamUuid } = stream;
    leaveStream(state, effects);
    effects.push({ kind: 'bye', streamUuid, reason: 'domain-ended' });
  }
  if (state.settings.whenUnprotected === 'pass') effects.push({ kind: 'pass' });
  finish(state, 'ended', 'the domain shut down unprotected', effects);
}

/**
 * It shut down in the middle of a checkpoint: that cannot be finished, nor can END be sent. A bye says the same, but
 * nobody answers it, so what the domain said since the last checkpoint stays held.
 */
function endedInCheckpoint(state: PrimaryState, stream: StreamState, effects: PrimaryEffect[]): void {
  leaveStream(state, effects);
  effects.push({ kind: 'bye', streamUuid: stream.streamUuid, reason: 'domain-ended' });
  finish(state, 'ended', 'the domain shut down in a checkpoint', effects);
}

function failed(state: PrimaryState, reason: string, effects: PrimaryEffect[]): void {
  if (state.role !== 'primary') return;
  // A secondary that can will take over.
  if (state.exposed) effects.push({ kind: 'discard' });
  effects.push({ kind: 'withdraw' });
  if (state.stream) dropLink(state, 'INTERNAL', reason, effects);
  effects.push({ kind: 'let-go', how: state.exposed ? 'stopped' : 'free' });
  finish(state, 'failed', reason, effects);
}

function fenced(state: PrimaryState, effects: PrimaryEffect[]): void {
  if (state.role === 'fenced') return;
  effects.push({ kind: 'discard' });
  if (state.stream) dropLink(state, 'FENCED', 'the secondary has taken over', effects);
  if (state.role !== 'failed') effects.push({ kind: 'let-go', how: 'stopped' });
  finish(state, 'fenced', 'the secondary has taken over', effects);
}

function stop(state: PrimaryState, effects: PrimaryEffect[]): void {
  state.stopped = true;
  effects.push({ kind: 'withdraw' });
  if (state.stream) {
    const { streamUuid } = state.stream;
    leaveStream(state, effects);
    state.leaving = streamUuid;
    effects.push({ kind: 'bye', streamUuid, reason: 'shutdown' });
  } else {
    letGo(state, effects);
  }
  effects.push({ kind: 'transition', reason: 'stopped' });
}

/** The secondary's answer says what becomes of a domain that goes on without us. */
function goodbye(
  state: PrimaryState,
  streamUuid: string,
  confirmed: boolean,
  effects: PrimaryEffect[],
): void {
  if (state.leaving !== streamUuid) return;
  state.leaving = null;
  if (confirmed) state.exposed = false;
  letGo(state, effects);
}

function letGo(state: PrimaryState, effects: PrimaryEffect[]): void {
  if (state.role === 'fenced' || state.role === 'failed') return; // it was then
  const free = !state.exposed || state.settings.whenUnprotected === 'pass';
  // An ended domain has said all it may; a gate that passes is left to finish its writing.
  if (!free && state.role !== 'ended') effects.push({ kind: 'discard' });
  effects.push({ kind: 'let-go', how: free ? 'free' : 'held' });
}

function finish(
  state: PrimaryState,
  role: 'ended' | 'fenced' | 'failed',
  reason: string,
  effects: PrimaryEffect[],
): void {
  const first = state.role === 'primary';
  state.role = role;
  effects.push({ kind: 'transition', reason });
  if (first) effects.push({ kind: 'finished' });
}

function dropLink(
  state: PrimaryState,
  code: ChannelErrorCode,
  message: string,
  effects: PrimaryEffect[],
): void {
  if (!state.stream) return;
  effects.push({ kind: 'drop-link', streamUuid: state.stream.streamUuid, code, message });
  unlinked(state, code, effects);
}

/** The link is gone, whoever ended it: from here on the domain is unprotected. */
function unlinked(state: PrimaryState, reason: string, effects: PrimaryEffect[]): void {
  const ending = state.stream !== null && state.stream.ending !== 'no';
  leaveStream(state, effects);
  if (state.role !== 'primary') return;
  if (state.settings.whenUnprotected === 'pass') {
    state.letOut = { released: null, streamsSince: [] };
    effects.push({ kind: 'pass' });
  } else if (state.exposed && !effects.some(({ kind }) => kind === 'discard')) {
    // From now on the secondary may take over: what was let out and is still here is kept back.
    effects.push({ kind: 'hold' });
  }
  // The domain is over, and END did not get through: the secondary may take over, so nothing more is let out.
  if (ending) finish(state, 'ended', `the domain shut down, link lost: ${reason}`, effects);
  else effects.push({ kind: 'transition', reason });
}

function leaveStream(state: PrimaryState, effects: PrimaryEffect[]): void {
  if (!state.stream) return;
  effects.push(
    { kind: 'disarm', timer: 'interval' },
    { kind: 'disarm', timer: 'acknowledge' },
    { kind: 'abandon', streamUuid: state.stream.streamUuid },
  );
  state.lastStream = state.stream;
  const { streamUuid, captured } = state.stream;
  if (captured >= 0) state.sent = [...state.sent, { streamUuid, captured }].slice(-STREAMS_SENT);
  state.stream = null;
  state.requested = false;
}

function armAcknowledge(state: PrimaryState, effects: PrimaryEffect[]): void {
  effects.push({ kind: 'arm', timer: 'acknowledge', delayMs: state.settings.acknowledgeTimeoutMs });
}
