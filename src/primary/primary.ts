// One domain of the primary: what happens, what is decided (life.ts), what is done about it.
//
//   links ─▶ replicating: one stream after another ─▶ captured, acknowledged, over ─┐
//   domain, host, beat ─────────────────────────────────────────────────────────────┴▶ life ─▶ gate, domain, links, reports

import {
  EMPTY,
  concat,
  defer,
  distinctUntilChanged,
  exhaustMap,
  filter,
  ignoreElements,
  map,
  merge,
  mergeMap,
  of,
  skipWhile,
  switchMap,
  takeUntil,
  tap,
  type BehaviorSubject,
  type Observable,
  type TimestampProvider,
} from 'rxjs';
import type { ByeReason, ChannelErrorCode } from '../channel/contract.js';
import type { RegisterWrite } from '../failover/register.js';
import { feedback, performersOf, type Performer } from '../flow/feedback.js';
import { ofKind } from '../flow/of-kind.js';
import { timers } from '../flow/timers.js';
import type { LoopSettings } from './checkpoints.js';
import { stepLife } from './life.js';
import type { HandOverOutcome, LifeEffect, LifeEvent, LifeState } from './life-state.js';
import { stream, type StreamLink, type StreamPorts } from './stream.js';
import type { DomainWork } from './work.js';

const { atOnce, inTurn, told } = performersOf<LifeEvent, LifeEffect>();

/** What comes from the world, and is done to it: done when it is subscribed to, and complete when it is over. */
export interface PrimaryPorts extends StreamPorts {
  /** What the domain and its host say. */
  readonly events$: Observable<LifeEvent>;
  readonly links$: Observable<StreamLink>;
  /** Writes to the register until it is known what became of it: answered. */
  write(write: RegisterWrite): Observable<LifeEvent>;
  /** The gate holds more than its limit. */
  readonly pressure$: Observable<boolean>;
  /** What is done to the domain, by whoever holds it. */
  readonly domain: Omit<
    DomainWork,
    | ('world' | 'shared' | 'disks' | 'ofDisks' | 'synchronisation')
    | ('made' | 'tasks' | 'failed' | 'release' | 'saver')
  >;
  readonly link: {
    /** goodbye, when it is over. */
    bye(streamUuid: string, reason: ByeReason): Observable<LifeEvent>;
    drop(streamUuid: string, code: ChannelErrorCode, message: string): void;
    handedOver(streamUuid: string, epoch: number): void;
  };
  /** Whoever looks at the domain. */
  readonly host: {
    requestCheckpoint(): void;
    /** The fourth checkpoint of the present stream from now on is its last. */
    handOver(): void;
    /** What became of the request of that number. */
    handOverSettled(id: number, outcome: HandOverOutcome): void;
    withdraw(): void;
    transition(reason: string): void;
    finished(): void;
  };
}

/** Keeps what has become of the domain in `state$`, told before anything is done about it. */
export function primary(
  ports: PrimaryPorts,
  settings: LoopSettings,
  state$: BehaviorSubject<LifeState>,
  clock: TimestampProvider,
): Observable<never> {
  const { domain, link, host } = ports;
  const sources$: Observable<LifeEvent> = merge(
    ports.events$,
    ports.links$.pipe(mergeMap(heardOf)),
    ports.beat$.pipe(map(() => ({ kind: 'beat' as const }))),
  );
  const left = (streamUuid: string) =>
    state$.pipe(filter((state) => state.stream?.streamUuid !== streamUuid));
  const isLeft = (streamUuid: string) => state$.value.stream?.streamUuid !== streamUuid;
  const gone$ = state$.pipe(filter(({ role, stopped }) => role !== 'primary' || stopped));

  const performers: readonly Performer<LifeEvent, LifeEffect>[] = [
    // A domain has one dirty log and one set of slabs: the stream before must be done with them. One that is left meanwhile is not begun.
    inTurn('replicate', ({ streamUuid }) =>
      isLeft(streamUuid) ? EMPTY : stream(streamUuid, ports, settings, left(streamUuid), clock),
    ),
    ...(['hold', 'pass', 'restart', 'discard'] as const).map((ask) => atOnce(ask, () => domain.gate(ask))),
    atOnce('start-domain', () => domain.start()),
    atOnce('halt-domain', () => domain.halt()),
    atOnce('unhalt-domain', () => domain.unhalt()),
    (effects$) => timers(effects$.pipe(ofKind('arm', 'disarm')), clock),
    told('hand-over', () => host.handOver()),
    atOnce('handed-over', ({ streamUuid, epoch }) =>
      concat(
        domain.outputLeaves(),
        defer(() => (link.handedOver(streamUuid, epoch), EMPTY)),
      ),
    ),
    atOnce('hand-back', () => domain.handBack()),
    told('hand-over-settled', ({ id, outcome }) => host.handOverSettled(id, outcome)),
    atOnce('expose', ({ on }) => domain.expose(on)),
    inTurn('let-go', ({ how, afterOutput = false }) => domain.letGo(how, afterOutput)),
    atOnce('bye', ({ streamUuid, reason }) => link.bye(streamUuid, reason)),
    told('drop-link', ({ streamUuid, code, message }) => link.drop(streamUuid, code, message)),
    inTurn('write', ({ write }) => ports.write(write)),
    told('withdraw', () => host.withdraw()),
    told('transition', ({ reason }) => host.transition(reason)),
    told('finished', () => host.finished()),
    // Of no effect of life's: who says more than is let out is paused, as long as it is ours.
    () =>
      ports.pressure$.pipe(
        skipWhile((on) => !on),
        distinctUntilChanged(),
        switchMap((on) => (on ? pausing(ports) : domain.unpause())),
        takeUntil(gone$),
      ),
  ];
  return feedback(stepLife, state$.value, sources$, performers, clock).pipe(
    tap(([state]) => state$.next(state)),
    ignoreElements(),
  );
}

/** Of a link, whether or not its stream has begun; what it acknowledges is the stream's. */
function heardOf({ streamUuid, pairing, events$ }: StreamLink): Observable<LifeEvent> {
  return concat(
    of<LifeEvent>({ kind: 'linked', streamUuid, pairing }),
    events$.pipe(
      ofKind('heard', 'bye', 'lost'),
      map((event): LifeEvent => {
        if (event.kind !== 'lost') return { ...event, streamUuid };
        const { code, message, facts } = event.error;
        const { tookMs } = facts;
        const lost = { kind: 'lost', streamUuid, code, message } as const;
        return typeof tookMs === 'number' ? { ...lost, tookMs } : lost;
      }),
    ),
  );
}

/** Paused, and a checkpoint from there on lets out what can be let out. */
function pausing(ports: PrimaryPorts): Observable<never> {
  return concat(
    ports.domain.pause(false),
    defer(() => {
      ports.host.requestCheckpoint();
      return ports.beat$.pipe(exhaustMap(() => ports.domain.pause(true)));
    }),
  );
}
