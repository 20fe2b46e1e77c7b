// The order in which a network interface's gate is driven: one call after another, a test in its place, discarding at once.

import { expect } from 'chai';
import { asError } from '../../../src/errors.js';
import { NetworkOutput, type NetdevOutput } from '../../../src/hypervisor/qemu/network/network-output.js';

/** A gate under a NetworkOutput: says what it is asked for, and answers when the test lets it. */
class HeldGate implements NetdevOutput {
  readonly heldBytes = 0;
  readonly emittedBytes = 0;
  readonly releasedBytes = 0;
  readonly netdev = 'lan';
  readonly takenOver = false;
  readonly undoing = '';
  readonly calls: string[] = [];
  #answers: ((error?: Error) => void)[] = [];

  seal = (epoch: number) => this.#call(`seal ${epoch}`);
  release = (epoch: number) => this.#call(`release ${epoch}`);
  discard = () => this.#call('discard');
  pass = () => this.#call('pass');
  hold = () => this.#call('hold');
  restart = () => this.#call('restart');
  remove = () => this.#call('remove');
  selfTest = () => this.#call('test');

  /** Answers the oldest call that waits; resolves when what follows from it has happened. */
  async answer(error?: Error): Promise<void> {
    this.#answers.shift()?.(error);
    await new Promise((resolve) => setImmediate(resolve));
  }

  #call(name: string): Promise<void> {
    this.calls.push(name);
    return new Promise((resolve, reject) => {
      this.#answers.push((error) => {
        if (error) reject(error);
        else resolve();
      });
    });
  }
}

describe('qemu: the output of a network interface', () => {
  let gate: HeldGate;
  let output: NetworkOutput;
  beforeEach(() => {
    gate = new HeldGate();
    output = new NetworkOutput(gate);
  });
  const test = (): Promise<void> => output.test(() => gate.selfTest());

  it('is driven one call after another, in their order', async () => {
    const calls = [output.hold(), output.seal(0), output.release(0), output.restart(), output.remove()];
    for (const expected of ['hold', 'seal 0', 'release 0', 'restart', 'remove']) {
      await new Promise((resolve) => setImmediate(resolve));
      expect(gate.calls.at(-1)).to.equal(expected);
      await gate.answer();
    }
    await Promise.all(calls);
    expect(gate.calls.length).to.equal(5);
  });

  it('a call that fails fails by itself: the next ones are made', async () => {
    const failing = output.seal(0);
    const outcome = failing.then(
      () => 'done',
      (error: unknown) => asError(error).message,
    );
    const next = output.release(0);
    await gate.answer(); // nothing waits yet
    await gate.answer(new Error('the monitor is mute'));
    expect(await outcome).to.equal('the monitor is mute');
    await gate.answer();
    await next;
    expect(gate.calls).to.deep.equal(['seal 0', 'release 0']);
  });

  it('discarding waits for nothing', async () => {
    const sealing = output.seal(0);
    await new Promise((resolve) => setImmediate(resolve));
    const discarding = output.discard();
    expect(gate.calls).to.deep.equal(['seal 0', 'discard']);
    await gate.answer();
    await gate.answer();
    await Promise.all([sealing, discarding]);
  });

  it('a test has its place among the calls; a gate that passes holds for it, and passes again, however it ends', async () => {
    const first = test();
    const passing = output.pass();
    const second = test().catch((error: unknown) => String(error));
    const sealing = output.seal(0);
    const expected = ['test', 'pass', 'hold', 'test', 'pass', 'seal 0'];
    for (let k = 0; k < expected.length; k++) {
      await new Promise((resolve) => setImmediate(resolve));
      expect(gate.calls).to.deep.equal(expected.slice(0, k + 1));
      await gate.answer(k === 3 ? new Error('a frame left early') : undefined);
    }
    await Promise.all([first, passing, sealing]);
    expect(await second).to.include('a frame left early');
  });

  it('one that passes at first is tested when it holds, until that was possible and went well, and then no more', async () => {
    const results: (boolean | Error)[] = [false, new Error('a frame left early'), true];
    const passing = new NetworkOutput(gate, () => {
      gate.calls.push('first test');
      const result = results.shift() ?? true;
      return result instanceof Error ? Promise.reject(result) : Promise.resolve(result);
    });
    const outcomes: string[] = [];
    for (let k = 0; k < 4; k++) {
      const held = passing.hold().then(
        () => outcomes.push('held'),
        (error: unknown) => outcomes.push(asError(error).message),
      );
      const tested = passing.tested();
      await new Promise((resolve) => setImmediate(resolve));
      await gate.answer();
      await tested;
      await held;
    }
    expect(outcomes).to.deep.equal(['held', 'a frame left early', 'held', 'held']);
    expect(gate.calls.join(' ')).to.equal('hold first test hold first test hold first test hold');
  });

  it('one that is discarded is tested no more', async () => {
    const passing = new NetworkOutput(gate, () => Promise.reject(new Error('tested')));
    const discarded = passing.discard();
    const held = passing.hold();
    await new Promise((resolve) => setImmediate(resolve));
    await gate.answer();
    await gate.answer();
    await Promise.all([discarded, held]);
    expect(gate.calls).to.deep.equal(['discard', 'hold']);
  });
});
