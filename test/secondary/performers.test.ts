// The performers of the secondary in marbles: what is under way, what ends it, and what waits for what.

import { expect } from 'chai';
import { BehaviorSubject, NEVER, Subject, finalize, map, of, tap, type Observable } from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { ChannelError, type LinkEvent, type SecondaryLink } from '../../src/channel/contract.js';
import { performersOf } from '../../src/flow/feedback.js';
import { Work } from '../../src/flow/work.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import type { CommitReport, DomainStatus } from '../../src/report/reports.js';
import { attemptOf, dialling, type DiallingPorts } from '../../src/secondary/dialling.js';
import type { Restorer, StreamLink } from '../../src/secondary/ports.js';
import { restoring, type RestoringPorts } from '../../src/secondary/restoring.js';
import type { StreamProgress } from '../../src/secondary/restore-news.js';
import { takingOver } from '../../src/secondary/taking-over.js';
import type { Effect, SecondaryEffect, SecondaryEvent } from '../../src/secondary/vigil-state.js';
import { log } from '../service/world.js';
import { captureLog } from '../support/capture.js';

const scheduler = () => new TestScheduler((actual, expected) => void expect(actual).to.deep.equal(expected));

function linkOf(streamUuid: string, events$: Observable<LinkEvent> = NEVER): StreamLink {
  return {
    events$,
    peer: '',
    welcome: { streamUuid, continuous: true } as StreamLink['welcome'],
    source: { read: () => Promise.resolve(null) } as StreamLink['source'],
    bufferedBytes: 0,
    boundary: () =>
      of({ epoch: 0, bytes: 1, digest: 1n, outputBytes: 0, end: false, trial: false, handOver: false }),
    acknowledge: () => of(undefined),
    sumsWanted$: NEVER,
    answerSums: () => undefined,
    durable: () => undefined,
    bye: () => of(true),
    destroy: () => undefined,
  };
}

const lost = (code: 'LINK_CLOSED'): LinkEvent => ({ kind: 'lost', error: new ChannelError(code, 'gone') });

function worded(event: SecondaryEvent): string {
  const { kind, dial, streamUuid, code, reason, epoch } = event as SecondaryEvent & Record<string, unknown>;
  return [kind, dial, streamUuid, epoch, reason, code]
    .filter((word) => word !== undefined && word !== null && word !== '')
    .join(' ');
}

const dial = (number: number): SecondaryEffect => ({
  kind: 'dial',
  dial: number,
  held: null,
  shared: null,
});
const abort: SecondaryEffect = { kind: 'abort-dial' };

describe('secondary/dialling', () => {
  const ports = (changes: Partial<DiallingPorts> & Pick<DiallingPorts, 'dial'>): DiallingPorts => ({
    standstillMs: () => 0,
    links: new Map(),
    error$: new BehaviorSubject<DomainStatus['error']>(null),
    work: new Work(() => undefined),
    log,
    ...changes,
  });

  it('one that is given up is ended then and there, and nothing comes of it', () => {
    scheduler().run(({ hot, cold, expectObservable, expectSubscriptions }) => {
      const attempt$ = cold('  20ms (l|)', { l: linkOf('A') });
      const effects$ = hot('   5ms d 9ms x', { d: dial(1), x: abort });
      const events$ = effects$.pipe(dialling(ports({ dial: () => attempt$ })));
      expectObservable(events$, '^ 99ms !').toBe('');
      expectSubscriptions(attempt$.subscriptions).toBe('5ms ^ 9ms !');
    });
  });

  it('one that is dialled again gives up the one before', () => {
    scheduler().run(({ hot, cold, expectObservable, expectSubscriptions }) => {
      const attempts = [cold('20ms (l|)', { l: linkOf('A') }), cold('10ms (l|)', { l: linkOf('B') })];
      const [first$, second$] = attempts;
      const effects$ = hot('   5ms d 9ms e', { d: dial(1), e: dial(2) });
      const next = ({ dial: n }: Effect<'dial'>) => (n === 1 ? first$ : second$) ?? NEVER;
      const events$ = effects$.pipe(dialling(ports({ dial: next })), map(worded));
      expectObservable(events$, '^ 99ms !').toBe('25ms b', { b: 'dialled 2 B' });
      if (first$) expectSubscriptions(first$.subscriptions).toBe('5ms ^ 9ms !');
    });
  });

  it('a link outlives the dial that brought it: what it says is heard while the next one is dialled', () => {
    scheduler().run(({ hot, cold, expectObservable }) => {
      const links = new Map<string, StreamLink>();
      const said$ = cold<LinkEvent>('5ms b 24ms (l|)', {
        b: { kind: 'bye', reason: 'shutdown' },
        l: lost('LINK_CLOSED'),
      });
      const attempts$ = [cold<StreamLink>('2ms (l|)', { l: linkOf('A', said$) }), cold<StreamLink>('50ms #')];
      const effects$ = hot('d 9ms e 9ms x', { d: dial(1), e: dial(2), x: abort });
      const standing: string[] = [];
      const events$ = effects$.pipe(
        dialling(ports({ links, dial: ({ dial: n }) => attempts$[n - 1] ?? NEVER })),
        tap(() => standing.push([...links.keys()].join())),
        map(worded),
        finalize(() => expect(standing).to.deep.equal(['A', 'A', ''])),
      );
      expectObservable(events$, '^ 99ms !').toBe('2ms a 4ms b 24ms c', {
        a: 'dialled 1 A',
        b: 'bye A shutdown',
        c: 'lost A LINK_CLOSED',
      });
    });
  });

  it('a link that was lost before anybody heard: dialled first, then lost', () => {
    scheduler().run(({ hot, expectObservable }) => {
      const attempt = () => of(linkOf('A', of(lost('LINK_CLOSED'))));
      const events$ = hot('d', { d: dial(1) }).pipe(dialling(ports({ dial: attempt })), map(worded));
      expectObservable(events$, '^ 9ms !').toBe('(ab)', { a: 'dialled 1 A', b: 'lost A LINK_CLOSED' });
    });
  });

  it('a refusal is told each time, and said once; a misfit is shown until a link stands', () => {
    const { log: captured, lines } = captureLog();
    const error$ = new BehaviorSubject<DomainStatus['error']>(null);
    const shown: (string | null)[] = [];
    scheduler().run(({ hot, cold, expectObservable }) => {
      const refused = (code: 'REFUSED' | 'TLS') => cold<StreamLink>('#', {}, new ChannelError(code, code));
      const attempts = [refused('REFUSED'), refused('REFUSED'), refused('TLS'), of(linkOf('A'))];
      const effects$ = hot('a 9ms b 9ms c 9ms d', { a: dial(1), b: dial(2), c: dial(3), d: dial(4) });
      const given = ports({ error$, log: captured, dial: ({ dial: n }) => attempts[n - 1] ?? NEVER });
      const events$ = effects$.pipe(
        dialling(given),
        tap(() => shown.push(error$.value?.code ?? null)),
        map(worded),
      );
      expectObservable(events$, '^ 99ms !').toBe('a 9ms b 9ms c 9ms d', {
        a: 'dial-failed 1 REFUSED',
        b: 'dial-failed 2 REFUSED',
        c: 'dial-failed 3 TLS',
        d: 'dialled 4 A',
      });
    });
    expect(shown).to.deep.equal([null, null, 'TLS', null]);
    expect(lines().map(({ level, msg }) => `${String(level)} ${String(msg)}`)).to.deep.equal([
      'info no link to the primary',
      'debug dial failed',
      'warn refused: TLS',
    ]);
  });

  it('a link that comes although its dial was given up is closed', async () => {
    let comes: (link: SecondaryLink) => void = () => undefined;
    let given: AbortSignal | null = null;
    const closed: string[] = [];
    const link = { destroy: (error: ChannelError) => closed.push(error.code) } as unknown as SecondaryLink;
    const seen: unknown[] = [];
    const subscription = attemptOf((signal) => {
      given = signal;
      return new Promise((resolve) => (comes = resolve));
    }).subscribe((value) => seen.push(value));
    subscription.unsubscribe();
    expect(given).to.have.property('aborted', true);
    comes(link);
    await Promise.resolve();
    expect(seen).to.deep.equal([]);
    expect(closed).to.deep.equal(['INTERNAL']);
  });
});

describe('secondary/restoring', () => {
  /** Streams of one checkpoint each, which break after it. */
  function play(
    fill: (began: string[]) => RestoringPorts['fill'],
    marbles: string,
    seen: Record<string, string>,
    fault?: Error,
  ) {
    const began: string[] = [];
    const commits$ = new Subject<CommitReport>();
    commits$.subscribe(({ streamUuid, epoch }) => began.push(`report ${streamUuid} ${epoch}`));
    const test = scheduler();
    test.run(({ hot, cold, expectObservable }) => {
      const steps = (): Restorer => {
        let received = 0;
        const applied = { epoch: 0, records: 1, pages: 1, bufferedBytes: 0, applySeconds: 0 };
        return {
          receive: () =>
            received++ === 0
              ? cold('5ms (r|)', { r: { kind: 'checkpoint' as const, epoch: 0 } })
              : cold('10ms (r|)', { r: { kind: 'broken' as const, cause: null } }),
          commit: () => cold('1ms (c|)', { c: { kind: 'applied' as const, applied } }),
          breakOff: () => of({ kind: 'failover' as const, epoch: 0 }),
          complete: () => NEVER,
          close: () => cold('2ms (f|)', { f: null }),
        };
      };
      const ports: RestoringPorts = {
        name: 'web',
        fill: fill(began),
        foresee: () => expect.fail('no checkpoint is tried'),
        openRestore: () => of(steps()),
        links: new Map([
          ['A', linkOf('A')],
          ['B', linkOf('B')],
        ]),
        stream$: new BehaviorSubject<StreamProgress | null>(null),
        commits$,
        error$: new BehaviorSubject<DomainStatus['error']>(null),
        work: new Work(() => undefined),
        log,
      };
      const effects$ = hot<SecondaryEffect>('a 1ms b 1ms l', {
        a: { kind: 'restore', streamUuid: 'A', from: null },
        b: { kind: 'restore', streamUuid: 'B', from: null },
        l: { kind: 'restore', streamUuid: 'lost', from: null },
      });
      const events$ = effects$.pipe(
        performersOf<SecondaryEvent, SecondaryEffect>().inTurn('restore', (effect) =>
          restoring(effect, ports, test),
        ),
        map(worded),
      );
      expectObservable(events$, '^ 99ms !').toBe(marbles, seen, fault);
    });
    return began;
  }
  const restore = () => NEVER;
  const standby = { restore, occupied: <T>(work$: Observable<T>) => work$ };

  it('the second link waits for the end of the first one, its closing too; one lost meanwhile is over', () => {
    const filled = (began: string[]) => () => {
      began.push('fill');
      return of(standby);
    };
    const began = play(filled, '5ms a 12ms b 4ms c 12ms (de)', {
      a: 'acknowledged A 0',
      b: 'restored A 0',
      c: 'acknowledged B 0',
      d: 'restored B 0',
      e: 'restored lost LINK_CLOSED',
    });
    expect(began).to.deep.equal(['fill', 'report A 0', 'fill', 'report B 0']);
  });

  it('no domain to fill: told, and the next link has its turn', () => {
    let calls = 0;
    const filled = () => () => {
      if (calls++ === 0) throw new HypervisorError('OUT_OF_MEMORY', 'no');
      return of(standby);
    };
    play(filled, 'a 6ms b 12ms (cd)', {
      a: 'domain-failed OUT_OF_MEMORY',
      b: 'acknowledged B 0',
      c: 'restored B 0',
      d: 'restored lost LINK_CLOSED',
    });
  });

  it('a fault of ours in what follows is no domain that cannot be made: it ends the pipeline', () => {
    const fault = new TypeError('ours');
    const faulty = <T>(work$: Observable<T>): Observable<T> =>
      work$.pipe(
        tap(() => {
          throw fault;
        }),
      );
    play(() => () => of({ restore, occupied: faulty }), '5ms #', {}, fault);
  });
});

describe('secondary/taking over', () => {
  it('is told when the domain runs; the network is not waited for', () => {
    const clock = scheduler();
    clock.run(({ cold, expectObservable }) => {
      const taking$ = takingOver(
        {
          held: () => ({
            start: () => cold('5ms (s|)', { s: undefined }),
            speak: () => cold('1ms (s|)', { s: undefined }),
            domain: { checkpointsBack: 1, announce: () => cold('50ms #') },
          }),
          confirm: () => cold('3ms (g|)', { g: 'granted' as const }),
          failed: () => undefined,
          error$: new BehaviorSubject<DomainStatus['error']>(null),
          work: new Work(() => undefined),
        },
        clock,
      );
      expectObservable(taking$).toBe('9ms s 49ms |', {
        s: { kind: 'started', epochsBack: 1, runsSinceMs: 5 },
      });
    });
  });

  it('is not heard if its owner has taken it back', () => {
    let spoken = 0;
    const clock = scheduler();
    clock.run(({ cold, expectObservable }) => {
      const taking$ = takingOver(
        {
          held: () => ({
            start: () => cold('5ms (s|)', { s: undefined }),
            speak: () => {
              spoken++;
              return of(undefined);
            },
            domain: {},
          }),
          confirm: () => cold('3ms (d|)', { d: 'denied' as const }),
          failed: () => undefined,
          error$: new BehaviorSubject<DomainStatus['error']>(null),
          work: new Work(() => undefined),
        },
        clock,
      );
      expectObservable(taking$.pipe(map(worded))).toBe('8ms (a|)', { a: 'start-failed TAKEN_BACK' });
    });
    expect(spoken).to.equal(0);
  });

  it('nothing is held after all: it is gone', () => {
    const clock = scheduler();
    clock.run(({ expectObservable }) => {
      const taking$ = takingOver(
        {
          held: () => null,
          confirm: () => NEVER,
          failed: () => undefined,
          error$: new BehaviorSubject<DomainStatus['error']>(null),
          work: new Work(() => undefined),
        },
        clock,
      );
      expectObservable(taking$.pipe(map(worded))).toBe('(a|)', {
        a: 'start-failed DOMAIN_GONE',
      });
    });
  });
});
