// The byte gate before an outlet that takes little, late, or nothing.

import { expect } from 'chai';
import fc from 'fast-check';
import { asError } from '../../src/errors.js';
import { ByteGate } from '../../src/output/byte-gate.js';
import { PIECE_BYTES, type Outlet } from '../../src/output/outlet.js';
import { until } from '../support/until.js';

class MoodyOutlet implements Outlet {
  readonly out: number[] = [];
  mood: 'some' | 'none' | 'fails' = 'some';
  later = false;
  /** Of the write that is under way. */
  #finish: (() => void) | null = null;

  write(bytes: Uint8Array): number | Promise<number> {
    if (!this.later) return this.#take(bytes);
    return new Promise((resolve, reject) => {
      this.#finish = () => {
        this.#finish = null;
        try {
          resolve(this.#take(bytes));
        } catch (error) {
          reject(asError(error));
        }
      };
    });
  }

  finish(): void {
    this.#finish?.();
  }

  close = () => undefined;

  #take(bytes: Uint8Array): number {
    if (this.mood === 'fails') throw new Error('no space left');
    const count = this.mood === 'none' ? 0 : Math.ceil(bytes.length / 2);
    this.out.push(...bytes.subarray(0, count));
    return count;
  }
}

describe('output/byte-gate and an outlet that is slow', () => {
  it('counts as held what was let out and is not taken, and presses for it', async () => {
    const outlet = new MoodyOutlet();
    outlet.mood = 'none';
    const gate = new ByteGate({ outlet, limitBytes: 3 });
    const said: boolean[] = [];
    gate.pressure$.subscribe((on) => said.push(on));
    gate.push(Uint8Array.of(1, 2, 3, 4));
    await gate.seal(0);
    await gate.release(0);
    expect([gate.heldBytes, gate.waitingBytes, gate.releasedBytes]).to.deep.equal([4, 4, 0]);
    outlet.mood = 'some';
    await until('all is out', () => gate.heldBytes === 0);
    expect(outlet.out).to.deep.equal([1, 2, 3, 4]);
    expect(gate.releasedBytes).to.equal(4);
    expect(said).to.deep.equal([false, true, false]);
  });

  it('keeps what cannot be written, and says once that it fails and once that it works', async () => {
    const outlet = new MoodyOutlet();
    outlet.mood = 'fails';
    const said: string[] = [];
    const gate = new ByteGate({
      outlet,
      limitBytes: 100,
      failing: ({ message }) => said.push(message),
      working: () => said.push('works'),
    });
    await gate.pass();
    for (let n = 0; n < 5; n++) gate.push(Uint8Array.of(n));
    expect(await gate.end(120)).to.equal(5);
    const next = new ByteGate({
      outlet,
      limitBytes: 100,
      failing: ({ message }) => said.push(message),
      working: () => said.push('works'),
    });
    await next.pass();
    next.push(Uint8Array.of(7));
    outlet.mood = 'some';
    await until('it is out', () => next.heldBytes === 0);
    expect(said).to.deep.equal(['no space left', 'no space left', 'works']);
    expect(outlet.out).to.deep.equal([7]);
  });

  it('discard: at most the piece that is under way still leaves', async () => {
    const outlet = new MoodyOutlet();
    outlet.later = true;
    const gate = new ByteGate({ outlet, limitBytes: 10 });
    await gate.pass();
    gate.push(new Uint8Array(200_000));
    await gate.discard();
    expect(gate.heldBytes).to.equal(0);
    outlet.finish();
    await gate.end(50);
    outlet.finish();
    expect(outlet.out.length).to.be.within(1, PIECE_BYTES);
    expect(gate.releasedBytes).to.equal(outlet.out.length);
  });

  it('whatever the outlet does and whenever it is held, what is out is a prefix of what was said, and counted', async () => {
    type Step =
      | { kind: 'say'; length: number }
      | { kind: 'mood'; mood: MoodyOutlet['mood']; later: boolean }
      | { kind: 'let out' | 'hold' | 'finish' | 'wait' | 'discard' };
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant('say' as const), length: fc.nat(50) }) },
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant('mood' as const),
          mood: fc.constantFrom('some' as const, 'none' as const, 'fails' as const),
          later: fc.boolean(),
        }),
      },
      { weight: 4, arbitrary: fc.constant({ kind: 'let out' as const }) },
      { weight: 4, arbitrary: fc.constantFrom({ kind: 'finish' as const }, { kind: 'wait' as const }) },
      { weight: 1, arbitrary: fc.constantFrom({ kind: 'hold' as const }, { kind: 'discard' as const }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const outlet = new MoodyOutlet();
        const gate = new ByteGate({ outlet, limitBytes: 100 });
        const said: number[] = [];
        let epoch = 0;
        let mayBeOut = 0;
        let discarded = false;
        for (const action of steps) {
          switch (action.kind) {
            case 'say': {
              const bytes = Uint8Array.from({ length: action.length }, (_, i) => (said.length + i) & 255);
              gate.push(bytes);
              said.push(...bytes);
              break;
            }
            case 'mood':
              outlet.mood = action.mood;
              outlet.later = action.later;
              break;
            case 'let out':
              await gate.seal(epoch);
              await gate.release(epoch++);
              if (!discarded) mayBeOut = said.length;
              break;
            case 'hold':
              await gate.hold();
              break;
            case 'discard':
              await gate.discard();
              discarded = true;
              break;
            case 'finish':
              outlet.finish();
              await Promise.resolve();
              break;
            case 'wait':
              await new Promise((resolve) => setTimeout(resolve, 3));
          }
          // What is under way is counted when that is known.
          await Promise.resolve();
          expect(outlet.out).to.deep.equal(said.slice(0, outlet.out.length));
          expect(outlet.out.length).to.be.at.most(mayBeOut);
          expect(gate.releasedBytes).to.equal(outlet.out.length);
          if (!discarded) expect(gate.heldBytes).to.equal(said.length - outlet.out.length);
        }
        if (discarded) return;
        // Nothing is lost.
        outlet.mood = 'some';
        outlet.later = false;
        outlet.finish();
        await gate.seal(epoch);
        await gate.release(epoch);
        expect(await gate.end(5000)).to.equal(0);
        expect(outlet.out).to.deep.equal(said);
      }),
      { numRuns: 60 },
    );
  });
});
