// The properties of the vigil's pure step. What it decides, case by case, stands in test/transcripts/secondary-*.txt.

import { expect } from 'chai';
import fc from 'fast-check';
import { stepSecondary } from '../../src/secondary/vigil.js';
import {
  initialSecondaryState,
  keepsDomain,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondarySettings,
  type SecondaryState,
  type SecondaryTimer,
} from '../../src/secondary/vigil-state.js';
import { VirtualMachine } from '../service/virtual-machine.js';

const settings: SecondarySettings = { reconnectWindowMs: 300, redialMinMs: 50, redialMaxMs: 2000 };
const answers = ['granted', 'denied', 'unknown'] as const;

const timers: readonly SecondaryTimer[] = ['redial', 'reconnect', 'steady'];

type Machine = VirtualMachine<SecondaryState, SecondaryEvent, SecondaryEffect>;

function machine(): Machine {
  const made: Machine = new VirtualMachine<SecondaryState, SecondaryEvent, SecondaryEffect>(
    stepSecondary,
    initialSecondaryState(settings),
    (event) => event,
    (timer) => ({ kind: 'timer', timer: timers.find((name) => name === timer) ?? 'redial', lateMs: 0 }),
  );
  made.give({ kind: 'start' });
  return made;
}

const uuid = fc.constantFrom('A', 'B', 'C');
const code = fc.constantFrom(
  'REFUSED',
  'UNREACHABLE',
  'UNKNOWN_DOMAIN',
  'ALREADY_LINKED',
  'LINK_CLOSED',
  'FENCED',
);
// Events of the present dial and session are made likely, or random sequences would get nowhere.
type Make = (m: Machine) => Parameters<Machine['give']>[0];

function linkOf({ state }: Machine, dial: number, asked: boolean, from = true): ReturnType<Make> {
  const streamUuid = `S${state.dials}`;
  // What is not held does not go on.
  const continuous = asked && state.held !== null;
  // As a primary answers: what is continuous goes by the pairing that is held already.
  const pairing = (continuous ? state.held?.pairing : undefined) ?? streamUuid;
  // … and it goes on from what is shared only.
  const resumes = from && state.shared !== null;
  const terms = { continuous, resumes, standstillMs: 0 };
  return { kind: 'dialled', dial, streamUuid, owner: 'north', pairing, ...terms };
}

/** The primary is met again, whatever the register is asked meanwhile. */
const met: Make = (m) =>
  m.state.dial === 0 ? { kind: 'timer', timer: 'redial', lateMs: 0 } : linkOf(m, m.state.dial, true);

/** `late`: the register takes its time, until a link stands again. */
const onward =
  (late: boolean): Make =>
  (m) => {
    const { session, phase, dial, asking } = m.state;
    if (phase === 'deciding' && late) return met(m);
    if (asking) return { kind: 'witness', answer: 'granted' };
    if (phase === 'starting') return { kind: 'started', epochsBack: 0, runsSinceMs: 0 };
    if (phase === 'suspect' && dial !== 0) return { kind: 'dial-failed', dial, code: 'REFUSED' };
    if (phase === 'linked' && session) {
      // Some go on, and some do not for long.
      if (session.acknowledged >= 2 || session.lastAtMs !== null)
        return { kind: 'lost', streamUuid: session.streamUuid, code: 'LINK_CLOSED' };
      return {
        kind: 'acknowledged',
        streamUuid: session.streamUuid,
        epoch: session.acknowledged + 1,
        digest: 0n,
      };
    }
    if (session)
      return {
        kind: 'restored',
        streamUuid: session.streamUuid,
        consistent: true,
        epochsBack: 0,
        message: '',
        code: '',
      };
    if (dial !== 0) {
      return linkOf(m, dial, true);
    }
    return { kind: 'timer', timer: 'redial', lateMs: 0 };
  };
/** The domain is handed over, step by step: of those that are left, which comes next? */
const handing: fc.Arbitrary<Make> = fc.tuple(fc.nat(3), fc.boolean()).map<Make>(([which, refused]) => (m) => {
  const { session, asking, phase } = m.state;
  if (phase !== 'linked' || session === null || session.acknowledged < 0) return onward(false)(m);
  const { streamUuid } = session;
  const epoch = session.acknowledged + 1;
  if (session.lastAtMs === null) return { kind: 'acknowledged', streamUuid, epoch, digest: 0n, lastAtMs: 0 };
  const how = refused ? { epochsBack: 1, code: 'BAD_CONTEXT' } : { epochsBack: 0, code: '' };
  const steps: ReturnType<Make>[] = [];
  if (!session.handedOver) steps.push({ kind: 'handed-over', streamUuid });
  if (asking) steps.push({ kind: 'witness', answer: 'granted' });
  if (!session.complete && !refused) steps.push({ kind: 'complete', streamUuid });
  else if (!session.done) steps.push({ kind: 'restored', streamUuid, consistent: true, message: '', ...how });
  return steps[which % steps.length] ?? { kind: 'lost', streamUuid, code: 'HEARTBEAT_TIMEOUT' };
});
const event: fc.Arbitrary<Make> = fc.oneof(
  { weight: 15, arbitrary: handing },
  { weight: 25, arbitrary: fc.constant(onward(false)) },
  { weight: 15, arbitrary: fc.constant(onward(true)) },
  fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()).map<Make>(
    ([continuous, stale, from]) =>
      (m) =>
        linkOf(m, stale ? m.state.dials - 1 : m.state.dial, continuous, from),
  ),
  code.map<Make>((given) => (m) => ({ kind: 'dial-failed', dial: m.state.dial, code: given })),
  fc.tuple(fc.boolean(), uuid).map<Make>(([stale, other]) => (m) => {
    const { session } = m.state;
    const streamUuid = stale ? other : (session?.streamUuid ?? other);
    // Behind the last one there is none.
    if (session && session.lastAtMs !== null && session.streamUuid === streamUuid) return { kind: 'start' };
    return { kind: 'acknowledged', streamUuid, epoch: (session?.acknowledged ?? -1) + 1, digest: 0n };
  }),
  code.map<Make>((given) => (m) => ({
    kind: 'lost',
    streamUuid: m.state.session?.streamUuid ?? 'A',
    code: given,
  })),
  fc.boolean().map<Make>((consistent) => (m) => ({
    kind: 'restored',
    // A restorer ends once.
    streamUuid: m.state.session?.done === false ? m.state.session.streamUuid : 'A',
    consistent,
    epochsBack: 0,
    message: '',
    code: '',
  })),
  fc.constantFrom('shutdown' as const, 'domain-ended' as const).map<Make>((reason) => (m) => ({
    kind: 'bye',
    streamUuid: m.state.session?.streamUuid ?? 'A',
    reason,
  })),
  fc.constantFrom(...timers).map<Make>((timer) => () => ({ kind: 'timer', timer, lateMs: 0 })),
  // Nobody answers what was not asked.
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(...answers)
      .map<Make>((answer) => (m) => (m.state.asking ? { kind: 'witness', answer } : { kind: 'start' })),
  },
  { weight: 2, arbitrary: fc.constant(met) },
  fc
    .constantFrom<ReturnType<Make>>(
      { kind: 'started', epochsBack: 0, runsSinceMs: 0 },
      { kind: 'start-failed', code: 'x', message: 'x', epochsBack: 0 },
      { kind: 'start-failed', code: 'DOMAIN_GONE', message: 'x', epochsBack: 0 },
      { kind: 'held-ended', reason: 'x' },
      { kind: 'filling-ended', reason: 'x' },
      { kind: 'domain-failed', code: 'x' },
    )
    .map<Make>((given) => () => given),
  { weight: 1, arbitrary: fc.constant<Make>(() => ({ kind: 'stop' })) },
);
/** Whatever the phase, something will happen that leads out of it. */
function goesOn(m: Machine): boolean {
  const { phase, session, dial, asking } = m.state;
  if (phase === 'deciding') return asking;
  if (phase === 'suspect')
    return session !== null || dial !== 0 || waits(m, 'redial') || waits(m, 'reconnect');
  if (phase === 'dialling') return session !== null || dial !== 0 || waits(m, 'redial');
  return true;
}

function waits(m: Machine, timer: SecondaryTimer): boolean {
  return m.armed(timer) !== null;
}

type Asked = SecondaryEffect & { readonly kind: 'ask-witness' };

/** What the performers would own, and what must be true of it whenever something happens. */
class Owned {
  held = false;
  filling = false;
  takeovers = 0;
  impossibles = 0;
  losses = 0;
  finished = 0;
  /** What the register was asked for and has not answered. */
  asked: Asked | null = null;
  /** What it has granted, and is not taken over yet. */
  granted: Asked | null = null;
  /** Of these, what had been handed over. */
  switchovers = 0;
  /** The links that were left because of a grant. */
  left = 0;
  /** Streams whose domain has ended: nothing of them is held again. */
  readonly spoilt = new Set<string>();

  hears(event: ReturnType<Make>): void {
    if (event.kind !== 'witness') return;
    if (event.answer === 'granted') this.granted = this.asked;
    this.asked = null;
  }

  perform(effect: SecondaryEffect, before: SecondaryState, m: Machine): void {
    if (effect.kind === 'restore') {
      expect(this.filling, 'one domain is filled at a time').to.equal(false);
      if (effect.from === null) this.filling = true;
      else expect(this.held, 'it goes on in what is kept').to.equal(true);
    } else if (effect.kind === 'adopt') {
      expect(this.filling).to.equal(true);
      this.filling = false;
      this.held = true;
    } else if (effect.kind === 'discard-filling') {
      this.filling = false;
    } else if (effect.kind === 'discard-held') {
      expect(this.held).to.equal(true);
      this.held = false;
    } else if (effect.kind === 'standby-lost') {
      this.losses++;
      const lost = effect.was === 'held' ? before.held : before.session;
      if (lost) this.spoilt.add(lost.streamUuid);
    } else if (effect.kind === 'report-impossible') {
      this.impossibles++;
      expect(this.held).to.equal(false);
      expect(this.spoilt.has(effect.gone.streamUuid)).to.equal(true);
    } else if (effect.kind === 'ask-witness') {
      expect(this.held).to.equal(true);
      if (!effect.handedOver) expect(m.state.session, 'the restorer is done').to.equal(null);
      expect(this.asked, 'one question at a time').to.equal(null);
      this.asked = effect;
    } else if (effect.kind === 'take-over') {
      this.takeovers++;
      expect(this.held, 'never fails over before a commit').to.equal(true);
      expect(this.filling).to.equal(false);
      const { session } = m.state;
      const isDone = session === null || (session.done && session.handedOver);
      expect(isDone, 'the restorer is done').to.equal(true);
      const { owner, pairing } = effect.held;
      expect(this.granted?.held, 'never without the register').to.include({ owner, pairing });
      if (this.granted?.handedOver === true) {
        this.switchovers++;
        expect(effect.held, 'what was handed over').to.deep.equal(this.granted.held);
      }
      this.granted = null;
    } else if (effect.kind === 'drop-link' && effect.code === 'FENCED') {
      if (this.granted === null) return;
      this.left++;
      expect(this.granted.handedOver, 'its owner may take it back').to.equal(false);
    } else if (effect.kind === 'dial') {
      expect(m.state.role, 'what runs here asks for no protection here').to.equal('standby');
      expect(m.state.session).to.equal(null);
    } else if (effect.kind === 'finished') {
      this.finished++;
    }
  }
}

describe('secondary/vigil', () => {
  it('whatever happens in whatever order: no failover before a commit, one at most, every domain accounted for', () => {
    let failovers = 0;
    let switchovers = 0;
    let losses = 0;
    let impossibles = 0;
    let left = 0;
    let resumed = 0;
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const m = machine();
        const owned = new Owned();
        let failedStarts = 0;
        for (const make of events) {
          const given = make(m);
          const before = m.state;
          const endsFilling = given.kind === 'filling-ended' && (before.session?.acknowledged ?? 0) < 0;
          if (endsFilling && before.session) owned.spoilt.add(before.session.streamUuid);
          if (given.kind === 'start-failed' && before.phase === 'starting') failedStarts++;
          owned.hears(given);
          const { session } = before;
          if (given.kind === 'acknowledged' && session?.resumes && session.acknowledged < 0) resumed++;
          for (const effect of m.give(given)) owned.perform(effect, before, m);
          expect(owned.held).to.equal(keepsDomain(m.state));
          expect(owned.spoilt.has(m.state.held?.streamUuid ?? ''), 'held, and dead').to.equal(false);
          if (m.state.phase !== 'over') expect(m.state.asking).to.equal(owned.asked !== null);
          expect(goesOn(m), `${m.state.phase} goes on by itself`).to.equal(true);
        }
        impossibles += owned.impossibles;
        left += owned.left;
        losses += owned.losses;
        failovers += owned.takeovers;
        switchovers += owned.switchovers;
        expect(owned.takeovers, 'again only after one that failed').to.be.at.most(1 + failedStarts);
        expect(owned.finished).to.be.at.most(1);
        // The restorer ends some day, and then nothing may be left over.
        m.give({ kind: 'stop' });
        for (const effect of m.give({
          kind: 'restored',
          streamUuid: m.state.session?.streamUuid ?? 'A',
          consistent: true,
          epochsBack: 0,
          message: '',
          code: '',
        })) {
          if (effect.kind === 'discard-filling') owned.filling = false;
        }
        expect(owned.filling).to.equal(false);
        if (m.state.role === 'active') expect(owned.finished, 'handed over').to.equal(1);
        else expect(keepsDomain(m.state)).to.equal(false);
      }),
      { numRuns: 4000 },
    );
    expect(failovers, 'the sequences get somewhere').to.be.greaterThan(50);
    expect(switchovers, 'what is handed over is taken').to.be.greaterThan(50);
    expect(losses, 'standbys are lost').to.be.greaterThan(50);
    expect(impossibles, 'failovers fail').to.be.greaterThan(0);
    expect(resumed, 'streams go on').to.be.greaterThan(50);
    expect(left, 'a grant comes when a link stands again').to.be.greaterThan(0);
  });
});
