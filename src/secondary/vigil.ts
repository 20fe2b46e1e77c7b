// What the secondary of one domain decides. A pure function: no clock, no I/O, no randomness.
//
//                dialled             lost, and a checkpoint is held
//   dialling ───────────▶ linked ────────────────────────────────────▶ suspect ──▶ deciding ──▶ starting ──▶ over
//      ▲  ▲                │  ▲                                          │  │
//      │  └────────────────┘  └──────────────────────────────────────────┘  └ REFUSED, or the reconnect window is over
//      │     lost, and none is held              dialled: resync
//      └── bye 'shutdown': the primary was stopped in order, that is no reason to take over
//
// What a refused dial says in `suspect`: nobody listens there, or somebody who does not have our domain: the process
// that ran it is dead, fail over now. A primary that answers in another way lives: the window starts anew. Silence
// says nothing: the window decides, and is as long as the primary might not have noticed that its link is cut: it may
// have acknowledgements of ours still to read, and let out what they allow (redial.ts). Where both hosts write to the
// same disks, the guest of a process that is dead may not be, and that of a primary that is out of sight must stand
// still first (channel/link/heartbeat.ts): there the window decides alone, and is as long as that takes.
//
// A primary that is well may hand the domain over: at its last checkpoint the register is asked at once, while the link stands,
// and what is granted is started when nothing more is heard of the domain there (`handed-over`).
// If it does not grant the domain we leave the link, and the primary goes on.
//
// A resync fills a second domain. The older one is kept as long as it is a valid point to fail over to, which the
// primary says in its welcome (`continuous`).
//
// A standby may end by itself, or be of no use, before it is taken over. What it held is lost: it is never said to be
// held, and never taken over. We drop the link and dial again, at once the first time and then later and later, and the
// next stream fills another domain; the primary sees a lost link, no more. If the primary dies before that one has a
// checkpoint, the failover has failed, and is reported so; we go on dialling, for whoever comes next.

import type { ChannelErrorCode } from '../channel/contract.js';
import { follow, withOneTransition, type Rules } from '../flow/kinds.js';
import { armReconnect, dial, reconnectWindowMs, redialLater } from './redial.js';
import {
  decide,
  discardHeld,
  isAskedForHeld,
  loseHeld,
  over,
  startFailed,
  startWhatIsClaimed,
  started,
  stop,
  unlinked,
  witness,
} from './vigil-failover.js';
import { acknowledged, bye, claimTheLast, restored, spoilt } from './vigil-stream.js';
import { keepsDomain } from './vigil-state.js';
import type {
  Effects,
  SecondaryEffect,
  SecondaryEvent,
  SecondaryPhase,
  SecondaryState,
  SecondaryTimer,
  Session,
} from './vigil-state.js';

/** The dialled host is up, and the process that ran our domain is not. */
const PRIMARY_DEAD: ReadonlySet<string> = new Set<ChannelErrorCode>(['REFUSED', 'UNKNOWN_DOMAIN']);
/** A primary of ours answered, or somebody whom TLS, or a token that was changed, keeps from saying so: it lives. */
const PRIMARY_LIVES: ReadonlySet<string> = new Set<ChannelErrorCode>([
  'ALREADY_LINKED',
  'DOMAIN_MISMATCH',
  'PROTOCOL_VERSION',
  'FENCED',
  'TLS',
  'NAME_REFUSED',
  'TOKEN_MISMATCH',
]);

const MAY_DIAL: ReadonlySet<SecondaryPhase> = new Set<SecondaryPhase>(['dialling', 'suspect', 'deciding']);

/** Timers are late by less than this on a busy host. */
const LATE_MIN_MS = 100;

export function stepSecondary(
  before: SecondaryState,
  event: SecondaryEvent,
): readonly [SecondaryState, readonly SecondaryEffect[]] {
  const state: SecondaryState = { ...before, session: before.session && { ...before.session } };
  const effects: Effects = [];
  handle(state, event, effects);
  return [state, withOneTransition(effects)];
}

function handle(state: SecondaryState, event: SecondaryEvent, effects: Effects): void {
  // A restorer that ends late leaves a domain behind, whatever was decided meanwhile.
  if (state.phase !== 'over' || event.kind === 'restored') follow(RULES, event, state, effects);
}

const RULES: Rules<SecondaryEvent, [SecondaryState, Effects]> = {
  start: (_, state, effects) => {
    if (state.dials === 0 && state.phase === 'dialling') dial(state, effects);
  },
  dialled: (event, state, effects) => {
    if (isDialUnderWay(state, event)) dialled(state, event, effects);
  },
  'dial-failed': (event, state, effects) => {
    if (isDialUnderWay(state, event)) dialFailed(state, event.code, effects);
  },
  acknowledged: ofSession((session, event, state, effects) => acknowledged(state, session, event, effects)),
  complete: ofSession((session) => {
    session.complete = true;
  }),
  'handed-over': ofSession((session, _, state, effects) => {
    session.handedOver = true;
    claimTheLast(state, session, effects);
    startWhatIsClaimed(state, session, effects);
  }),
  ended: ofSession((_session, _, state, effects) => over(state, 'ended', 'the domain shut down', effects)),
  lost: ofSession((session, { code }, state, effects) => unlinked(state, session, code, effects)),
  bye: ofSession((session, { reason }, state, effects) => bye(state, session, reason, effects)),
  restored: ofSession((session, event, state, effects) => restored(state, session, event, effects)),
  timer: ({ timer: which, lateMs }, state, effects) => timer(state, which, lateMs, effects),
  witness: ({ answer }, state, effects) => witness(state, answer, effects),
  started: (event, state, effects) => started(state, event, effects),
  'start-failed': (event, state, effects) => {
    if (state.phase === 'starting') startFailed(state, event, effects);
  },
  'held-ended': ({ reason }, state, effects) => {
    if (state.phase === 'starting') state.endedEarly = true;
    else if (keepsDomain(state)) heldEnded(state, reason, effects);
  },
  'filling-ended': ({ reason }, state, effects) => {
    if (!state.session || state.session.acknowledged >= 0) return;
    effects.push({ kind: 'standby-lost', was: 'filling', reason });
    spoilt(state, state.session, reason, effects);
  },
  'domain-failed': ({ code }, state, effects) => domainFailed(state, code, effects),
  stop: (_, state, effects) => stop(state, effects),
};

/** Events of a session that is over come late and mean nothing. */
function ofSession<Event extends { readonly streamUuid: string }>(
  rule: (session: Session, event: Event, state: SecondaryState, effects: Effects) => void,
) {
  return (event: Event, state: SecondaryState, effects: Effects): void => {
    if (state.session?.streamUuid === event.streamUuid) rule(state.session, event, state, effects);
  };
}

function isDialUnderWay(state: SecondaryState, event: { readonly dial: number }): boolean {
  return state.dial !== 0 && event.dial === state.dial;
}

function dialled(
  state: SecondaryState,
  {
    streamUuid,
    owner,
    pairing,
    continuous,
    resumes = false,
    standstillMs,
    silenceMs = 0,
  }: SecondaryEvent & { kind: 'dialled' },
  effects: Effects,
): void {
  state.dial = 0;
  state.failures = 0;
  state.standstillMs = standstillMs;
  if (isAskedForHeld(state) && !continuous) {
    // What we hold may be granted to us still.
    const message = 'the secondary asks the register for the domain';
    effects.push({ kind: 'drop-link', streamUuid, code: 'ALREADY_LINKED', message });
    redialLater(state, effects);
    return;
  }
  effects.push({ kind: 'disarm', timer: 'reconnect' });
  if (!continuous) {
    // Output has left that was said after it. It may still be gone on from.
    if (resumes) state.held = null;
    else if (keepsDomain(state)) discardHeld(state, effects);
  }
  state.failedStarts = 0;
  state.silenceMs = silenceMs;
  state.session = {
    streamUuid,
    owner,
    pairing,
    resumes,
    heldBefore: resumes ? state.held : null,
    linked: true,
    left: false,
    acknowledged: -1,
    complete: false,
    done: false,
    lastAtMs: null,
    claimed: false,
    handedOver: false,
    spoilt: false,
    broken: false,
  };
  state.phase = 'linked';
  const from = resumes ? state.shared : null;
  effects.push({ kind: 'restore', streamUuid, from }, { kind: 'transition', reason: 'linked' });
}

function dialFailed(state: SecondaryState, code: string, effects: Effects): void {
  const { phase } = state;
  state.dial = 0;
  if (phase === 'suspect' && PRIMARY_DEAD.has(code) && state.standstillMs === 0) {
    decide(state, effects);
  } else if (MAY_DIAL.has(phase)) {
    if (phase === 'suspect' && PRIMARY_LIVES.has(code)) armReconnect(state, effects);
    redialLater(state, effects);
  }
}

function timer(state: SecondaryState, which: SecondaryTimer, lateMs: number, effects: Effects): void {
  if (which === 'steady') {
    state.losses = 0;
    return;
  }
  if (which === 'reconnect') {
    if (state.phase !== 'suspect') return;
    // It was we who were stopped: the primary has had no chance to answer.
    if (lateMs > Math.max(LATE_MIN_MS, reconnectWindowMs(state))) armReconnect(state, effects);
    else if (state.session) state.windowOver = true;
    else decide(state, effects);
    return;
  }
  if (MAY_DIAL.has(state.phase) && state.dial === 0 && state.session === null) dial(state, effects);
}

/** The standby has ended before it was taken over. */
function heldEnded(state: SecondaryState, reason: string, effects: Effects): void {
  const { session } = state;
  loseHeld(state, reason, effects);
  if (session && (session.resumes || session.acknowledged >= 0)) spoilt(state, session, reason, effects);
}

/** A domain to fill cannot be made: never, if not the first; else it is tried again, with what is held kept. */
function domainFailed(state: SecondaryState, code: string, effects: Effects): void {
  const { session } = state;
  const message = `no domain can be made: ${code}`;
  // One that has acknowledged has its domain: it was another stream's, and comes late.
  if (session && session.acknowledged >= 0) return;
  if (session) restored(state, session, { consistent: false, epochsBack: 0, code, message }, effects);
  else if (state.dials === 0) over(state, 'failed', message, effects);
}
