// The role of a domain on a host: as a transcript (test/transcripts/protection-role.txt), and whatever happens.

import { expect } from 'chai';
import fc from 'fast-check';
import { written, type Register, type RegisterWrite } from '../../src/failover/register.js';
import { stepRole } from '../../src/protection/role.js';
import {
  initialRole,
  type RoleEffect,
  type RoleEvent,
  type RoleState,
} from '../../src/protection/role-state.js';
import { transcripts } from '../support/transcripts.js';
import { playRole, registerOf, settings } from './virtual-role.js';

type Make = (role: Played) => RoleEvent;

const register = fc
  .constantFrom('', 'alone north', 'alone south', 'paired north south S', 'paired south north S')
  .map((said) => (said === '' ? null : registerOf(said, 7)));

/** What is under way comes to its end; else the register says something. */
const onward = register.map<Make>((read) => (role) => {
  const { asking, phase } = role.state;
  if (asking) return { kind: 'answered', token: asking.token, won: true, register: written(asking) };
  if (phase === 'changing') return { kind: 'changed' };
  return role.reads > 0 ? { kind: 'register', register: read } : { kind: 'timer', timer: 'retry' };
});
const fixed = fc.constantFrom<RoleEvent>(
  { kind: 'register-failed', code: 'TIMEOUT', message: 'no answer' },
  { kind: 'owner-over', how: 'ended', alone: true, steady: false },
  { kind: 'owner-over', how: 'failed', alone: true, steady: false },
  { kind: 'owner-over', how: 'failed', alone: false, steady: true },
  { kind: 'owner-over', how: 'fenced', alone: false, steady: false },
  { kind: 'took-over', register: registerOf('alone north', 9) },
  { kind: 'standby-over', how: 'failed' },
  { kind: 'standby', busy: true },
  { kind: 'standby', busy: false },
  { kind: 'not-here', host: 'south' },
  { kind: 'timer', timer: 'retry' },
);
const event: fc.Arbitrary<Make> = fc.oneof(
  { weight: 12, arbitrary: onward },
  { weight: 12, arbitrary: fixed.map((given) => () => given) },
  // A read that was asked for long ago, and a write that somebody else was faster with.
  { weight: 2, arbitrary: register.map<Make>((read) => () => ({ kind: 'register', register: read })) },
  {
    weight: 2,
    arbitrary: register.map<Make>((read) => ({ state }) => {
      const token = state.asking?.token ?? 'of another';
      return { kind: 'answered', token, won: false, register: read };
    }),
  },
  { weight: 2, arbitrary: fc.constant<Make>(() => ({ kind: 'force' })) },
  { weight: 1, arbitrary: fc.constant<Make>(() => ({ kind: 'stop' })) },
);

/** The step, and what its effects have begun. */
class Played {
  state: RoleState;
  reads = 0;
  #armed = false;
  #part: 'owner' | 'standby' | null = null;
  #ending = false;
  #found: boolean;
  #forced = false;
  #writing: RegisterWrite | null = null;
  #over = false;
  readonly seen = { boots: 0, inherits: 0, forced: 0 };

  constructor(shared: boolean, found: boolean) {
    this.#found = found;
    this.state = initialRole({ ...settings, shared });
    this.give({ kind: 'start', found });
  }

  give(event: RoleEvent): void {
    const before = this.state;
    const [state, effects] = stepRole(before, event);
    this.state = state;
    if (this.#over) expect(effects, 'over is over').to.deep.equal([]);
    if (event.kind === 'stop') this.#over = true;
    if (event.kind === 'register' || event.kind === 'register-failed')
      this.reads = Math.max(0, this.reads - 1);
    if (event.kind === 'timer') this.#armed = false;
    if (event.kind === 'changed') this.#ending = false;
    if (event.kind === 'force' && before.phase !== 'owner' && before.phase !== 'booting') this.#forced = true;
    for (const effect of effects) this.#perform(effect, event);
    if (!this.#over) expect(this.#goesOn(), `${state.phase} goes on by itself`).to.equal(true);
  }

  #perform(effect: RoleEffect, event: RoleEvent): void {
    if (effect.kind === 'read') this.reads++;
    else if (effect.kind === 'arm') this.#armed = true;
    else if (effect.kind === 'disarm') this.#armed = false;
    else if (effect.kind === 'write') this.#write(effect.write);
    else if (effect.kind === 'boot') this.#boot(effect.register, event);
    else if (effect.kind === 'inherit') {
      expect(this.#part, 'what stood by is inherited').to.equal('standby');
      expect(event).to.deep.equal({ kind: 'took-over', register: effect.register });
      this.#owns();
      this.seen.inherits++;
    } else if (effect.kind === 'stand-by') {
      expect(this.#part, 'one part at a time').to.equal(null);
      expect(this.#ending).to.equal(false);
      this.#part = 'standby';
      this.#found = false;
    } else if (effect.kind === 'stop-found') {
      expect(this.#found, 'found here').to.equal(true);
    } else if (effect.kind === 'end') {
      this.#part = null;
      this.#ending = this.state.phase === 'changing';
    }
  }

  #write(write: RegisterWrite): void {
    const { expected, claim } = write;
    expect(this.#part, 'nothing is here when it is written that it is to be started').to.equal(null);
    expect(claim).to.deep.equal({ mode: 'alone', owner: 'north', standby: null, stream: null });
    // Of others, and of those who may have taken over, only the operator takes it.
    const { shared } = this.state.settings;
    const ours = expected === null || (expected.mode === 'alone' && expected.owner === 'north');
    if (shared && !this.#forced) expect(ours, 'taken from nobody').to.equal(true);
    if (!shared && !this.#forced) expect(this.state.absent, 'the others were asked').to.include('south');
    if (this.#forced) this.seen.forced++;
    this.#writing = write;
  }

  /** By a write of ours that has won; or it runs here already, and is ours by the register. */
  #boot(by: Register, event: RoleEvent): void {
    this.seen.boots++;
    expect(by.owner).to.equal('north');
    expect(this.#part, 'one part at a time').to.equal(null);
    expect(this.#ending).to.equal(false);
    if (event.kind === 'answered' && event.won) {
      expect(event.token).to.equal(this.#writing?.token);
      expect(by).to.include({ mode: 'alone', token: event.token });
    } else {
      expect(this.#found, 'found here').to.equal(true);
      expect(['register', 'answered']).to.include(event.kind);
    }
    this.#owns();
  }

  #owns(): void {
    this.#part = 'owner';
    this.#writing = null;
    this.#found = false;
    this.#forced = false;
  }

  /** Somebody else's move, or a read, a timer or a write that leads on. */
  #goesOn(): boolean {
    const { phase, busy } = this.state;
    switch (phase) {
      case 'none':
      case 'owner':
        return true;
      case 'reading':
        return this.reads > 0 || this.#armed;
      case 'standby':
        return this.#part === 'standby' && (busy || this.reads > 0 || this.#armed);
      case 'booting':
        return this.#writing !== null && this.state.asking === this.#writing;
      case 'changing':
        return this.#ending;
      case 'over':
        return false;
    }
  }
}

describe('protection/role', () => {
  transcripts('protection-role.txt', playRole);

  it('whatever happens: it is started by a write that has won, or was found; one part at a time, and it goes on', () => {
    const all = { boots: 0, inherits: 0, forced: 0 };
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), fc.boolean(), fc.boolean(), (events, shared, found) => {
        const role = new Played(shared, found);
        for (const make of events) role.give(make(role));
        for (const what of ['boots', 'inherits', 'forced'] as const) all[what] += role.seen[what];
      }),
      { numRuns: 4000 },
    );
    expect(Math.min(...Object.values(all)), JSON.stringify(all)).to.be.greaterThan(100);
  });
});
