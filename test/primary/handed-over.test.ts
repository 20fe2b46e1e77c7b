// The checkpoint loop of a domain that is handed over, in marbles (see marble-loop.ts).

import { expect } from 'chai';
import { loop, scheduler } from './marble-loop.js';

describe('primary/checkpoints, handed over', () => {
  it('three more at once, each when what was before it is acknowledged, then the last; behind it the loop rests', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const ports = {
        handOver$: hot('20ms x'),
        acknowledged$: hot('10ms 0 19ms 1 9ms 2 19ms 3 9ms 4', { 0: 0, 1: 1, 2: 2, 3: 3, 4: 4 }),
        requested$: hot('80ms x'),
        ended$: hot('90ms x'),
      };
      const words = {
        a: 'c0',
        b: 'a0',
        c: 'c1',
        d: 'a1',
        e: 'c2',
        f: 'a2',
        g: 'c3',
        h: 'a3',
        i: 'c4',
        j: 'a4',
        r: 'r',
      };
      const expected = '3ms a 6ms b 12ms c 6ms d 2ms e 6ms f 2ms g 16ms h 2ms i 6ms j 9ms r';
      const loop$ = loop(t, ports, { windowEpochs: 4 }, order);
      expectObservable(loop$, '^ 500ms !').toBe(expected, words);
    });
    expect(order).to.deep.equal([
      ...['capture 0', 'release 0', 'capture 1', 'release 1', 'capture 2, the trial', 'release 2'],
      ...['capture 3, the trial', 'release 3', 'capture 4, the last', 'release 4'],
    ]);
  });

  it('the one that is being captured is one of the three', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const ports = {
        handOver$: hot('1ms x 1ms x'),
        acknowledged$: hot('10ms 0 9ms 1 9ms 2 9ms 3', { 0: 0, 1: 1, 2: 2, 3: 3 }),
      };
      const words = { a: 'c0', b: 'a0', c: 'c1', d: 'a1', e: 'c2', f: 'a2', g: 'c3', h: 'a3' };
      const expected = '3ms a 6ms b 2ms c 6ms d 2ms e 6ms f 2ms g 6ms h';
      expectObservable(loop(t, ports, {}, order), '^ 500ms !').toBe(expected, words);
    });
    expect(order).to.deep.equal([
      ...['capture 0', 'release 0', 'capture 1, the trial', 'release 1'],
      ...['capture 2, the trial', 'release 2', 'capture 3, the last', 'release 3'],
    ]);
  });

  it('the last one that is not acknowledged in time is an error, as any', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const ports = {
        handOver$: hot('1ms x'),
        acknowledged$: hot('10ms 0 9ms 1 9ms 2', { 0: 0, 1: 1, 2: 2 }),
      };
      const words = {
        a: 'c0',
        b: 'a0',
        c: 'c1',
        d: 'a1',
        e: 'c2',
        f: 'a2',
        g: 'c3',
        x: 'ACKNOWLEDGE_TIMEOUT',
      };
      const loop$ = loop(t, ports, { acknowledgeTimeoutMs: 100 });
      expectObservable(loop$).toBe('3ms a 6ms b 2ms c 6ms d 2ms e 6ms f 2ms g 99ms (x|)', words);
    });
  });

  it('the domain that shuts down before the last one: END', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const ports = {
        handOver$: hot('20ms x'),
        acknowledged$: hot('10ms 0', { 0: 0 }),
        ended$: hot('30ms x'),
      };
      expectObservable(loop(t, ports, {}, order), '^ 500ms !');
    });
    expect(order).to.deep.equal(['capture 0', 'release 0', 'capture 1', 'end 2']);
  });
});
