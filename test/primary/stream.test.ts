// One stream in marbles: what it tells, what it lets out, and when its saver lets go of the domain.

import { expect } from 'chai';
import {
  NEVER,
  concat,
  concatMap,
  defer,
  filter,
  from,
  ignoreElements,
  map,
  of,
  tap,
  throwError,
  timer,
  type Observable,
} from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { RomulusError } from '../../src/errors.js';
import type { CaptureStage, LoopSettings } from '../../src/primary/checkpoints.js';
import { stream, type Saver, type StreamNews, type StreamPorts } from '../../src/primary/stream.js';

const settings: LoopSettings = { intervalMs: 50, windowEpochs: 1, acknowledgeTimeoutMs: 200, stallMs: 1e6 };
const CLOSE_MS = 7;

const scheduler = () =>
  new TestScheduler((actual, expected) => {
    expect(actual).to.deep.equal(expected);
  });

const capture = (): Observable<CaptureStage> =>
  concat(of('suspending' as const), timer(3).pipe(map(() => 'captured' as const)));
const fails = (code: string) => throwError(() => new RomulusError(code, code));

/** A stream, and in `order` what it asks of its ports and tells, each with its time. */
function play(
  t: TestScheduler,
  order: string[],
  changes: Partial<StreamPorts> & {
    readonly acknowledged$?: Observable<number>;
    readonly saver?: Partial<Saver>;
  },
  left$: Observable<unknown> = NEVER,
  streamUuid = 'A',
): Observable<string> {
  const says = (what: string) => order.push(`${t.now()} ${what}`);
  const { acknowledged$ = NEVER, saver, ...ports } = changes;
  const all: StreamPorts = {
    requested$: NEVER,
    handOver$: NEVER,
    beat$: NEVER,
    ended$: NEVER,
    openSaver: () => ({
      capture,
      end: () => of('leaves'),
      report: (epoch) => says(`report ${epoch}`),
      close: () =>
        defer(() => {
          says(`close ${streamUuid}`);
          return timer(CLOSE_MS).pipe(ignoreElements());
        }),
      ...saver,
    }),
    acknowledged: () => acknowledged$,
    release: ({ epoch }) => says(`release ${epoch}`),
    ...ports,
  };
  return stream(streamUuid, all, settings, left$, t).pipe(
    // Of each capture: it tells life whether we were stopped, and nobody else anything.
    filter((news) => news.kind !== 'suspending' && news.kind !== 'stopping'),
    map(wordOf),
    tap((word) => says(`news ${word}`)),
  );
}

function wordOf(news: Exclude<StreamNews, { kind: 'suspending' | 'stopping' }>): string {
  if (news.kind === 'stream-over') {
    const { end } = news;
    return end.how === 'ended' ? 'ended' : `${end.how} ${end.code}`;
  }
  return `${news.kind} ${news.kind === 'captured' ? news.ledger.captured : news.ledger.acknowledged}`;
}

describe('primary/stream', () => {
  it('an acknowledgement releases, then it is reported, then it is told', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const acknowledged$ = hot('10ms 0', { 0: 0 });
      expectObservable(play(t, order, { acknowledged$ }), '^ 20ms !');
    });
    expect(order).to.deep.equal([
      '3 news captured 0',
      '10 release 0',
      '10 report 0',
      '10 news acknowledged 0',
    ]);
  });

  it('a fault of ours is no failure of the saver: it ends the pipeline', () => {
    scheduler().run(({ expectObservable }) => {
      const fault = new TypeError('ours');
      const report = () => {
        throw fault;
      };
      const acknowledged$ = concat(timer(10).pipe(map(() => 0)), NEVER);
      expectObservable(play(scheduler(), [], { acknowledged$, saver: { report } })).toBe(
        '3ms a 6ms #',
        { a: 'captured 0' },
        fault,
      );
    });
  });

  it('END’s acknowledgement lets nothing out by itself: the end is told, and the saver closes', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ hot, expectObservable }) => {
      const ports = { acknowledged$: hot('10ms 0 19ms 1', { 0: 0, 1: 1 }), ended$: hot('20ms x') };
      const words = {
        a: 'captured 0',
        b: 'acknowledged 0',
        c: 'captured 0',
        d: 'acknowledged 1',
        e: 'ended',
      };
      const seen = `3ms a 6ms b 9ms c 9ms (de) ${CLOSE_MS - 4}ms |`;
      expectObservable(play(t, order, ports)).toBe(seen, words);
    });
    expect(order.slice(-4)).to.deep.equal([
      '20 news captured 0',
      '30 news acknowledged 1',
      '30 news ended',
      '30 close A',
    ]);
  });

  describe('left', () => {
    const moments: Record<string, [leftMs: number, news: string[]]> = {
      'while the first epoch is captured': [2, []],
      'while an acknowledgement is awaited': [5, ['3 news captured 0']],
      'between two checkpoints': [
        20,
        ['3 news captured 0', '10 release 0', '10 report 0', '10 news acknowledged 0'],
      ],
      'while the next epoch is captured': [
        54,
        ['3 news captured 0', '10 release 0', '10 report 0', '10 news acknowledged 0'],
      ],
    };
    for (const [name, [leftMs, news]] of Object.entries(moments)) {
      it(`${name}: nothing more is let out or told, the saver closes, and then it is complete`, () => {
        const t = scheduler();
        const order: string[] = [];
        t.run(({ hot, expectObservable }) => {
          const ports = { acknowledged$: hot('10ms 0 50ms 1', { 0: 0, 1: 1 }) };
          const stream$ = play(t, order, ports, timer(leftMs)).pipe(ignoreElements());
          expectObservable(stream$).toBe(`${leftMs + CLOSE_MS}ms |`);
        });
        expect(order).to.deep.equal([...news, `${leftMs} close A`]);
      });
    }

    it('while END leaves', () => {
      const t = scheduler();
      const order: string[] = [];
      t.run(({ hot, expectObservable }) => {
        const ports = { ended$: hot('20ms x'), acknowledged$: hot('30ms 0 1', { 0: 0, 1: 1 }) };
        expectObservable(play(t, order, ports, timer(25))).toBe(`3ms a 16ms b ${25 + CLOSE_MS - 21}ms |`, {
          a: 'captured 0',
          b: 'captured 0',
        });
      });
      expect(order.at(-1)).to.equal('25 close A');
    });

    it('before it has begun: nothing is captured', () => {
      const t = scheduler();
      const order: string[] = [];
      t.run(({ expectObservable }) => {
        const saver = { capture: () => (order.push('capture'), capture()) };
        expectObservable(play(t, order, { saver }, of('left'))).toBe(`${CLOSE_MS}ms |`);
      });
      expect(order).to.deep.equal(['0 close A']);
    });
  });

  describe('what goes wrong is told, and the saver closes', () => {
    const suspended = of('suspending' as const);
    const wrongs: Record<string, [Parameters<typeof play>[2], string[]]> = {
      'the saver, while an epoch is captured': [
        { saver: { capture: () => concat(suspended, timer(2).pipe(ignoreElements()), fails('HUNG')) } },
        ['2 news failed HUNG', '2 close A'],
      ],
      'the saver, while the domain is resumed': [
        { saver: { capture: () => concat(capture(), fails('FAILED')) } },
        ['3 news captured 0', '3 news failed FAILED', '3 close A'],
      ],
      'the saver, while END leaves': [
        { saver: { end: () => concat(of('leaves'), fails('LINK_CLOSED')) }, ended$: timer(20) },
        ['3 news captured 0', '23 news captured 0', '23 news failed LINK_CLOSED', '23 close A'],
      ],
      'an acknowledgement out of turn': [
        { acknowledged$: timer(5).pipe(map(() => 7)) },
        ['3 news captured 0', '5 news broken BAD_MESSAGE', '5 close A'],
      ],
      'an acknowledgement that does not come': [
        {},
        ['3 news captured 0', '203 news broken ACKNOWLEDGE_TIMEOUT', '203 close A'],
      ],
    };
    for (const [name, [ports, expected]] of Object.entries(wrongs)) {
      it(name, () => {
        const t = scheduler();
        const order: string[] = [];
        t.run(({ expectObservable }) => expectObservable(play(t, order, ports)));
        expect(order).to.deep.equal(expected);
      });
    }
  });

  it('one after another: the next is begun when the saver of the one before has let go', () => {
    const t = scheduler();
    const order: string[] = [];
    t.run(({ expectObservable }) => {
      const streams$ = from(['A', 'B']).pipe(
        concatMap((name) => {
          order.push(`${t.now()} begin ${name}`);
          return play(t, order, {}, timer(20), name);
        }),
      );
      expectObservable(streams$);
    });
    expect(order).to.deep.equal([
      ...['0 begin A', '3 news captured 0', '20 close A'],
      ...['27 begin B', '30 news captured 0', '47 close B'],
    ]);
  });
});
