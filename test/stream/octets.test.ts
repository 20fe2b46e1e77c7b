// The queue against the simplest model there is: one array of all octets.

import { expect } from 'chai';
import fc from 'fast-check';
import { OctetQueue } from '../../src/stream/octets.js';
import { counting, expectSameBytes } from './streams.js';

type Step = { readonly push: number } | { readonly take: number } | { readonly skip: number };

const steps = fc.array(
  fc.oneof(
    fc.record({ push: fc.integer({ min: 0, max: 40 }) }),
    fc.record({ take: fc.integer({ min: 0, max: 60 }) }),
    fc.record({ skip: fc.integer({ min: 0, max: 60 }) }),
  ),
  { maxLength: 200 },
);

describe('queue of octets', () => {
  it('gives out what was pushed, in order, however it is cut', () => {
    fc.assert(
      fc.property(steps, (list: Step[]) => {
        const queue = new OctetQueue();
        let model = new Uint8Array(0);
        let pushed = 0;
        for (const step of list) {
          if ('push' in step) {
            const chunk = counting(step.push, pushed);
            pushed += step.push;
            queue.push(chunk);
            model = Uint8Array.of(...model, ...chunk);
          } else if ('take' in step) {
            const length = Math.min(step.take, model.length);
            expectSameBytes(queue.peek(length), model.subarray(0, length));
            expectSameBytes(queue.take(length), model.subarray(0, length));
            model = model.subarray(length);
          } else {
            const length = Math.min(step.skip, model.length);
            queue.skip(length);
            model = model.subarray(length);
          }
          expect(queue.length).to.equal(model.length);
          if (model.length >= 4) {
            expect(queue.peekUint32(0)).to.equal(
              new DataView(model.buffer, model.byteOffset).getUint32(0, true),
            );
          }
        }
        expectSameBytes(queue.take(queue.length), model);
        expect(queue.length).to.equal(0);
      }),
      { numRuns: 300 },
    );
  });

  it('stays right when tiny and large chunks are merged and dropped by the thousand', () => {
    const queue = new OctetQueue();
    const whole = counting(200_000);
    let pushed = 0;
    let taken = 0;
    for (let round = 0; pushed < whole.length; round += 1) {
      const length = round % 1500 === 1499 ? 5000 : 1 + (round % 3);
      queue.push(whole.subarray(pushed, (pushed += length)));
      if (round % 700 === 0) {
        const run = Math.floor(queue.length / 2);
        expectSameBytes(queue.take(run), whole.subarray(taken, (taken += run)));
      }
    }
    expectSameBytes(queue.take(queue.length), whole.subarray(taken));
  });

  it('copies nothing that lies in one chunk', () => {
    const queue = new OctetQueue();
    const chunk = counting(64);
    queue.push(chunk);
    queue.skip(8);
    const view = queue.take(40);
    expect(view.buffer).to.equal(chunk.buffer);
    expect(view.byteOffset).to.equal(8);
    expect(queue.take(queue.length).buffer).to.equal(chunk.buffer);
  });

  it('gives out octets whose slice() is a copy, also of Node’s buffers', () => {
    const queue = new OctetQueue();
    const chunk = Buffer.from([1, 2, 3, 4]);
    queue.push(chunk);
    const kept = queue.take(4).slice();
    chunk.fill(9);
    expect([...kept]).to.deep.equal([1, 2, 3, 4]);
  });

  it('refuses to give more than it holds', () => {
    const queue = new OctetQueue();
    queue.push(counting(3));
    expect(() => queue.take(4)).to.throw(RangeError);
    expect(() => queue.skip(4)).to.throw(RangeError);
    expect(() => queue.peekUint32(0)).to.throw(RangeError);
    expect(queue.length).to.equal(3);
  });
});
