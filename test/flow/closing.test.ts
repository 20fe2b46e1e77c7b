// What is opened is closed once, whatever happened, and one error tells of all that failed.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import { cleanUp, closing } from '../../src/flow/closing.js';

const coded = (message: string, options: ErrorOptions): RomulusError =>
  new RomulusError('CLEANUP_FAILED', message, {}, options);

function parts(...errors: readonly (Error | null)[]): { done: number[]; all: (() => Promise<void>)[] } {
  const done: number[] = [];
  const all = errors.map((error, index) => () => {
    done.push(index);
    return error === null ? Promise.resolve() : Promise.reject(error);
  });
  return { done, all };
}

describe('a clean-up', () => {
  const first = new Error('first');
  const second = new Error('second');

  it('that succeeds changes nothing', async () => {
    expect(await cleanUp(null, 'saved', parts(null, null).all, coded)).to.equal(null);
    expect(await cleanUp(first, 'saved', parts(null, null).all, coded)).to.equal(first);
  });

  it('does every part, whatever fails, and its first failure is the cause', async () => {
    const { done, all } = parts(first, null, second);
    const error = (await cleanUp(null, 'saved', all, coded)) as RomulusError;
    expect(done).to.deep.equal([0, 1, 2]);
    expect(error.message).to.equal('saved, but the clean-up failed');
    expect([error.code, error.cause]).to.deep.equal(['CLEANUP_FAILED', first]);
    expect(error.suppressed).to.deep.equal([second]);
  });

  it('adds what fails to the error of ours that came before, which stays the one that is told', async () => {
    const failure = new RomulusError('FAILED', 'before');
    expect(await cleanUp(failure, 'saved', parts(first, second).all, coded)).to.equal(failure);
    expect(failure.suppressed).to.deep.equal([first, second]);
  });

  it('gives a code to a failure that had none', async () => {
    const failure = new Error('before');
    const error = (await cleanUp(failure, 'saved', parts(first).all, coded)) as RomulusError;
    expect(error.message).to.equal('before (and the clean-up failed)');
    expect([error.code, error.cause]).to.deep.equal(['CLEANUP_FAILED', failure]);
    expect(error.suppressed).to.deep.equal([first]);
  });
});

describe('closing', () => {
  function open(failed: Error | null): {
    told: (Error | null)[];
    close(f: Error | null): Promise<Error | null>;
  } {
    const told: (Error | null)[] = [];
    return {
      told,
      close(failure) {
        told.push(failure);
        return Promise.resolve(failed ?? failure);
      },
    };
  }
  const failureOf = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      () => 'it did not fail',
      (error: unknown) => error,
    );
  const failure = new Error('work');
  const failed = new Error('close');

  it('gives the result of the work when both succeed', async () => {
    const good = open(null);
    expect(await closing(good, () => Promise.resolve(7))).to.equal(7);
    expect(good.told).to.deep.equal([null]);
  });

  it('closes once, and fails with what close() resolves to', async () => {
    const cases = [
      [open(null), () => Promise.reject(failure), failure, failure],
      [open(failed), () => Promise.resolve(7), failed, null],
      [open(failed), () => Promise.reject(failure), failed, failure],
    ] as const;
    for (const [opened, work, error, told] of cases) {
      expect(await failureOf(closing<number>(opened, work))).to.equal(error);
      expect(opened.told).to.deep.equal([told]);
    }
  });
});
