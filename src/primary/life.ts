// What becomes of a domain on its primary, across its streams. A pure function: no clock, no I/O, no randomness.
//
//            linked              acknowledged 0
//   down ───────────▶ syncing ────────────────▶ replicating          one stream is one link: it ends, and never resumes
//    ▲                   │                          │
//    └───────────────────┴──────────────────────────┘
//      lost, bye, stream over: unprotected
//
// Roles: primary → ended (the domain shut down by itself), fenced (the secondary has taken over), failed (the domain
// crashed or cannot be driven). What a stream lets out while it lasts, its ledger says (ledger.ts); here stands what
// holds for all of them. After a gap in time, this process was stopped and may have been replaced: what was let out and
// is still here is held, until an epoch that was captured since is acknowledged.

import { follow, withOneTransition, type Rules } from '../flow/kinds.js';
import {
  bye,
  dropLink,
  endedInCheckpoint,
  failed,
  fenced,
  finish,
  goodbye,
  leaveStream,
  shutDown,
  stop,
  unlinked,
} from './life-ends.js';
import { acknowledgedLast, handOver, late, mayBeTheirs, noteLast, noteStop } from './life-hand-over.js';
import { answered, mayReplicate, settleMandate } from './life-mandate.js';
import { mayRun, settleStandstill, startDomain } from './life-standstill.js';
import type { LifeEffect, LifeEvent, LifeState, StreamState } from './life-state.js';
import type { Ledger } from './ledger.js';
import type { StreamEnd } from './stream.js';

/** More streams in a row that never got a checkpoint through are not remembered as valid points. */
const STREAMS_REMEMBERED_MAX = 16;

/** `atMs`: of the monotonic clock. */
export function stepLife(
  before: LifeState,
  event: LifeEvent,
  atMs: number,
): readonly [LifeState, readonly LifeEffect[]] {
  const state: LifeState = { ...before, stream: before.stream && { ...before.stream } };
  const effects: LifeEffect[] = [];
  if (state.stream && atMs - state.lastAtMs > state.settings.stallMs) stalled(state, state.stream, effects);
  state.lastAtMs = atMs;
  if (!state.stopped) handle(state, event, effects);
  else if (event.kind === 'goodbye') goodbye(state, event.streamUuid, event.confirmed, effects);
  else if (event.kind === 'answered') answered(state, event, effects);
  settleMandate(state, effects);
  settleStandstill(state, effects);
  return [state, withOneTransition(effects)];
}

function handle(state: LifeState, event: LifeEvent, effects: LifeEffect[]): void {
  if (state.stream?.stalled === true && !state.stream.begun) {
    // Whatever it says, it may have said it before.
    dropLink(state, 'INTERNAL', 'this process was stopped', effects);
  }
  follow(RULES, event, state, effects);
}

const NOTHING = (): void => undefined;

const RULES: Rules<LifeEvent, [LifeState, LifeEffect[]]> = {
  start: ({ orphaned, running }, state, effects) => start(state, orphaned, running, effects),
  linked: (event, state, effects) => linked(state, event, effects),
  heard: ofStream((stream, _, state, effects) => {
    stream.heardAtMs = state.lastAtMs;
    begin(state, stream, effects);
  }),
  suspending: ofStream((stream) => {
    stream.holding = true;
  }),
  stopping: ofStream((_stream, _event, state) => noteStop(state)),
  answered: (event, state, effects) => {
    answered(state, event, effects);
    if (state.stream && state.role === 'primary') begin(state, state.stream, effects);
  },
  captured: ofStream((stream, { ledger }, state) => {
    stream.captured = ledger.captured;
    state.exposed = true;
    if (ledger.endEpoch !== null) state.ending = true;
    noteLast(state, stream, ledger);
  }),
  acknowledged: ofStream((stream, { ledger }, state, effects) =>
    acknowledged(state, stream, ledger, effects),
  ),
  'stream-over': ofStream((stream, { end }, state, effects) => streamOver(state, stream, end, effects)),
  bye: ofStream((_, { reason }, state, effects) => {
    if (reason === 'shutdown' && !mayBeTheirs(state)) state.exposed = false;
    unlinked(state, `bye ${reason}`, effects);
  }),
  lost: (event, state, effects) => {
    noteRefusal(state, event.code, event.message);
    if (state.stream?.streamUuid === event.streamUuid) lost(state, event, effects);
  },
  'machine-changed': ({ message }, state, effects) => {
    state.error = { code: 'MACHINE_CHANGED', message };
    // The next secondary is compared with what it is now.
    dropLink(state, 'DOMAIN_MISMATCH', message, effects);
  },
  'domain-shutdown': (_, state, effects) => shutDown(state, effects),
  'domain-crashed': ({ reason }, state, effects) => failed(state, `crashed: ${reason}`, effects),
  'domain-failed': ({ code, message }, state, effects) => {
    state.error = { code, message };
    failed(state, code, effects);
  },
  'hand-over': (event, state, effects) => handOver(state, event, effects),
  timer: (_, state, effects) => {
    if (late(state, effects)) dropLink(state, 'INTERNAL', 'it was not taken over in time', effects);
  },
  // That it comes tells whether we were stopped; a capture begins with it.
  beat: NOTHING,
  goodbye: NOTHING,
  stop: (_, state, effects) => stop(state, effects),
};

/** What comes of a stream that is over comes late and means nothing. */
function ofStream<Event extends { readonly streamUuid: string }>(
  rule: (stream: StreamState, event: Event, state: LifeState, effects: LifeEffect[]) => void,
) {
  return (event: Event, state: LifeState, effects: LifeEffect[]): void => {
    if (state.stream?.streamUuid === event.streamUuid) rule(state.stream, event, state, effects);
  };
}

function lost(
  state: LifeState,
  { streamUuid, code, tookMs }: LifeEvent & { readonly kind: 'lost' },
  effects: LifeEffect[],
): void {
  // Said of another stream it may be a claim that can be taken back: that says the register.
  const isOfLast = mayBeTheirs(state) && state.handOver?.streamUuid === streamUuid;
  if (code !== 'FENCED' || !isOfLast) {
    unlinked(state, code, effects);
    return;
  }
  leaveStream(state);
  fenced(state, effects, tookMs);
}

function stalled(state: LifeState, stream: StreamState, effects: LifeEffect[]): void {
  stream.staleEpoch = stream.captured;
  stream.stalled = true;
  // What was let out and is still here must wait for that, too.
  if (state.exposed && state.role === 'primary') effects.push({ kind: 'hold' });
}

/** Shown until a checkpoint is acknowledged again. What the machine has become says more. */
function noteRefusal(state: LifeState, code: string, message: string): void {
  if (code === 'STATE_REFUSED' && state.error?.code !== 'MACHINE_CHANGED') state.error = { code, message };
}

function start(state: LifeState, orphaned: boolean, running: boolean, effects: LifeEffect[]): void {
  state.exposed ||= orphaned;
  if (state.role !== 'primary') return;
  // One that runs already waits for nobody.
  if (state.settings.startWithStandby && !running) return;
  state.wanted = true;
  state.waiting = false;
  startDomain(state, effects);
}

function linked(
  state: LifeState,
  { streamUuid, pairing }: LifeEvent & { readonly kind: 'linked' },
  effects: LifeEffect[],
): void {
  if (state.error?.code === 'MACHINE_CHANGED') state.error = null;
  if (state.stream?.streamUuid === streamUuid) return;
  // One that has shut down, and waited for END, comes to its end with its link.
  if (state.stream) dropLink(state, 'INTERNAL', 'another link took its place', effects);
  if (state.role === 'ended') {
    effects.push(bye(streamUuid, 'domain-ended'));
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
  state.stream = {
    streamUuid,
    pairing,
    holding: false,
    captured: -1,
    acknowledged: -1,
    staleEpoch: -1,
    stalled: false,
    heardAtMs: null,
    begun: false,
  };
  const streamsSince = [...state.letOut.streamsSince, streamUuid].slice(-STREAMS_REMEMBERED_MAX);
  state.letOut = { ...state.letOut, streamsSince };
  begin(state, state.stream, effects);
  effects.push({ kind: 'transition', reason: 'linked' });
}

function begin(state: LifeState, stream: StreamState, effects: LifeEffect[]): void {
  // What stands still for being handed over is not captured before it is known to be ours.
  if (stream.begun || state.handOver !== null || !mayRun(state) || !mayReplicate(state, stream)) return;
  stream.begun = true;
  startDomain(state, effects);
  effects.push({ kind: 'restart' }, { kind: 'replicate', streamUuid: stream.streamUuid });
}

function acknowledged(
  state: LifeState,
  stream: StreamState,
  { acknowledged: epoch, endEpoch, release }: Ledger,
  effects: LifeEffect[],
): void {
  stream.acknowledged = epoch;
  // What follows from END's comes with the end of the stream.
  if (epoch === endEpoch) return;
  if (release) state.letOut = { released: { streamUuid: stream.streamUuid, epoch }, streamsSince: [] };
  if (release && epoch > stream.staleEpoch) {
    stream.stalled = false;
    stream.heardAtMs = state.lastAtMs;
  }
  state.acknowledgedAtMs = state.lastAtMs;
  state.waiting = false;
  if (state.error?.code === 'STATE_REFUSED') state.error = null;
  if (epoch === 0) effects.push({ kind: 'transition', reason: 'first checkpoint acknowledged' });
  acknowledgedLast(state, stream, effects);
}

function streamOver(state: LifeState, stream: StreamState, end: StreamEnd, effects: LifeEffect[]): void {
  switch (end.how) {
    case 'ended':
      // END is safe: the secondary will never take over, so all that the domain said may leave.
      state.exposed = false;
      leaveStream(state);
      effects.push({ kind: 'pass' }, bye(stream.streamUuid, 'domain-ended'));
      finish(state, 'ended', 'the domain shut down', effects);
      return;
    case 'broken':
      dropLink(state, end.code, end.message, effects);
      return;
    case 'failed':
      if (end.code === 'HUNG') state.error = { code: end.code, message: end.message };
      // A hypervisor that does not answer is as good as dead, where somebody can go on.
      if (end.code === 'HUNG' && state.exposed) failed(state, 'the hypervisor does not answer', effects);
      else if (state.ending) endedInCheckpoint(state, stream, effects);
      else dropLink(state, 'INTERNAL', `the saver failed: ${end.code}`, effects);
      return;
  }
}
