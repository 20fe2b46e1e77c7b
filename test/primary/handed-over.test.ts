// The checkpoint loop of a domain that is handed over, in marbles (see marble-loop.ts).

import { expect } from 'chai';
import { loop, scheduler } from './marble-loop.js';

describe('primary/checkpoints, handed over', () => {
  it('one more at once, and when that is acknowledged the last; behind it the loop rests', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const ports = {
        handOver$: hot('20ms x'),
        acknowledged$: hot('10ms 0 19ms 1 19ms 2', { 0: 0, 1: 1, 2: 2 }),
        requested$: hot('60ms x'),
        ended$: hot('70ms x'),
      };
      const words = { a: 'c0', b: 'a0', c: 'c1', d: 'a1', e: 'c2', f: 'a2', r: 'r' };
      const loop$ = loop(t, ports, { windowEpochs: 4 }, order);
      expectObservable(loop$, '^ 500ms !').toBe('3ms a 6ms b 12ms c 6ms d 2ms e 16ms f 9ms r', words);
    });
    const releases = ['release 1', 'capture 2, the last', 'release 2'];
    expect(order).to.deep.equal(['capture 0', 'release 0', 'capture 1', ...releases]);
  });

  it('the one that is being captured is the one before the last', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const ports = {
        handOver$: hot('1ms x 1ms x'),
        acknowledged$: hot('10ms 0 9ms 1', { 0: 0, 1: 1 }),
      };
      const words = { a: 'c0', b: 'a0', c: 'c1', d: 'a1' };
      expectObservable(loop(t, ports, {}, order), '^ 500ms !').toBe('3ms a 6ms b 2ms c 6ms d', words);
    });
    expect(order).to.deep.equal(['capture 0', 'release 0', 'capture 1, the last', 'release 1']);
  });

  it('the last one that is not acknowledged in time is an error, as any', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const ports = { handOver$: hot('1ms x'), acknowledged$: hot('10ms 0', { 0: 0 }) };
      const words = { a: 'c0', b: 'a0', c: 'c1', x: 'ACKNOWLEDGE_TIMEOUT' };
      const loop$ = loop(t, ports, { acknowledgeTimeoutMs: 100 });
      expectObservable(loop$).toBe('3ms a 6ms b 2ms c 99ms (x|)', words);
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
