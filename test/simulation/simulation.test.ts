// The whole cluster in simulated time: nothing is wrong in some thousands of runs, and each known mistake is found.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { newSeed } from '../support/random.js';
import { History } from './checkers/history.js';
import { Loss } from './checkers/loss.js';
import { PLANTS, type Plant } from './plants.js';
import { run } from './run.js';

const main = fileURLToPath(new URL('./main.js', import.meta.url));
const RUNS = 3000;
const RUNS_PLANTED_MAX = 5000;

describe('simulation', () => {
  it(`${RUNS} runs: one history, nothing lost by one failure, protected again, within bounds`, () => {
    const seed = newSeed();
    for (let index = 0; index < RUNS; index++) {
      const { violation } = run(seed + index);
      expect(violation, `npm run simulate -- --runs 1 --seed ${seed + index}`).to.equal(null);
    }
  });

  for (const plant of Object.keys(PLANTS) as Plant[]) {
    it(`finds ${plant}: ${PLANTS[plant]}`, () => {
      const seed = newSeed();
      let runs = 0;
      while (runs < RUNS_PLANTED_MAX && run(seed + runs, plant).violation === null) runs++;
      expect(runs, `seed ${seed}`).to.be.below(RUNS_PLANTED_MAX);
    });
  }

  it('the same seed is the same story', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const first = run(seed, null, true);
      expect(run(seed, null, true)).to.deep.equal(first);
      // Nor does it change by being told.
      expect({ ...run(seed), story: first.story }).to.deep.equal(first);
    }
  });

  it('tells the first seed that fails, and what a run of it alone tells is the same', async () => {
    const simulate = async (...given: string[]) => {
      const failure: unknown = await promisify(execFile)(process.execPath, [main, ...given]).then(
        () => null,
        (error: unknown) => error,
      );
      return failure as { readonly code: number; readonly stdout: string } | null;
    };
    const many = await simulate('--runs', '2000', '--seed', '1', '--plant', 'cold-boot');
    expect(many?.code).to.equal(1);
    const seed = /--runs 1 --seed (\d+) --plant cold-boot/.exec(many?.stdout ?? '')?.[1] ?? '';
    const one = await simulate('--runs', '1', '--seed', seed, '--plant', 'cold-boot');
    expect(one?.stdout).to.equal(many?.stdout);
    expect(one?.stdout).to.match(/BOOTS the domain[^]*checker/);
    expect(await simulate('--runs', '20', '--seed', '1')).to.equal(null);
    expect((await simulate('--runs', 'many'))?.code).to.equal(2);
  });

  describe('checkers', () => {
    it('a late word of what was heard already is a second voice, another history a contradiction', () => {
      const history = new History();
      const first = history.branch('A', null);
      const second = history.branch('B', { branch: first, count: 5 });
      history.hears('A', { branch: first, count: 3 }, 1);
      history.hears('B', { branch: second, count: 6 }, 2);
      expect(history.violation).to.equal(null);
      history.hears('A', { branch: first, count: 4 }, 3);
      expect(history.violation).to.equal('two were heard: A:0:4 from A, after B:1:6');
    });

    it('a takeover must hold what was heard and what was acknowledged', () => {
      const history = new History();
      const loss = new Loss(history);
      const branch = history.branch('A', null);
      loss.acknowledged({ branch, count: 7 });
      loss.taken({ branch, count: 7 });
      expect(history.violation).to.equal(null);
      loss.taken({ branch, count: 6 });
      expect(history.violation).to.equal('taken over from A:0:6, where A:0:7 was acknowledged');
    });

    it('a domain is booted anew after two faults that took it away, not after one', () => {
      for (const crashes of [1, 2]) {
        const history = new History();
        const loss = new Loss(history);
        loss.booted('A');
        for (let crash = 0; crash < crashes; crash++) loss.fault('crash', crash === 0);
        loss.ended('A', 'crash');
        loss.booted('A');
        expect(history.violation === null).to.equal(crashes > 1);
      }
    });
  });
});
