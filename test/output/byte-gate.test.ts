// The gate against a model that knows nothing of queues: a list of octets, each with the epoch that it belongs to.
import { expect } from 'chai';
import fc from 'fast-check';
import { ByteGate } from '../../src/output/byte-gate.js';
import { ByteQueue } from '../../src/output/byte-queue.js';
import { outletOf } from '../../src/output/outlet.js';

function collector() {
  const out: number[] = [];
  const write = (bytes: Uint8Array) => void out.push(...bytes);
  return { out, outlet: outletOf({ write, close: () => undefined }) };
}

describe('output/byte-gate', () => {
  it('lets an epoch out when it is released, and the open one stays', async () => {
    const { out, outlet } = collector();
    const gate = new ByteGate({ outlet, limitBytes: 100 });
    gate.push(Uint8Array.of(1, 2));
    await gate.seal(0);
    gate.push(Uint8Array.of(3));
    await gate.seal(1);
    gate.push(Uint8Array.of(4));
    expect(out).to.deep.equal([]);
    await gate.release(0);
    expect(out).to.deep.equal([1, 2]);
    await gate.release(1);
    await gate.release(7);
    expect(out).to.deep.equal([1, 2, 3]);
    expect(gate.heldBytes).to.equal(1);
    expect(gate.emittedBytes).to.equal(4);
    expect(gate.releasedBytes).to.equal(3);
  });

  it('does not keep the memory that it was given', async () => {
    const { out, outlet } = collector();
    const gate = new ByteGate({ outlet, limitBytes: 100 });
    const mine = Uint8Array.of(1);
    gate.push(mine);
    mine[0] = 9;
    await gate.pass();
    const kept: Uint8Array[] = [];
    const keeper = outletOf({ write: (bytes) => void kept.push(bytes), close: () => undefined });
    const passing = new ByteGate({ outlet: keeper, limitBytes: 1 });
    await passing.pass();
    passing.push(mine);
    mine[0] = 8;
    expect(out).to.deep.equal([1]);
    expect(kept.map((bytes) => bytes[0])).to.deep.equal([9]);
  });

  it('a released epoch number of an earlier stream cannot release after a restart', async () => {
    const { out, outlet } = collector();
    const gate = new ByteGate({ outlet, limitBytes: 100 });
    gate.push(Uint8Array.of(1));
    await gate.seal(4);
    await gate.restart();
    await gate.release(4);
    expect(out).to.deep.equal([]);
    await gate.seal(0);
    await gate.release(0);
    expect(out).to.deep.equal([1]);
  });

  it('tells when more than the limit is held, and when no longer', async () => {
    const { outlet } = collector();
    const gate = new ByteGate({ outlet, limitBytes: 3 });
    const said: boolean[] = [];
    gate.pressure$.subscribe((on) => said.push(on));
    gate.push(new Uint8Array(3));
    gate.push(new Uint8Array(1));
    gate.push(new Uint8Array(1));
    await gate.seal(0);
    await gate.release(0);
    gate.push(new Uint8Array(4));
    await gate.discard();
    expect(said).to.deep.equal([false, true, false, true, false]);
  });

  it('whatever is done, what is out is what was said, in order, and only up to a released epoch', async () => {
    type Step =
      | { kind: 'say'; length: number }
      | { kind: 'seal' | 'discard' | 'pass' | 'hold' | 'restart' }
      | { kind: 'release'; back: number };
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant('say' as const), length: fc.nat(400) }) },
      { weight: 4, arbitrary: fc.constant({ kind: 'seal' as const }) },
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant('release' as const),
          back: fc.integer({ min: -2, max: 4 }),
        }),
      },
      { weight: 1, arbitrary: fc.constantFrom({ kind: 'pass' as const }, { kind: 'hold' as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
      { weight: 1, arbitrary: fc.constant({ kind: 'discard' as const }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
        const { out, outlet } = collector();
        const gate = new ByteGate({ outlet, limitBytes: 1000 });
        // The model: what was said and how much of it may be out.
        const said: number[] = [];
        let seals: { epoch: number; position: number }[] = [];
        let mayBeOut = 0;
        let mode: 'hold' | 'pass' | 'discard' = 'hold';
        let epoch = 0;
        for (const action of steps) {
          switch (action.kind) {
            case 'say': {
              const bytes = Uint8Array.from({ length: action.length }, (_, i) => (said.length + i) & 255);
              gate.push(bytes);
              said.push(...bytes);
              if (mode === 'pass') mayBeOut = said.length;
              break;
            }
            case 'seal':
              await gate.seal(epoch);
              if (mode === 'hold') seals.push({ epoch, position: said.length });
              epoch++;
              break;
            case 'release': {
              const target = epoch - action.back;
              await gate.release(target);
              if (mode === 'hold') {
                for (const seal of seals)
                  if (seal.epoch <= target) mayBeOut = Math.max(mayBeOut, seal.position);
                seals = seals.filter((seal) => seal.epoch > target);
              }
              break;
            }
            case 'pass':
              await gate.pass();
              if (mode !== 'discard') {
                mode = 'pass';
                mayBeOut = said.length;
                seals = [];
              }
              break;
            case 'hold':
              await gate.hold();
              if (mode === 'pass') mode = 'hold';
              break;
            case 'restart':
              await gate.restart();
              seals = [];
              epoch = 0;
              break;
            case 'discard':
              await gate.discard();
              mode = 'discard';
              break;
          }
          expect(out).to.deep.equal(said.slice(0, mayBeOut));
          expect(gate.emittedBytes).to.equal(said.length);
          expect(gate.releasedBytes).to.equal(mayBeOut);
          expect(gate.heldBytes).to.equal(mode === 'discard' ? 0 : said.length - mayBeOut);
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** An outlet of moods: takes some, takes nothing, fails, and that at once or later. */
describe('output/byte-queue', () => {
  it('gives back what was pushed over block borders', () => {
    const queue = new ByteQueue();
    const all = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7) & 255);
    for (let at = 0; at < all.length; at += 30_011) queue.push(all.subarray(at, at + 30_011));
    const out: Uint8Array[] = [];
    for (let left = 70_001; left > 0;) {
      const piece = queue.peek(left) ?? new Uint8Array(left);
      out.push(piece);
      left -= piece.length;
      queue.drop(piece.length);
    }
    for (let piece = queue.peek(Infinity); piece; piece = queue.peek(Infinity)) {
      out.push(piece);
      queue.drop(piece.length);
    }
    expect(Buffer.concat(out).equals(all)).to.equal(true);
    expect(queue.length).to.equal(0);
  });

  it('drops over block borders', () => {
    const queue = new ByteQueue();
    const all = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7) & 255);
    queue.push(all);
    queue.drop(150_001);
    expect(queue.length).to.equal(49_999);
    expect(queue.peek(5)).to.deep.equal(all.slice(150_001, 150_006));
    queue.drop(1_000_000);
    expect([queue.length, queue.peek(1)]).to.deep.equal([0, null]);
    queue.push(Uint8Array.of(3));
    expect(queue.peek(9)).to.deep.equal(Uint8Array.of(3));
  });
});
