// The checkpoint loop in marbles (see marble-loop.ts).

import { expect } from 'chai';
import { concat, defer, ignoreElements, map, merge, of, timer, type Observable } from 'rxjs';
import type { CaptureStage } from '../../src/primary/checkpoints.js';
import { fails, loop, pause, scheduler } from './marble-loop.js';

describe('primary/checkpoints', () => {
  it('captures, lets out what is acknowledged, captures when it is due and there is room', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const acknowledged$ = hot('10ms 0 189ms 1', { 0: 0, 1: 1 });
      const seen = '       3ms a 6ms b 45ms c 143ms d 2ms e';
      const words = { a: 'c0', b: 'a0', c: 'c1', d: 'a1', e: 'c2' };
      expectObservable(loop(t, { acknowledged$ }), '^ 250ms !').toBe(seen, words);
    });
  });

  it('lets out what is acknowledged before that makes room for the next capture', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const acknowledged$ = hot('10ms 0 189ms 1', { 0: 0, 1: 1 });
      expectObservable(loop(t, { acknowledged$ }, {}, order), '^ 201ms !');
    });
    expect(order).to.deep.equal(['capture 0', 'release 0', 'capture 1', 'release 1', 'capture 2']);
  });

  it('the interval counts from the capture, not from when the domain runs again', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const ports = { capture: () => pause(40), acknowledged$: hot('10ms 0', { 0: 0 }) };
      expectObservable(loop(t, ports), '^ 100ms !').toBe('3ms a 6ms b 45ms c', { a: 'c0', b: 'a0', c: 'c1' });
    });
  });

  it('… and not from the suspension: a domain that was long suspended has its interval all the same', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const long = concat(of('suspending' as const), timer(70).pipe(map(() => 'captured' as const)));
      const ports = { capture: () => long, acknowledged$: hot('80ms 0', { 0: 0 }) };
      const words = { a: 'c0', b: 'a0', c: 'c1' };
      expectObservable(loop(t, ports), '^ 250ms !').toBe('70ms a 9ms b 109ms c', words);
    });
  });

  it('an interval that is over when the domain runs again: at once', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const ports = { capture: () => pause(60), acknowledged$: hot('10ms 0', { 0: 0 }) };
      const words = { a: 'c0', b: 'a0', c: 'c1' };
      expectObservable(loop(t, ports, {}, order), '^ 70ms !').toBe('3ms a 6ms b 55ms c', words);
    });
    expect(order).to.deep.equal(['capture 0', 'release 0', 'capture 1']);
  });

  for (const [windowEpochs, seen] of [
    [1, '3ms a'],
    [2, '3ms a 52ms b'],
    [4, '3ms a 52ms b 52ms c 52ms d'],
  ] as const) {
    it(`window of ${windowEpochs}: as many captured and not acknowledged, no more`, () => {
      const t = scheduler();
      t.run(({ expectObservable }) => {
        const words = { a: 'c0', b: 'c1', c: 'c2', d: 'c3' };
        expectObservable(loop(t, {}, { windowEpochs }), '^ 2000ms !').toBe(seen, words);
      });
    });
  }

  it('window of two: an acknowledgement makes room for one', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const acknowledged$ = hot('300ms 0', { 0: 0 });
      const words = { a: 'c0', b: 'c1', c: 'a0', d: 'c2' };
      const loop$ = loop(t, { acknowledged$ }, { windowEpochs: 2 });
      expectObservable(loop$, '^ 2000ms !').toBe('3ms a 52ms b 243ms c 2ms d', words);
    });
  });

  it('a request is taken ahead of the interval, and the next interval counts from there', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const acknowledged$ = hot('5ms 0 24ms 1', { 0: 0, 1: 1 });
      const requested$ = hot('   20ms r');
      const words = { a: 'c0', b: 'a0', r: 'r', c: 'c1', d: 'a1', e: 'c2' };
      const seen = '3ms a ms b 14ms r 2ms c 6ms d 45ms e'.replace('a ms', 'a 1ms');
      expectObservable(loop(t, { acknowledged$, requested$ }), '^ 100ms !').toBe(seen, words);
    });
  });

  it('a request that comes while the domain is captured is taken next; one before it is suspended is taken then', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      // The pre-copy of epoch 0 takes 10 ms; the requests come within it, and within the pause.
      const capture = (epoch: number) =>
        epoch === 0 ? concat(timer(10).pipe(ignoreElements()), pause()) : pause();
      const ports = { capture, acknowledged$: hot('20ms 0', { 0: 0 }), requested$: hot('5ms r 6ms r') };
      expectObservable(loop(t, ports, {}, order), '^ 30ms !');
    });
    expect(order).to.deep.equal(['capture 0', 'release 0', 'capture 1']);
    const early: string[] = [];
    const t2 = scheduler();
    t2.run(({ hot, expectObservable }) => {
      const capture = (epoch: number) =>
        epoch === 0 ? concat(timer(10).pipe(ignoreElements()), pause()) : pause();
      const ports = { capture, acknowledged$: hot('20ms 0', { 0: 0 }), requested$: hot('5ms r') };
      expectObservable(loop(t2, ports, {}, early), '^ 30ms !');
    });
    expect(early).to.deep.equal(['capture 0', 'release 0']);
  });

  it('a request with the window full waits for room', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const ports = { acknowledged$: hot('40ms 0', { 0: 0 }), requested$: hot('10ms r') };
      const words = { a: 'c0', r: 'r', b: 'a0', c: 'c1' };
      expectObservable(loop(t, ports), '^ 60ms !').toBe('3ms a 6ms r 29ms b 2ms c', words);
    });
  });

  describe('END', () => {
    it('at once when the domain has shut down, and completes at its acknowledgement', () => {
      const t = scheduler();
      t.run(({ hot, expectObservable }) => {
        const ports = { acknowledged$: hot('10ms 0 39ms 1', { 0: 0, 1: 1 }), ended$: hot('20ms x') };
        const words = { a: 'c0', b: 'a0', c: 'e1', d: 's1' };
        expectObservable(loop(t, ports)).toBe('3ms a 6ms b 9ms c 29ms (d|)', words);
      });
    });

    it('does not wait for the window; the acknowledgements in front of it still let out', () => {
      const t = scheduler();
      t.run(({ hot, expectObservable }) => {
        const ports = { acknowledged$: hot('30ms 0 9ms 1', { 0: 0, 1: 1 }), ended$: hot('20ms x') };
        const words = { a: 'c0', b: 'e1', c: 'a0', d: 's1' };
        expectObservable(loop(t, ports)).toBe('3ms a 16ms b 9ms c 9ms (d|)', words);
      });
    });

    it('its acknowledgement is the last: before the epoch in front of it, it is out of turn', () => {
      const t = scheduler();
      t.run(({ hot, expectObservable }) => {
        const ports = { acknowledged$: hot('30ms 1', { 1: 1 }), ended$: hot('20ms x') };
        const words = { a: 'c0', b: 'e1', x: 'BAD_MESSAGE' };
        expectObservable(loop(t, ports)).toBe('3ms a 16ms b 9ms (x|)', words);
      });
    });

    it('waits for the capture under way, whose epoch is in front of it', () => {
      const t = scheduler();
      const order: string[] = [];
      t.run(({ cold, hot, expectObservable }) => {
        // Replays, as it does.
        const ended$ = merge(cold('').pipe(ignoreElements()), hot('2ms x'));
        const ports = { ended$: defer(() => (t.now() >= 2 ? of('x') : ended$)) };
        const words = { a: 'c0', b: 'e1' };
        expectObservable(loop(t, ports, {}, order), '^ 100ms !').toBe('3ms a b', words);
      });
      expect(order).to.deep.equal(['capture 0', 'end 1']);
    });

    it('follows the capture that finds nobody, in its place', () => {
      const t = scheduler();
      const order: string[] = [];
      t.run(({ hot, expectObservable }) => {
        const gone: Observable<CaptureStage> = timer(3).pipe(map(() => 'gone' as const));
        const capture = (epoch: number) => (epoch === 0 ? pause() : gone);
        const ports = { capture, acknowledged$: hot('10ms 0 89ms 1', { 0: 0, 1: 1 }) };
        const words = { a: 'c0', b: 'a0', c: 'e1', d: 's1' };
        expectObservable(loop(t, ports, {}, order)).toBe('3ms a 6ms b 45ms c 43ms (d|)', words);
      });
      expect(order).to.deep.equal(['capture 0', 'release 0', 'capture 1', 'end 1']);
    });

    it('that is never acknowledged is late, too', () => {
      const t = scheduler();
      t.run(({ hot, expectObservable }) => {
        const ports = { acknowledged$: hot('10ms 0', { 0: 0 }), ended$: hot('20ms x') };
        const words = { a: 'c0', b: 'a0', c: 'e1', x: 'ACKNOWLEDGE_TIMEOUT' };
        const loop$ = loop(t, ports, { acknowledgeTimeoutMs: 40 });
        expectObservable(loop$).toBe('3ms a 6ms b 9ms c 39ms (x|)', words);
      });
    });
  });

  describe('an acknowledgement that does not come', () => {
    it('ends the stream, counted from the capture, whatever else comes meanwhile', () => {
      const t = scheduler();
      t.run(({ hot, expectObservable }) => {
        const ports = { requested$: hot('10ms r 9ms r'), beat$: hot('15ms b 14ms b') };
        const words = { a: 'c0', r: 'r', x: 'ACKNOWLEDGE_TIMEOUT' };
        const loop$ = loop(t, ports, { acknowledgeTimeoutMs: 40 });
        expectObservable(loop$).toBe('3ms a 6ms r 9ms r 22ms (x|)', words);
      });
    });

    it('window of two: that of the second counts from the acknowledgement of the first', () => {
      const t = scheduler();
      t.run(({ hot, expectObservable }) => {
        const changed = { windowEpochs: 2, acknowledgeTimeoutMs: 80, intervalMs: 10 };
        const words = { a: 'c0', b: 'c1', c: 'a0', d: 'c2', x: 'ACKNOWLEDGE_TIMEOUT' };
        const loop$ = loop(t, { acknowledged$: hot('60ms 0', { 0: 0 }) }, changed);
        expectObservable(loop$).toBe('3ms a 12ms b 43ms c 2ms d 76ms (x|)', words);
      });
    });
  });

  describe('what breaks', () => {
    it('while an epoch is captured, or while the domain is resumed', () => {
      const t = scheduler();
      t.run(({ expectObservable }) => {
        const suspended = {
          capture: () => concat(of('suspending' as const), timer(2).pipe(ignoreElements()), fails('HUNG')),
        };
        expectObservable(loop(t, suspended)).toBe('2ms (x|)', { x: 'HUNG' });
        const resumed = { capture: () => concat(pause(), fails('FAILED')) };
        expectObservable(loop(t, resumed)).toBe('3ms a (x|)', { a: 'c0', x: 'FAILED' });
      });
    });

    it('while END leaves', () => {
      const t = scheduler();
      t.run(({ hot, expectObservable }) => {
        const end = () => concat(of('leaves'), timer(5).pipe(ignoreElements()), fails('LINK_CLOSED'));
        const words = { a: 'c0', b: 'e1', x: 'LINK_CLOSED' };
        expectObservable(loop(t, { end, ended$: hot('20ms x') })).toBe('3ms a 16ms b 4ms (x|)', words);
      });
    });
  });

  it('a stop of the process: what was captured before it is acknowledged and not let out', () => {
    const t = scheduler();
    t.run(({ hot, expectObservable }) => {
      const acknowledged$ = hot('40ms 0 30ms 1', { 0: 0, 1: 1 });
      const words = { a: 'c0', b: 's0', c: 'c1', d: 'a1' };
      // Nothing is entered for longer than a stall, but for the acknowledgement that is found then.
      const loop$ = loop(t, { acknowledged$ }, { stallMs: 30 });
      expectObservable(loop$, '^ 80ms !').toBe('3ms a 36ms b 15ms c 14ms d', words);
    });
  });
});
