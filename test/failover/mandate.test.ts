// What an owner may do by the register: whatever it wants, and whatever becomes of its writes.

import { expect } from 'chai';
import fc from 'fast-check';
import {
  answered,
  isAlone,
  isPairedBy,
  isSame,
  mandateOf,
  takeOverWrite,
  wanted,
  type Mandate,
  type Pairing,
} from '../../src/failover/mandate.js';
import { sameRegister, written, type Register, type RegisterWrite } from '../../src/failover/register.js';
import { alone, paired } from './support.js';

const HERE = 'one';
const born: Register = { ...alone(HERE), generation: 1, token: 'boot' };

const pairing = fc.constantFrom<Pairing | null>(
  null,
  { standby: 'two', stream: 's-1' },
  { standby: 'two', stream: 's-2' },
  { standby: 'three', stream: 's-1' },
);

/** What happens to an owner; `takes`: the standby that is paired takes over, where the register is. */
type Step =
  | { readonly kind: 'wants'; readonly pairing: Pairing | null }
  | { readonly kind: 'applied' | 'answered' | 'repeated' | 'takes' };
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: pairing.map((asks): Step => ({ kind: 'wants', pairing: asks })) },
  { weight: 3, arbitrary: fc.constant<Step>({ kind: 'applied' }) },
  { weight: 3, arbitrary: fc.constant<Step>({ kind: 'answered' }) },
  fc.constantFrom<Step>({ kind: 'repeated' }, { kind: 'takes' }),
);

/** The owner, the register as it is, and the write that is on its way between them. */
class Owner {
  mandate: Mandate = mandateOf(HERE, 'i', born);
  register = born;
  writes: RegisterWrite[] = [];
  readonly tokens = new Set<string>();
  taken = false;
  #outcome: { readonly won: boolean; readonly register: Register } | null = null;

  do({ kind, ...given }: Step): void {
    const write = this.writes.at(-1);
    if (kind === 'wants') this.#wants('pairing' in given ? given.pairing : null);
    else if (kind === 'applied' && write) this.#apply(write);
    else if (kind === 'answered' && write && this.#outcome) this.#answer(write);
    else if (kind === 'repeated') this.#repeat();
    else if (kind === 'takes') this.#take();
  }

  #wants(asks: Pairing | null): void {
    const { asking, lost } = this.mandate;
    const [mandate, write] = wanted(this.mandate, asks);
    this.mandate = mandate;
    if (asking || lost) expect(write, 'one at a time, and none when it is over').to.equal(null);
    if (!write) return;
    expect(this.tokens.has(write.token), 'a token is of one write').to.equal(false);
    this.tokens.add(write.token);
    this.writes.push(write);
    this.#outcome = null;
  }

  #apply(write: RegisterWrite): void {
    if (this.#outcome) return;
    const won = sameRegister(this.register, write.expected);
    if (won) this.register = written(write);
    this.#outcome = { won, register: this.register };
  }

  #answer({ token }: RegisterWrite): void {
    if (!this.#outcome) return;
    this.mandate = answered(this.mandate, token, this.#outcome);
  }

  /** An answer that was given already says nothing. */
  #repeat(): void {
    const earlier = this.writes.at(-2);
    if (!earlier) return;
    for (const won of [true, false]) {
      const { register } = this;
      expect(answered(this.mandate, earlier.token, { won, register })).to.equal(this.mandate);
    }
  }

  #take(): void {
    const { standby, stream } = this.register;
    if (standby === null || stream === null) return;
    const write = takeOverWrite(
      this.register,
      standby,
      { owner: HERE, stream },
      `take-${this.writes.length}`,
    );
    expect(write).to.not.equal(null);
    if (!write) return;
    this.register = written(write);
    this.taken = true;
  }
}

describe('failover/mandate', () => {
  it('a late write of the process that was here before has moved it: it is ours still, and asked for anew', () => {
    const found: Register = { ...paired(HERE, 'two', 's-1'), generation: 4, token: 'before' };
    const [asking, write] = wanted(mandateOf(HERE, 'i', found), null);
    const late: Register = { ...alone(HERE), generation: 5, token: 'before-too' };
    const ours = answered(asking, write?.token ?? '', { won: false, register: late });
    expect(ours).to.include({ lost: false, register: late, asking: null });
    expect(isAlone(ours)).to.equal(true);
    const theirs = answered(asking, write?.token ?? '', { won: false, register: { ...late, owner: 'two' } });
    expect(theirs.lost).to.equal(true);
  });

  it('whatever is wanted and becomes of it: alone only if the register is, with no write under way', () => {
    const seen = { alone: 0, lost: 0, paired: 0 };
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (steps) => {
        const owner = new Owner();
        for (const each of steps) {
          const wasLost = owner.mandate.lost;
          owner.do(each);
          const { mandate, register } = owner;
          if (isAlone(mandate)) {
            seen.alone++;
            // Whoever may pass may do so by the register as it is, not only as it was.
            expect(register).to.include({ mode: 'alone', owner: HERE });
            expect(mandate.asking).to.equal(null);
          }
          if (wasLost) expect(mandate.lost, 'over is over').to.equal(true);
          if (mandate.lost) {
            seen.lost++;
            expect(owner.taken, 'only a takeover ends it').to.equal(true);
            expect(mandate.asking).to.equal(null);
          }
          // Who might take over by the register as it is, is one that we know of.
          const { standby, stream } = register;
          if (!mandate.lost && register.owner === HERE && standby !== null && stream !== null) {
            seen.paired++;
            expect(isPairedBy(mandate, { standby, stream })).to.equal(true);
          }
        }
      }),
      { numRuns: 3000 },
    );
    expect(Math.min(...Object.values(seen)), JSON.stringify(seen)).to.be.greaterThan(100);
  });

  it('nothing is written where the register says it already', () => {
    const mandate = mandateOf(HERE, 'i', born);
    expect(wanted(mandate, null)).to.deep.equal([mandate, null]);
    const pair: Register = { ...paired(HERE, 'two'), generation: 2, token: 't' };
    const { standby, stream } = pair;
    if (standby === null || stream === null) throw new Error('it is paired');
    const other = mandateOf(HERE, 'i', pair);
    expect(wanted(other, { standby, stream })).to.deep.equal([other, null]);
    expect(isPairedBy(other, { standby: 'three', stream })).to.equal(false);
  });

  it('a mandate is of an owner', () => {
    expect(() => mandateOf('two', 'i', born)).to.throw('two is not the owner: one is');
  });

  it('a standby takes over exactly what it is paired by, and nothing else', () => {
    const register: Register = { ...paired('one', 'two', 's-1'), generation: 7, token: 't' };
    const held = { owner: 'one', stream: 's-1' };
    const write = takeOverWrite(register, 'two', held, 'mine');
    expect(write).to.deep.equal({ expected: register, claim: alone('two'), token: 'mine' });
    expect(takeOverWrite(null, 'two', held, 'mine')).to.equal(null);
    expect(takeOverWrite(register, 'three', held, 'mine')).to.equal(null);
    expect(takeOverWrite(register, 'two', { owner: 'three', stream: 's-1' }, 'mine')).to.equal(null);
    expect(takeOverWrite(register, 'two', { owner: 'one', stream: 's-0' }, 'mine')).to.equal(null);
    expect(takeOverWrite({ ...register, ...alone('one') }, 'two', held, 'mine')).to.equal(null);
    expect(takeOverWrite({ ...register, ...alone('two') }, 'two', held, 'mine')).to.equal(null);
  });

  it('two claims are the same by what they say, not by who wrote them', () => {
    const register: Register = { ...paired('one', 'two', 's-1'), generation: 7, token: 't' };
    expect(isSame(register, paired('one', 'two', 's-1'))).to.equal(true);
    const others = [
      paired('one', 'two', 's-2'),
      paired('one', 'three', 's-1'),
      paired('three', 'two', 's-1'),
    ];
    for (const other of [...others, alone('one')]) expect(isSame(register, other)).to.equal(false);
  });
});
