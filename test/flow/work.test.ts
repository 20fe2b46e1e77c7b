// What is under way is counted, whoever listens, and what fails is told.

import { expect } from 'chai';
import { EMPTY, map } from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { Work } from '../../src/flow/work.js';

const scheduler = () => new TestScheduler((actual, expected) => void expect(actual).to.deep.equal(expected));

describe('flow/work', () => {
  const failures: string[] = [];
  let work: Work;

  beforeEach(() => {
    failures.length = 0;
    work = new Work(({ message }, what) => failures.push(`${what}: ${message}`));
  });

  it('is at rest when all is over, and what one piece of work begins is counted before it ends', () => {
    scheduler().run(({ cold, expectObservable }) => {
      const second$ = work.attempt('do it', () => cold('10ms #', {}, new Error('no')));
      work.keep(() => cold('5ms (a|)')).subscribe(() => second$.subscribe());
      work.keep(() => EMPTY).subscribe();
      expectObservable(work.idle$.pipe(map(() => [...failures]))).toBe('15ms (r|)', { r: ['do it: no'] });
    });
  });

  it('what is attempted goes on when nobody listens any more; what is kept is over then', () => {
    scheduler().run(({ cold, expectObservable }) => {
      const attempted$ = work.attempt('do it', () => cold('10ms |'));
      expectObservable(attempted$, '^ 4ms !').toBe('');
      expectObservable(
        work.keep(() => cold('99ms |')),
        '^ 4ms !',
      ).toBe('');
      expectObservable(work.idle$, '1ms ^').toBe('10ms (r|)', { r: 0 });
    });
  });

  it('who waits waits for the end, good or bad; who cannot wait so long is told', async () => {
    let end: () => void = () => undefined;
    const done = work.run('do it', () => new Promise<void>((resolve) => (end = resolve)));
    expect(await work.settled(1)).to.equal(false);
    end();
    await done;
    await work.run('do that', () => Promise.reject(new Error('no')));
    expect(await work.settled(0)).to.equal(true);
    expect(failures).to.deep.equal(['do that: no']);
  });
});
