// The checkpoint loop for marbles: what is seen of its ledgers is c0 captured, a0 acknowledged and let out, s0 acknowledged and
// not let out (stale, or END's), e2 END has left, r a request.

import { expect } from 'chai';
import {
  EMPTY,
  NEVER,
  catchError,
  concat,
  defer,
  ignoreElements,
  map,
  mergeMap,
  of,
  tap,
  throwError,
  timer,
  type Observable,
} from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import { RomulusError, codeOf } from '../../src/errors.js';
import {
  checkpoints,
  type CaptureStage,
  type LoopPorts,
  type LoopSettings,
} from '../../src/primary/checkpoints.js';
import type { Ledger } from '../../src/primary/ledger.js';

const settings: LoopSettings = { intervalMs: 50, windowEpochs: 1, acknowledgeTimeoutMs: 5000, stallMs: 1e6 };

export const scheduler = () =>
  new TestScheduler((actual, expected) => {
    expect(actual).to.deep.equal(expected);
  });

/** The domain is suspended, captured 3 ms later, and runs `resumeMs` after that. */
export function pause(resumeMs = 1): Observable<CaptureStage> {
  return concat(
    of('suspending' as const),
    timer(3).pipe(map(() => 'captured' as const)),
    timer(resumeMs).pipe(ignoreElements()),
  );
}

export const fails = (code: string) => throwError(() => new RomulusError(code, code));

/** What is seen of a loop, and the order in which its ports are asked and what it lets out is let out. */
export function loop(
  t: TestScheduler,
  changes: Partial<LoopPorts>,
  changed: Partial<LoopSettings> = {},
  order: string[] = [],
): Observable<string> {
  const ports: LoopPorts = {
    capture: () => pause(),
    end: () => of('leaves'),
    acknowledged$: NEVER,
    requested$: NEVER,
    handOver$: NEVER,
    beat$: NEVER,
    ended$: NEVER,
    ...changes,
  };
  const asked: LoopPorts = {
    ...ports,
    capture: (epoch, mark) =>
      defer(() => {
        order.push(mark === null ? `capture ${epoch}` : `capture ${epoch}, the ${mark}`);
        return ports.capture(epoch, mark);
      }),
    end: (epoch) => defer(() => (order.push(`end ${epoch}`), ports.end(epoch))),
  };
  return checkpoints(asked, { ...settings, ...changed }, t).pipe(
    tap(({ release }) => release && order.push(`release ${release.epoch}`)),
    mergeMap((ledger) => seenOf(ledger)),
    catchError((error: unknown) => of(codeOf(error))),
  );
}

function seenOf({ last, captured, acknowledged, endEpoch, release }: Ledger): Observable<string> {
  if (last === 'captured') return of(`c${captured}`);
  if (last === 'ending') return of(`e${endEpoch ?? 'none'}`);
  if (last === 'acknowledged') return of(`${release ? 'a' : 's'}${acknowledged}`);
  return last === 'requested' ? of('r') : EMPTY;
}
