// What an owner does while it is not known what the register says: nothing that a standby acknowledges counts, if that
// standby may have been the owner meanwhile.

import { expect } from 'chai';
import { mandateOf } from '../../src/failover/mandate.js';
import type { Register, RegisterWrite } from '../../src/failover/register.js';
import { stepLife } from '../../src/primary/life.js';
import { birth, type LifeEffect, type LifeEvent, type LifeState } from '../../src/primary/life-state.js';

const settings = {
  startWithStandby: false,
  stallMs: 500,
  standstill: null,
  handOverTimeoutMs: 5000,
} as const;

const paired: Register = {
  generation: 2,
  mode: 'paired',
  owner: 'north',
  standby: 'south',
  stream: 's1',
  token: 'before',
};

/** An owner that was found, and may have been replaced: it asks to be alone. */
class Owner {
  state: LifeState;
  readonly effects: LifeEffect[] = [];

  constructor({ shared = true, link = null }: { shared?: boolean; link?: LifeEvent | null } = {}) {
    this.state = birth(settings, 0, mandateOf('north', 'north-1', paired, shared));
    // The link before the first word: else it asks to be alone at once.
    if (link) this.give(link);
    this.give({ kind: 'start', orphaned: true, running: true });
  }

  give(event: LifeEvent): void {
    const [state, effects] = stepLife(this.state, event, 1);
    this.state = state;
    this.effects.push(...effects);
  }

  get write(): RegisterWrite {
    const written = this.effects.find((effect) => effect.kind === 'write');
    if (!written) throw new Error('nothing was written');
    return written.write;
  }

  replicates(streamUuid: string): boolean {
    return this.effects.some((effect) => effect.kind === 'replicate' && effect.streamUuid === streamUuid);
  }

  answer(won: boolean): void {
    const { claim, token } = this.write;
    const register: Register = { ...claim, owner: won ? 'north' : 'south', generation: 3, token };
    this.give({ kind: 'answered', token, won, register });
  }
}

const again: LifeEvent = { kind: 'linked', streamUuid: 's2', pairing: { standby: 'south', stream: 's2' } };

describe('primary/life-mandate', () => {
  it('a standby that comes with nothing is not filled before it is known that it has not taken over', () => {
    const owner = new Owner();
    owner.give(again);
    expect(owner.write.claim.mode).to.equal('alone');
    owner.give({ kind: 'heard', streamUuid: 's2' });
    expect(owner.replicates('s2')).to.equal(false);
    owner.answer(true);
    expect(owner.replicates('s2')).to.equal(true);
  });

  it('nor at all, if it has', () => {
    const owner = new Owner();
    owner.give(again);
    owner.answer(false);
    expect(owner.replicates('s2')).to.equal(false);
    expect(owner.state.role).to.equal('fenced');
    expect(owner.effects.map(({ kind }) => kind)).to.include('discard');
  });

  it('one that holds a checkpoint of the pairing in the register is filled at once', () => {
    const owner = new Owner();
    owner.give({ kind: 'linked', streamUuid: 's2', pairing: { standby: 'south', stream: 's1' } });
    expect(owner.replicates('s2')).to.equal(true);
  });

  it('by a register that is its own: it is filled at once, and nobody is turned off so as to be alone', () => {
    const owner = new Owner({ shared: false, link: again });
    expect(owner.replicates('s2')).to.equal(true);
    expect(owner.effects.map(({ kind }) => kind)).not.to.include('write');
    owner.give({ kind: 'lost', streamUuid: 's2', code: 'LINK_CLOSED', message: '' });
    expect(owner.write.claim.mode).to.equal('alone');
  });
});
