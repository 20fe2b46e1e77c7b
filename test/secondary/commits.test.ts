// The buffering restorer in marbles: a restorer and a link that take their time, and the news that come of them. What
// happens in the same millisecond has an order, too: it stands in `log`.

import { expect } from 'chai';
import { map, mergeMap, of, tap, throwError, timer, type Observable } from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { ChannelError, type CheckpointBoundary } from '../../src/channel/contract.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { commits, type CommitLink } from '../../src/secondary/commits.js';
import type { Restorer } from '../../src/secondary/ports.js';
import type { RestoreNews } from '../../src/secondary/restore-news.js';
import { RestoreError } from '../../src/restore/error.js';
import type { Committed, Received } from '../../src/restore/steps.js';

/** Milliseconds that each call takes. */
const RECEIVE_MS = 3;
const BOUNDARY_MS = 1;
const ACKNOWLEDGE_MS = 20;
const COMMIT_MS = 4;
const COMPLETE_MS = 2;
const BREAK_OFF_MS = 2;
const CLOSE_MS = 1;

const cut = new ChannelError('LINK_CLOSED', 'cut');
const dead = new HypervisorError('FAILED', 'the hypervisor is dead');

/** What the calls give, one after the other; an error is what one fails with. */
interface Script {
  readonly received: readonly (Received | Error)[];
  /** The last one stands for all that follow; so below. */
  readonly boundaries?: readonly (Partial<CheckpointBoundary> | Error)[];
  readonly committed?: readonly (Committed | Error)[];
  readonly acknowledged?: Error;
  readonly completed?: Error;
  readonly restoredEpoch?: number;
  /** Of breakOff(). */
  readonly broken?: Error;
  readonly closed?: Error;
}

const whole = (epoch: number): Received => ({ kind: 'checkpoint', epoch });
const END: Received = { kind: 'end', epochs: 1 };
const BROKEN: Received = { kind: 'broken', cause: null };

function play(script: Script, marbles: string, values: Readonly<Record<string, string>>): string[] {
  const log: string[] = [];
  const scheduler = new TestScheduler((actual, expected) => void expect(actual).to.deep.equal(expected));
  const next = <T>(answers: readonly T[]) => {
    let calls = 0;
    return (): T => {
      const answer = answers[Math.min(calls++, answers.length - 1)];
      if (answer === undefined) throw new Error('nothing is scripted');
      return answer;
    };
  };
  const after = <T>(ms: number, answer: T | Error): Observable<T> =>
    timer(ms).pipe(mergeMap(() => (answer instanceof Error ? throwError(() => answer) : of(answer))));
  const called = <T>(what: string, ms: number, answer: T | Error): Observable<T> => {
    log.push(what);
    return after(ms, answer);
  };

  const receive = next<Received | Error>([...script.received, new Error('received after the end')]);
  let epoch = 0;
  const boundary = next(script.boundaries ?? [{}]);
  const commit = next<Committed | Error | 'the epoch'>(script.committed ?? ['the epoch']);
  const epochOf = { records: 1, pages: 1, bufferedBytes: 1, applySeconds: 0 };
  const restorer: Restorer = {
    receive: () => {
      const answer = receive();
      if (!(answer instanceof Error) && answer.kind === 'checkpoint') epoch = answer.epoch;
      if (!(answer instanceof Error) && answer.kind === 'end') epoch = answer.epochs;
      return called('receive', RECEIVE_MS, answer);
    },
    commit: () => {
      const answer = commit();
      const applied: Committed = { kind: 'applied', applied: { ...epochOf, epoch } };
      return called('commit', COMMIT_MS, answer === 'the epoch' ? applied : answer);
    },
    breakOff: (cause) => {
      const outcome = { kind: 'failover' as const, epoch: script.restoredEpoch ?? epoch };
      return called(
        `break off: ${cause?.message ?? 'it ended'}`,
        BREAK_OFF_MS,
        script.broken ?? (cause === null ? outcome : { ...outcome, cause }),
      );
    },
    complete: () =>
      called('complete', COMPLETE_MS, script.completed ?? { kind: 'complete' as const, epochs: epoch }),
    close: (failure) =>
      called(`close: ${failure?.message ?? 'well'}`, CLOSE_MS, { failure: script.closed ?? failure }).pipe(
        map((answer) => answer.failure),
      ),
  };
  const link: CommitLink = {
    boundary: () => {
      const answer = boundary();
      const marks = { end: false, trial: false, handOver: false };
      const given = { epoch, bytes: 10, digest: 1n, outputBytes: 0, ...marks };
      return called('boundary', BOUNDARY_MS, answer instanceof Error ? answer : { ...given, ...answer });
    },
    acknowledge: (given) => called(`acknowledge ${given}`, ACKNOWLEDGE_MS, script.acknowledged ?? undefined),
    destroy: (error) => void log.push(`destroy ${error.code}`),
  };
  scheduler.run(({ expectObservable }) => {
    const news$ = commits(restorer, link, scheduler).pipe(
      map(worded),
      tap((word) => log.push(`told: ${word}`)),
    );
    expectObservable(news$).toBe(marbles, values);
  });
  return log;
}

function worded(news: RestoreNews): string {
  switch (news.kind) {
    case 'acknowledged':
      return `acknowledged ${news.epoch} at ${news.atMs}`;
    case 'committed':
      return `committed ${news.applied.epoch}`;
    case 'ended':
      return 'ended';
    case 'restored': {
      const how = news.consistent ? 'restored' : 'useless';
      return [how, news.epochsBack > 0 ? `${news.epochsBack} back` : '', news.code, news.message]
        .filter((word) => word !== '')
        .join(', ');
    }
  }
}

describe('secondary/commits', () => {
  it('a checkpoint: told, acknowledged, committed; the next one is not received before, nor the kernel waited for', () => {
    const log = play(
      { received: [whole(0), whole(1), BROKEN] },
      // 3 received, 1 its boundary: acknowledged; 4 committed; and again; 3 broken, 2 broken off, 1 closed
      '4ms a 3ms b 3ms c 3ms d 5ms (e|)',
      {
        a: 'acknowledged 0 at 4',
        b: 'committed 0',
        c: 'acknowledged 1 at 12',
        d: 'committed 1',
        e: 'restored',
      },
    );
    expect(log).to.deep.equal([
      ...['receive', 'boundary', 'told: acknowledged 0 at 4', 'acknowledge 0', 'commit', 'told: committed 0'],
      ...[
        'receive',
        'boundary',
        'told: acknowledged 1 at 12',
        'acknowledge 1',
        'commit',
        'told: committed 1',
      ],
      ...['receive', 'break off: it ended', 'close: well', 'told: restored'],
    ]);
  });

  it('END: completed, told, its acknowledgement last, and nothing received after it', () => {
    const log = play(
      { received: [whole(0), END], boundaries: [{}, { epoch: 1, end: true }] },
      '4ms a 3ms b 5ms c 20ms (d|)',
      { a: 'acknowledged 0 at 4', b: 'committed 0', c: 'ended', d: 'restored' },
    );
    expect(log.slice(6)).to.deep.equal([
      ...['receive', 'complete', 'boundary', 'told: ended', 'acknowledge 1'],
      ...['close: well', 'told: restored'],
    ]);
  });

  describe('the channel breaks', () => {
    it('before anything is whole: of no use', () => {
      const none = new RestoreError('NO_CONSISTENT_CHECKPOINT', 'no whole domain');
      const log = play({ received: [BROKEN], broken: none }, '6ms (a|)', {
        a: 'useless, NO_CONSISTENT_CHECKPOINT, no whole domain',
      });
      expect(log).to.deep.equal([
        ...['receive', 'break off: it ended', 'close: no whole domain'],
        'told: useless, NO_CONSISTENT_CHECKPOINT, no whole domain',
      ]);
    });

    it('in the middle of a checkpoint, by bytes that are wrong: as of the last one, and why', () => {
      const cause = new RestoreError('BUFFER_LIMIT', 'too much');
      const log = play({ received: [whole(0), { kind: 'broken', cause }] }, '4ms a 3ms b 5ms (c|)', {
        a: 'acknowledged 0 at 4',
        b: 'committed 0',
        c: 'restored, BUFFER_LIMIT, too much',
      });
      expect(log.slice(6)).to.deep.equal([
        ...['receive', 'break off: too much', 'close: well', 'told: restored, BUFFER_LIMIT, too much'],
      ]);
    });

    it('at the boundary of the first checkpoint: whole, but nobody was told: of no use', () => {
      const none = new RestoreError('NO_CONSISTENT_CHECKPOINT', 'no whole domain');
      const log = play({ received: [whole(0)], boundaries: [cut], broken: none }, '7ms (a|)', {
        a: 'useless, LINK_CLOSED, no whole domain',
      });
      expect(log).to.not.include('acknowledge 0');
    });

    it('at the boundary of a later one: neither acknowledged nor committed', () => {
      const log = play(
        { received: [whole(0), whole(1)], boundaries: [{}, cut], restoredEpoch: 0 },
        '4ms a 3ms b 6ms (c|)',
        { a: 'acknowledged 0 at 4', b: 'committed 0', c: 'restored, LINK_CLOSED, LINK_CLOSED' },
      );
      expect(log.slice(6)).to.deep.equal([
        ...['receive', 'boundary', 'break off: it ended', 'close: well'],
        'told: restored, LINK_CLOSED, LINK_CLOSED',
      ]);
    });

    it('while one is committed: acknowledged is acknowledged, and it is', () => {
      const log = play({ received: [whole(0), BROKEN], acknowledged: cut }, '4ms a 3ms b 5ms (c|)', {
        a: 'acknowledged 0 at 4',
        b: 'committed 0',
        c: 'restored',
      });
      expect(log.filter((line) => line === 'commit')).to.have.length(1);
    });

    it('at the boundary of END: not said to have ended, and of use', () => {
      const log = play({ received: [END], boundaries: [cut] }, '7ms (a|)', {
        a: 'restored, LINK_CLOSED, LINK_CLOSED',
      });
      expect(log).to.deep.equal([
        ...['receive', 'complete', 'boundary', 'close: well', 'told: restored, LINK_CLOSED, LINK_CLOSED'],
      ]);
    });

    it('at the acknowledgement of END: ended all the same', () => {
      play({ received: [END], boundaries: [{ end: true }], acknowledged: cut }, '6ms a 20ms (b|)', {
        a: 'ended',
        b: 'restored, LINK_CLOSED, LINK_CLOSED',
      });
    });
  });

  for (const [what, told] of [
    ['of another epoch', { epoch: 7 }],
    ['of the end', { end: true }],
  ] as const) {
    it(`a boundary ${what}: the primary is told, and the checkpoint dropped`, () => {
      const log = play(
        { received: [whole(0), whole(1)], boundaries: [{}, told], restoredEpoch: 0 },
        '4ms a 3ms b 6ms (c|)',
        { a: 'acknowledged 0 at 4', b: 'committed 0', c: 'restored, BAD_MESSAGE, BAD_MESSAGE' },
      );
      expect(log.slice(8)).to.deep.equal([
        ...['destroy BAD_MESSAGE', 'break off: it ended', 'close: well'],
        'told: restored, BAD_MESSAGE, BAD_MESSAGE',
      ]);
    });
  }

  it('END at a boundary that is not: not said to have ended', () => {
    const log = play({ received: [END], boundaries: [{ end: false }] }, '7ms (a|)', {
      a: 'restored, BAD_MESSAGE, BAD_MESSAGE',
    });
    expect(log).to.not.include('acknowledge 1');
  });

  it('a checkpoint that the hypervisor does not take: acknowledged, and back to the one that it takes', () => {
    const cause = new HypervisorError('BAD_CONTEXT', 'no such device');
    const committed: Committed[] = [
      { kind: 'applied', applied: { epoch: 0, records: 1, bufferedBytes: 0, pages: 1, applySeconds: 0 } },
      { kind: 'unusable', outcome: { kind: 'failover', epoch: 0, cause } },
    ];
    const log = play({ received: [whole(0), whole(2)], committed }, '4ms a 3ms b 3ms c 4ms (d|)', {
      a: 'acknowledged 0 at 4',
      b: 'committed 0',
      c: 'acknowledged 2 at 12',
      d: 'restored, 2 back, BAD_CONTEXT, no such device',
    });
    expect(log.slice(-3)).to.deep.equal([
      ...['commit', 'close: well', 'told: restored, 2 back, BAD_CONTEXT, no such device'],
    ]);
  });

  for (const [when, script, marbles] of [
    ['as the first checkpoint is applied', { received: [dead] }, '4ms (z|)'],
    ['as one is committed', { received: [whole(0)], committed: [dead] }, '4ms a 4ms (z|)'],
    ['as it is completed after END', { received: [END], completed: dead }, '6ms (z|)'],
    ['as it is completed after the channel broke', { received: [BROKEN], broken: dead }, '6ms (z|)'],
  ] as const) {
    it(`the domain fails ${when}: of no use, and closed with the reason`, () => {
      const told = 'useless, FAILED, the hypervisor is dead';
      const log = play(script, marbles, { a: 'acknowledged 0 at 4', z: told });
      expect(log.slice(-2)).to.deep.equal(['close: the hypervisor is dead', `told: ${told}`]);
    });
  }

  it('one that cannot be closed is of no use', () => {
    const closed = new RestoreError('CLEANUP_FAILED', 'restored, but the clean-up failed');
    const log = play({ received: [whole(0), BROKEN], closed }, '4ms a 3ms b 5ms (c|)', {
      a: 'acknowledged 0 at 4',
      b: 'committed 0',
      c: 'useless, CLEANUP_FAILED, restored, but the clean-up failed',
    });
    expect(log.filter((line) => line.startsWith('close'))).to.deep.equal(['close: well']);
  });
});
