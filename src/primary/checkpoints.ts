// The checkpoint loop: capture, and again when it is due and there is room.
//
//   capture(n) ─▶ runs on ─▶ due? room? ─▶ capture(n + 1) … ─▶ END, when the domain has shut down by itself
//       │ captured                 ▲
//       ▼                          │
//   ledger ◀─ acknowledged(n), beat, requested     (emitted: whoever listens lets out what an entry releases)
//
// When the domain is handed over three more captures follow at once, and then the last: the domain stands still behind it,
// and the loop rests until it is left.
//
// The loop is pulled, never pushed: nothing waits in a queue while a checkpoint is under way.

import {
  BehaviorSubject,
  EMPTY,
  NEVER,
  combineLatest,
  concat,
  defer,
  distinctUntilChanged,
  filter,
  map,
  merge,
  observeOn,
  of,
  queueScheduler,
  repeat,
  startWith,
  switchMap,
  take,
  takeUntil,
  takeWhile,
  tap,
  throwError,
  timer,
  type Observable,
  type TimestampProvider,
} from 'rxjs';
import { ChannelError } from '../channel/contract.js';
import {
  enter,
  isHandedOver,
  isNext,
  markOfNext,
  openLedger,
  owed,
  type Entry,
  type Ledger,
  type Mark,
} from './ledger.js';

export interface LoopSettings {
  /** From the capture of one epoch to the next pause: however long a pause was, the domain has its time. */
  readonly intervalMs: number;
  /** Epochs that may be captured and not acknowledged. */
  readonly windowEpochs: number;
  /** From an epoch's capture, or the acknowledgement of the one before, to its acknowledgement. */
  readonly acknowledgeTimeoutMs: number;
  /** This process was stopped if it notices nothing, not even its own beat, for longer. */
  readonly stallMs: number;
  /** As Ledger says; left out: not known. */
  readonly silenceMs?: number;
}

/** gone: the domain has shut down by itself, and only END can follow. */
export type CaptureStage = 'suspending' | 'stopping' | 'captured' | 'gone';

export interface LoopPorts {
  /**
   * Suspends, seals, copies, resumes. Says how far it is; completes when the domain runs on, or, behind the last one,
   * when that leaves.
   */
  capture(epoch: number, mark: Mark): Observable<CaptureStage>;
  /** Emits when END leaves, completes when it has left. */
  end(epoch: number): Observable<unknown>;
  readonly acknowledged$: Observable<number>;
  /** A checkpoint is wanted ahead of the interval. */
  readonly requested$: Observable<unknown>;
  /** The domain is to be handed over. */
  readonly handOver$: Observable<unknown>;
  readonly beat$: Observable<unknown>;
  /** Anything came from the secondary. */
  readonly heard$?: Observable<unknown>;
  /** The domain has shut down by itself. Replays. */
  readonly ended$: Observable<unknown>;
}

/**
 * Emits after each entry; completes when END is acknowledged. Errors: ChannelError BAD_MESSAGE or ACKNOWLEDGE_TIMEOUT, and
 * whatever capture and end fail with.
 */
export function checkpoints(
  ports: LoopPorts,
  { intervalMs, windowEpochs, acknowledgeTimeoutMs, stallMs, silenceMs }: LoopSettings,
  clock: TimestampProvider,
): Observable<Ledger> {
  return defer(() => {
    const ledger$ = new BehaviorSubject(openLedger(clock.now(), silenceMs));
    const next = () => ledger$.value.captured + 1;

    const due = (capturedAtMs: number) => after(capturedAtMs + intervalMs - clock.now());
    const again = (epoch: number) =>
      ledger$.pipe(
        filter(({ captured }) => captured === epoch),
        take(1),
        switchMap((ledger) =>
          isHandedOver(ledger)
            ? NEVER
            : combineLatest([due(ledger.capturedAtMs), ledger$]).pipe(
                filter(([isDue, now]) => isNext(now, isDue, windowEpochs)),
                take(1),
                takeUntil(ports.ended$),
              ),
        ),
        // A turn of its own: what an acknowledgement releases is let out before it makes room for the next capture.
        observeOn(queueScheduler),
      );
    const captured$ = defer(() => ports.capture(next(), markOfNext(ledger$.value))).pipe(
      repeat({ delay: (count) => again(count - 1) }),
      takeWhile((stage): stage is Exclude<CaptureStage, 'gone'> => stage !== 'gone'),
      map((kind): Entry => ({ kind, epoch: next() })),
    );
    const ending$ = defer(() => ports.end(next())).pipe(
      map((): Entry => ({ kind: 'ending', epoch: next() })),
    );

    const late$ = ledger$.pipe(
      map(owed),
      distinctUntilChanged(),
      switchMap((epoch) => (epoch === null ? NEVER : timer(acknowledgeTimeoutMs).pipe(map(() => epoch)))),
      switchMap((epoch) => throwError(() => notAcknowledged(epoch, acknowledgeTimeoutMs))),
    );
    return merge(
      ports.acknowledged$.pipe(map((epoch): Entry => ({ kind: 'acknowledged', epoch }))),
      ports.requested$.pipe(map((): Entry => ({ kind: 'requested' }))),
      ports.handOver$.pipe(map((): Entry => ({ kind: 'hand-over' }))),
      ports.beat$.pipe(map((): Entry => ({ kind: 'beat' }))),
      (ports.heard$ ?? EMPTY).pipe(map((): Entry => ({ kind: 'heard' }))),
      late$,
      concat(captured$, ending$),
    ).pipe(
      observeOn(queueScheduler),
      map((entry) => enter(ledger$.value, entry, clock.now(), stallMs)),
      tap((ledger) => ledger$.next(ledger)),
      takeWhile(({ endEpoch, acknowledged }) => acknowledged !== endEpoch, true),
    );
  });
}

/** Whether that is over: at once, and when it is; a timer takes its time. */
function after(delayMs: number): Observable<boolean> {
  return delayMs > 0
    ? timer(delayMs).pipe(
        map(() => true),
        startWith(false),
      )
    : of(true);
}

function notAcknowledged(epoch: number, limitMs: number): ChannelError {
  const message = `epoch ${epoch} was not acknowledged within ${limitMs} ms`;
  return new ChannelError('ACKNOWLEDGE_TIMEOUT', message, { epoch, limitMs });
}
