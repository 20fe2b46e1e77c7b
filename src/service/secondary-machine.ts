// What the secondary of one domain decides. A pure function: no clock, no I/O, no randomness.
//
//                dialled             lost, and a checkpoint is held
//   dialling ───────────▶ linked ────────────────────────────────────▶ suspect ──▶ deciding ──▶ starting ──▶ active
//      ▲  ▲                │  ▲                                          │  │
//      │  └────────────────┘  └──────────────────────────────────────────┘  └ REFUSED, or the reconnect window is over
//      │     lost, and none is held              dialled: resync
//      └── bye 'shutdown': the primary was stopped in order, that is no reason to take over
//
// What a refused dial says in `suspect`: nobody listens there, or somebody who does not have our domain: the process
// that ran it is dead, fail over now. A primary that answers in another way lives: the window starts anew. Silence
// says nothing: the window decides. Where both hosts write to the same disks, the guest of a process that is dead may not
// be, and that of a primary that is out of sight must stand still first (see shared-disks.ts): there the window decides
// alone, and is as long as that takes.
//
// A resync fills a second domain. The older one is kept as long as it is a valid point to fail over to, which the
// primary says in its welcome (`continuous`).
//
// A standby may end by itself, or be of no use, before it is taken over. What it held is lost: it is never said to be
// held, and never taken over. We drop the link and dial again, at once the first time and then later and later, and the
// next stream fills another domain; the primary sees a lost link, no more. If the primary dies before that one has a
// checkpoint, the failover has failed, and is reported so; we go on dialling, for whoever comes next.

import type { ChannelErrorCode } from '../channel/contract.js';
import { withOneTransition } from './machine.js';
import {
  armReconnect,
  dial,
  fillAgain,
  giveUpDial,
  reconnectWindowMs,
  redialLater,
  type Effects,
} from './secondary-redial.js';
import type {
  SecondaryEffect,
  SecondaryEvent,
  SecondaryState,
  SecondaryTimer,
  Session,
} from './secondary-state.js';

/** The dialled host is up, and the process that ran our domain is not. */
const PRIMARY_DEAD: ReadonlySet<string> = new Set<ChannelErrorCode>([
  'REFUSED',
  'UNKNOWN_DOMAIN',
  'UNKNOWN_STREAM',
]);
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

/** The code of a domain that does not start, and never will. */
const DOMAIN_GONE = 'DOMAIN_GONE';
/** The restorer's code where the hypervisor does not take a checkpoint. */
const REFUSED_STATE = 'BAD_CONTEXT';

/** Timers are late by less than this on a busy host. */
const LATE_MS_MIN = 100;

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
  if (state.phase === 'over' && event.kind !== 'restored') return;
  switch (event.kind) {
    case 'start':
      if (state.dials === 0 && state.phase === 'dialling') dial(state, effects);
      return;
    case 'dialled':
      if (isDialUnderWay(state, event)) dialled(state, event, effects);
      return;
    case 'dial-failed':
      if (isDialUnderWay(state, event)) dialFailed(state, event.code, effects);
      return;
    case 'acknowledged':
      withSession(state, event, (session) => acknowledged(state, session, event.epoch, effects));
      return;
    case 'ended':
      withSession(state, event, () => ended(state, 'the domain shut down', effects));
      return;
    case 'lost':
      withSession(state, event, (session) => lost(state, session, event.code, effects));
      return;
    case 'bye':
      withSession(state, event, (session) => {
        if (event.reason === 'domain-ended') ended(state, 'the domain shut down', effects);
        else if (event.reason === 'shutdown') tookLeave(state, session, effects);
        else lost(state, session, `bye ${event.reason}`, effects);
      });
      return;
    case 'restored':
      withSession(state, event, (session) => restored(state, session, event, effects));
      return;
    case 'timer':
      timer(state, event.timer, event.lateMs, effects);
      return;
    case 'witness':
      witness(state, event.granted, effects);
      return;
    case 'started':
      started(state, event.epochsBack, effects);
      return;
    case 'start-failed':
      if (state.phase === 'starting') startFailed(state, event, effects);
      return;
    case 'domain-shutdown':
      domainOver(state, 'shutdown', 'it shut down', effects);
      return;
    case 'domain-crashed':
      domainOver(state, 'crashed', event.reason, effects);
      return;
    case 'filling-ended':
      if (state.session && state.session.acknowledged < 0) {
        effects.push({ kind: 'standby-lost', was: 'filling', reason: event.reason });
        spoilt(state, state.session, effects);
      }
      return;
    case 'domain-failed':
      domainFailed(state, event.code, effects);
      return;
    case 'stop':
      stop(state, effects);
      return;
  }
}

/** Events of a session that is over come late and mean nothing. */
function withSession(
  state: SecondaryState,
  event: { readonly streamUuid: string },
  action: (session: Session) => void,
): void {
  if (state.session?.streamUuid === event.streamUuid) action(state.session);
}

function isDialUnderWay(state: SecondaryState, event: { readonly dial: number }): boolean {
  return state.dial !== 0 && event.dial === state.dial;
}

function dialled(
  state: SecondaryState,
  { streamUuid, continuous, standstillMs }: SecondaryEvent & { kind: 'dialled' },
  effects: Effects,
): void {
  state.dial = 0;
  state.failures = 0;
  state.standstillMs = standstillMs;
  if (state.phase === 'active') {
    // It heard that we are active: it is fenced, or will be by the time it answers anything else.
    state.primaryTold = true;
    effects.push({ kind: 'drop-link', streamUuid, code: 'FENCED', message: 'the domain runs here' });
    return;
  }
  effects.push({ kind: 'disarm', timer: 'reconnect' });
  if (state.held !== null && !continuous) discardHeld(state, effects);
  state.failedStarts = 0;
  state.session = { streamUuid, linked: true, left: false, acknowledged: -1, spoilt: false, broken: false };
  state.phase = 'linked';
  effects.push({ kind: 'restore', streamUuid }, { kind: 'transition', reason: 'linked' });
}

function dialFailed(state: SecondaryState, code: string, effects: Effects): void {
  state.dial = 0;
  switch (state.phase) {
    case 'dialling':
      // Its domain is a new one: what we hold of the old one is of no use, for the old one was stopped in order.
      if (code === 'UNKNOWN_STREAM' && state.held !== null) discardHeld(state, effects);
      redialLater(state, effects);
      return;
    case 'suspect':
      if (PRIMARY_DEAD.has(code) && state.standstillMs === 0) {
        decide(state, effects);
        return;
      }
      if (PRIMARY_LIVES.has(code)) armReconnect(state, effects);
      redialLater(state, effects);
      return;
    case 'active':
      if (code === 'FENCED') state.primaryTold = true;
      else redialLater(state, effects);
      return;
    case 'linked':
    case 'deciding':
    case 'starting':
    case 'over':
      return;
  }
}

function acknowledged(state: SecondaryState, session: Session, epoch: number, effects: Effects): void {
  if (session.spoilt) return;
  const first = session.acknowledged < 0;
  session.acknowledged = epoch;
  state.held = { streamUuid: session.streamUuid, epoch };
  if (!first) return;
  state.gone = null;
  if (state.losses > 0) effects.push({ kind: 'arm', timer: 'steady', delayMs: state.settings.redialMaxMs });
  effects.push({ kind: 'adopt' });
  effects.push({ kind: 'transition', reason: 'first checkpoint acknowledged' });
  // It was whole before the link was lost, and is read only now: there is something to fail over to after all.
  if (state.phase === 'dialling' && !session.left) {
    state.phase = 'suspect';
    armReconnect(state, effects);
  }
}

function lost(state: SecondaryState, session: Session, code: string, effects: Effects): void {
  if (!session.linked) return;
  session.linked = false;
  state.reason = code;
  state.windowOver = false;
  if (state.held !== null || state.gone !== null) {
    state.phase = 'suspect';
    // A primary that we have left is not suspect before it is dialled again.
    if (!session.broken) armReconnect(state, effects);
  } else {
    state.phase = 'dialling';
  }
  // Dialling waits for the restorer: only then it is known what we hold.
  effects.push({ kind: 'transition', reason: code });
}

function tookLeave(state: SecondaryState, session: Session, effects: Effects): void {
  if (!session.linked) return;
  session.linked = false;
  session.left = true;
  state.gone = null;
  state.phase = 'dialling';
  effects.push({ kind: 'transition', reason: 'bye shutdown' });
}

/** How the restorer has ended. */
interface Restored {
  readonly consistent: boolean;
  readonly epochsBack: number;
  readonly code: string;
  readonly message: string;
}

function restored(
  state: SecondaryState,
  session: Session,
  { consistent, epochsBack, code, message }: Restored,
  effects: Effects,
): void {
  const own = session.acknowledged >= 0;
  if (state.phase === 'over') {
    state.session = null;
    if (!own) effects.push({ kind: 'discard-filling' });
    return;
  }
  if (session.linked) {
    if (!consistent || code === REFUSED_STATE) {
      breakOff(state, session, linkCode(code), code, message, effects);
    } else {
      effects.push({ kind: 'drop-link', streamUuid: session.streamUuid, code: linkCode(code), message });
      lost(state, session, code, effects);
    }
  }
  state.session = null;
  if (own && consistent && state.held !== null) {
    state.held = { ...state.held, epoch: state.held.epoch - epochsBack };
  }
  if (!own) effects.push({ kind: 'discard-filling' });
  else if (!consistent) loseHeld(state, `what it acknowledged could not be applied: ${code}`, effects);
  if (session.broken) fillAgain(state, effects);
  else if (state.phase === 'suspect') askAgainOrDecide(state, effects);
  else if (state.phase === 'dialling') redialLater(state, effects);
}

/** The restorer is done after the loss of the link. With nothing to take over, a window that it has used up says nothing. */
function askAgainOrDecide(state: SecondaryState, effects: Effects): void {
  if (state.windowOver && state.held !== null) {
    decide(state, effects);
    return;
  }
  if (state.windowOver) armReconnect(state, effects);
  state.windowOver = false;
  dial(state, effects);
}

/** We cannot go on with a stream: the link is dropped, and another one begun when the restorer is done. */
function breakOff(
  state: SecondaryState,
  session: Session,
  linkCode: ChannelErrorCode,
  reason: string,
  message: string,
  effects: Effects,
): void {
  if (!session.linked) return;
  session.broken = true;
  state.losses++;
  effects.push(
    { kind: 'disarm', timer: 'steady' },
    { kind: 'drop-link', streamUuid: session.streamUuid, code: linkCode, message },
  );
  lost(state, session, reason, effects);
}

/** What the primary is told when it was the stream that was wrong. */
function linkCode(code: string): ChannelErrorCode {
  if (code === 'BUFFER_LIMIT' || code === 'DIGEST_MISMATCH') return code;
  if (code === REFUSED_STATE) return 'STATE_REFUSED';
  return 'INTERNAL';
}

function timer(state: SecondaryState, which: SecondaryTimer, lateMs: number, effects: Effects): void {
  if (which === 'steady') {
    state.losses = 0;
    return;
  }
  if (which === 'reconnect') {
    if (state.phase !== 'suspect') return;
    // It was we who were stopped: the primary has had no chance to answer.
    if (lateMs > Math.max(LATE_MS_MIN, reconnectWindowMs(state))) armReconnect(state, effects);
    else if (state.session) state.windowOver = true;
    else decide(state, effects);
    return;
  }
  const mayDial = state.phase === 'dialling' || state.phase === 'suspect' || state.phase === 'active';
  if (mayDial && state.dial === 0 && state.session === null && !state.primaryTold) dial(state, effects);
}

/** The primary is dead as far as can be known from here. */
function decide(state: SecondaryState, effects: Effects): void {
  giveUpDial(state, effects);
  effects.push({ kind: 'disarm', timer: 'reconnect' });
  if (state.held === null) {
    nothingToTakeOver(state, effects);
    return;
  }
  state.phase = 'deciding';
  effects.push({ kind: 'ask-witness', held: state.held });
}

function witness(state: SecondaryState, granted: boolean, effects: Effects): void {
  if (state.phase !== 'deciding') return;
  if (granted) {
    if (state.held === null) {
      nothingToTakeOver(state, effects);
      return;
    }
    state.phase = 'starting';
    effects.push({ kind: 'take-over', held: state.held, reason: state.reason });
    return;
  }
  state.phase = 'suspect';
  effects.push({ kind: 'transition', reason: 'the witness did not grant the lease' });
  armReconnect(state, effects);
  redialLater(state, effects);
}

function nothingToTakeOver(state: SecondaryState, effects: Effects): void {
  state.phase = 'dialling';
  if (state.gone !== null) {
    effects.push({ kind: 'report-impossible', gone: state.gone, reason: state.reason });
  }
  state.gone = null;
  effects.push({ kind: 'transition', reason: 'the primary is dead, and its standby was lost before' });
  redialLater(state, effects);
}

function started(state: SecondaryState, epochsBack: number, effects: Effects): void {
  if (state.phase !== 'starting' || state.held === null) return;
  state.phase = 'active';
  state.role = 'active';
  state.failures = 0;
  state.held = { ...state.held, epoch: state.held.epoch - epochsBack };
  effects.push({ kind: 'report-completed', held: state.held }, { kind: 'transition', reason: 'failover' });
  if (state.endedEarly !== null) domainOver(state, state.endedEarly, '', effects);
  else dial(state, effects);
}

/** The last copy is kept, and tried again; unless the primary is found alive meanwhile. */
function startFailed(
  state: SecondaryState,
  { code, message, epochsBack }: { code: string; message: string; epochsBack: number },
  effects: Effects,
): void {
  effects.push({ kind: 'report-failed', code, message });
  if (code === DOMAIN_GONE || state.endedEarly !== null) {
    over(state, 'failed', `the domain did not start: ${code}`, effects);
    return;
  }
  state.phase = 'suspect';
  if (state.held !== null) state.held = { ...state.held, epoch: state.held.epoch - epochsBack };
  armReconnect(state, effects);
  redialLater(state, effects);
  state.failedStarts++;
  effects.push({ kind: 'transition', reason: `the domain did not start: ${code}` });
}

function domainOver(
  state: SecondaryState,
  how: 'shutdown' | 'crashed',
  reason: string,
  effects: Effects,
): void {
  if (state.phase === 'starting') {
    state.endedEarly = how;
  } else if (state.phase === 'active') {
    if (how === 'shutdown') over(state, 'ended', 'the domain shut down', effects);
    else over(state, 'failed', 'the domain crashed', effects);
  } else if (state.held !== null) {
    heldEnded(state, reason, effects);
  }
}

/** The standby has ended before it was taken over. */
function heldEnded(state: SecondaryState, reason: string, effects: Effects): void {
  const { session } = state;
  loseHeld(state, reason, effects);
  if (session && session.acknowledged >= 0) spoilt(state, session, effects);
}

/** The domain of the stream has ended. What was acknowledged meanwhile is lost with it. */
function spoilt(state: SecondaryState, session: Session, effects: Effects): void {
  session.spoilt = true;
  breakOff(state, session, 'STANDBY_LOST', 'STANDBY_LOST', 'the standby was lost', effects);
}

function ended(state: SecondaryState, reason: string, effects: Effects): void {
  over(state, 'ended', reason, effects);
}

/** A domain to fill cannot be made: never, if not the first; else it is tried again, with what is held kept. */
function domainFailed(state: SecondaryState, code: string, effects: Effects): void {
  const { session } = state;
  const message = `no domain can be made: ${code}`;
  if (session) restored(state, session, { consistent: false, epochsBack: 0, code, message }, effects);
  else if (state.dials === 0) over(state, 'failed', `no domain can be made: ${code}`, effects);
}

function over(state: SecondaryState, role: 'ended' | 'failed', reason: string, effects: Effects): void {
  giveUpDial(state, effects);
  effects.push({ kind: 'disarm', timer: 'reconnect' });
  if (state.held !== null) discardHeld(state, effects);
  effects.push({ kind: 'disarm', timer: 'steady' });
  if (state.session) state.session.linked = false;
  state.phase = 'over';
  state.role = role;
  effects.push({ kind: 'transition', reason }, { kind: 'finished' });
}

function stop(state: SecondaryState, effects: Effects): void {
  giveUpDial(state, effects);
  effects.push({ kind: 'disarm', timer: 'reconnect' });
  if (state.session?.linked === true) {
    state.session.linked = false;
    effects.push({ kind: 'bye', streamUuid: state.session.streamUuid, reason: 'shutdown' });
  }
  if (state.held !== null) discardHeld(state, effects);
  state.phase = 'over';
  effects.push({ kind: 'transition', reason: 'stopped' });
}

function loseHeld(state: SecondaryState, reason: string, effects: Effects): void {
  if (state.held === null) return;
  // A primary that took its leave has nothing that we could fail over from.
  state.gone = state.phase === 'dialling' ? null : state.held;
  effects.push({ kind: 'standby-lost', was: 'held', reason });
  discardHeld(state, effects);
  effects.push({ kind: 'transition', reason: 'the standby was lost' });
}

function discardHeld(state: SecondaryState, effects: Effects): void {
  state.held = null;
  effects.push({ kind: 'discard-held' });
}
