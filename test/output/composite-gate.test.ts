// Several ways out of one domain against single gates that are driven the same way: whatever is done, each way lets
// out what it would let out alone.

import { expect } from 'chai';
import fc from 'fast-check';
import { ByteGate } from '../../src/output/byte-gate.js';
import { NOWHERE, outletOf } from '../../src/output/outlet.js';
import { CompositeGate } from '../../src/output/composite-gate.js';
import type { OutputGate } from '../../src/output/gate.js';

type Call =
  | { readonly kind: 'say'; readonly way: number; readonly bytes: Uint8Array }
  | { readonly kind: 'seal' | 'release'; readonly epoch: number }
  | { readonly kind: 'discard' | 'pass' | 'hold' | 'restart' };

const call: fc.Arbitrary<Call> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('say' as const),
      way: fc.nat(2),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 20 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('seal' as const, 'release' as const),
      epoch: fc.nat(6),
    }),
  },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom('pass' as const, 'hold' as const, 'restart' as const, 'discard' as const)
      .map((kind) => ({ kind })),
  },
);

async function drive(gate: OutputGate, action: Exclude<Call, { kind: 'say' }>): Promise<void> {
  if (action.kind === 'seal' || action.kind === 'release') await gate[action.kind](action.epoch);
  else await gate[action.kind]();
}

function ways() {
  return [0, 1, 2].map(() => {
    const out: number[] = [];
    const outlet = outletOf({ write: (bytes) => void out.push(...bytes), close: () => undefined });
    return { out, gate: new ByteGate({ outlet, limitBytes: 1000 }) };
  });
}

/** Fails at the calls that it is told to. */
class Broken implements OutputGate {
  readonly heldBytes = 1;
  readonly emittedBytes = 2;
  readonly releasedBytes = 3;

  constructor(private readonly how: 'throws' | 'rejects') {}

  seal = () => this.fail();
  release = () => this.fail();
  discard = () => this.fail();
  pass = () => this.fail();
  hold = () => this.fail();
  restart = () => this.fail();

  private fail(): Promise<void> {
    const error = new Error(this.how);
    if (this.how === 'throws') throw error;
    return Promise.reject(error);
  }
}

async function failureOf(promise: Promise<void>): Promise<string | null> {
  return promise.then(
    () => null,
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
}

describe('output/composite-gate', () => {
  it('each way lets out what it would let out alone', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 60 }), async (calls) => {
        const together = ways();
        const alone = ways();
        const composite = new CompositeGate(together.map(({ gate }) => gate));
        for (const action of calls) {
          if (action.kind === 'say') {
            together[action.way]?.gate.push(action.bytes);
            alone[action.way]?.gate.push(action.bytes);
          } else {
            await drive(composite, action);
            for (const { gate } of alone) await drive(gate, action);
          }
          expect(together.map(({ out }) => out)).to.deep.equal(alone.map(({ out }) => out));
          for (const counter of ['heldBytes', 'emittedBytes', 'releasedBytes'] as const) {
            expect(composite[counter]).to.equal(alone.reduce((sum, { gate }) => sum + gate[counter], 0));
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  for (const how of ['throws', 'rejects'] as const) {
    it(`a gate that ${how} fails the call, and the others do their part`, async () => {
      const [way] = ways();
      if (!way) throw new Error('no way');
      const composite = new CompositeGate([new Broken(how), way.gate]);
      way.gate.push(Uint8Array.of(1));
      expect(await failureOf(composite.seal(0))).to.equal(how);
      way.gate.push(Uint8Array.of(2));
      expect(await failureOf(composite.release(0))).to.equal(how);
      expect(way.out).to.deep.equal([1]);
      expect(await failureOf(composite.pass())).to.equal(how);
      expect(way.out).to.deep.equal([1, 2]);
      expect(await failureOf(composite.hold())).to.equal(how);
      expect(await failureOf(composite.restart())).to.equal(how);
      expect(await failureOf(composite.discard())).to.equal(how);
      await way.gate.pass();
      way.gate.push(Uint8Array.of(3));
      expect(way.out).to.deep.equal([1, 2]);
      expect(composite.heldBytes).to.equal(1);
    });
  }

  it('answers when the slowest has', async () => {
    const [way] = ways();
    if (!way) throw new Error('no way');
    let finish: () => void = () => undefined;
    const slow = way.gate;
    const seal = slow.seal.bind(slow);
    slow.seal = async (epoch) => {
      await new Promise<void>((resolve) => (finish = resolve));
      await seal(epoch);
    };
    let sealed = false;
    const sealing = new CompositeGate([new ByteGate({ outlet: NOWHERE, limitBytes: 1 }), slow])
      .seal(0)
      .then(() => (sealed = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(sealed).to.equal(false);
    finish();
    await sealing;
    expect(sealed).to.equal(true);
  });
});
