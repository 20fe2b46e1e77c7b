// The secondary's pipeline under virtual time, with everything around it played: what a transcript's commands do to it,
// and the lines that tell what it asked of its ports.
//
//   commands ─▶ dials, links, restorer, standbys, register, clock ─▶ secondary() ─▶ ports ─▶ lines

import {
  BehaviorSubject,
  EMPTY,
  NEVER,
  Observable,
  ReplaySubject,
  Subject,
  concatMap,
  defer,
  distinctUntilChanged,
  of,
  skip,
  type Subscriber,
} from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import {
  ChannelError,
  type ByeReason,
  type ChannelErrorCode,
  type LinkEvent,
  type SharedPoint,
} from '../../src/channel/contract.js';
import { RomulusError, codeOf } from '../../src/errors.js';
import type {
  CommitReport,
  DomainStatus,
  FailoverEvent,
  StandbyLossReport,
} from '../../src/report/reports.js';
import { RestoreError } from '../../src/restore/error.js';
import type { Committed, Received, RestoreOutcome } from '../../src/restore/steps.js';
import type { Fillable, Restorer, SecondaryPorts, StreamLink, Takeable } from '../../src/secondary/ports.js';
import type { StreamProgress } from '../../src/secondary/restore-news.js';
import { secondary } from '../../src/secondary/secondary.js';
import {
  initialSecondaryState,
  secondaryLinkState,
  type Effect,
  type Held,
  type SecondaryEvent,
  type SecondarySettings,
  type SecondaryState,
} from '../../src/secondary/vigil-state.js';
import { Work } from '../../src/flow/work.js';
import { log } from '../service/world.js';

const settings: SecondarySettings = { reconnectWindowMs: 300, redialMinMs: 50, redialMaxMs: 2000 };

const LATER_MS = 0.001; // after what is due at the same time

/** What comes of each command. */
export function playSecondary(commands: readonly string[]): string[][] {
  const lines: string[][] = [];
  const scheduler = new TestScheduler(() => undefined);
  scheduler.run(() => {
    const played = new VirtualSecondary(scheduler, commands[0] ?? '');
    let atMs = 0;
    for (const command of commands) {
      scheduler.schedule(() => {
        lines.push((played.lines = []));
        played.obey(command);
      }, atMs);
      const [, waitMs] = /^wait (\d+)$/.exec(command) ?? [];
      if (waitMs !== undefined) atMs += Number(waitMs) + LATER_MS;
    }
    scheduler.schedule(() => played.end(), atMs);
  });
  return lines;
}

class VirtualSecondary {
  lines: string[] = [];

  readonly #events$ = new Subject<SecondaryEvent>();
  readonly #spareEnded$ = new Subject<string>();
  readonly #links = new Map<string, StreamLink>();
  readonly #linkEvents = new Map<string, Subject<LinkEvent>>();
  readonly #running;
  #state: SecondaryState = initialSecondaryState(settings);
  #stalledMs = 0;
  /** What is spread least is not spread at all. */
  #random = 1;
  #standstillMs = 0;
  /** Whoever waits for the dial, the restorer, the witness and the standby that are under way. */
  #dialling: Subscriber<StreamLink> | null = null;
  #receiving: Subscriber<Received> | null = null;
  #asking: Subscriber<'granted' | 'denied'> | null = null;
  #starting: Subscriber<void> | null = null;
  #fillFailure: string | null = null;
  #unusableBack = 0;
  #epochsBack = 0;
  /** What was received last. */
  #open = { epoch: -1, end: false, handOver: false };
  #committed = -1;
  #resumed = false;
  /** A commit lasts until it is said that it is over. */
  #slow = false;
  #committing: Subscriber<void> | null = null;
  #handedOver = false;

  /** `first`: the first command, which may be about the settings. */
  constructor(scheduler: TestScheduler, first: string) {
    const clock = { now: () => scheduler.now() + this.#stalledMs };
    const [, window] = /^with a reconnect window of (\d+)$/.exec(first) ?? [];
    const [, random] = /^with dials spread by ([\d.]+)$/.exec(first) ?? [];
    if (random !== undefined) this.#random = Number(random);
    const set = {
      ...settings,
      ...(window !== undefined && { reconnectWindowMs: Number(window) }),
    };
    this.#running = secondary(this.#ports(), set, clock).subscribe(([state]) => (this.#state = state));
  }

  end(): void {
    this.#dialling = null;
    this.#running.unsubscribe();
  }

  obey(command: string): void {
    const [what = '', second = '', third = ''] = command.replace(':', '').split(' ');
    const rest = command.slice(command.indexOf(': ') + 2);
    const [, back = '0'] = / (\d+) back/.exec(command) ?? [];
    const obeyed: Readonly<Record<string, () => void>> = {
      with: () => undefined,
      given: () => this.#given(rest),
      start: () => this.#events$.next({ kind: 'start' }),
      stop: () => this.#events$.next({ kind: 'stop' }),
      wait: () => undefined,
      stall: () => (this.#stalledMs += Number(second)),
      link: () => this.#link(second, command),
      refuse: () => this.#refuse(second),
      lost: () => this.#lose(second, third),
      'handed-over': () =>
        this.#linkEvents.get(second)?.next({ kind: 'handed-over', epoch: this.#open.epoch }),
      bye: () => this.#linkEvents.get(second)?.next({ kind: 'bye', reason: third as ByeReason }),
      committed: () => this.#answer(this.#committing, undefined),
      whole: () => {
        this.#slow = command.includes('slow');
        this.#receive({ kind: 'checkpoint', epoch: Number(second) }, Number(back), third === 'the');
      },
      END: () => this.#receive({ kind: 'end', epochs: Number(second) }),
      broken: () => this.#receive({ kind: 'broken', cause: second === '' ? null : failure(second) }),
      fails: () => this.#receiving?.error(failure(second)),
      granted: () => this.#answer(this.#asking, 'granted'),
      denied: () => this.#answer(this.#asking, 'denied'),
      unanswered: () => this.#asking?.error(new Error('the witness is out of reach')),
      runs: () => this.#started(Number(back)),
      'does-not-start': () => this.#started(Number(back), second),
      'no-domain': () => this.#noDomain(second),
      held: () => this.#events$.next({ kind: 'held-ended', reason: rest }),
      filling: () => this.#events$.next({ kind: 'filling-ended', reason: rest }),
      spare: () => this.#spareEnded$.next(rest),
    };
    if (!(what in obeyed)) throw new Error(`no such command: ${command}`);
    obeyed[what]?.();
  }

  /** Where many scenes begin; nothing is said of the way there. */
  #given(what: string): void {
    const commands = ['start', 'link A', 'whole 0', 'whole 1', 'whole 2'];
    const failover = ['lost A LINK_CLOSED', 'broken', 'refuse REFUSED', 'granted'];
    if (what !== 'A is held as of 2') commands.push(...failover);
    for (const command of commands) this.obey(command);
    this.lines.length = 0;
  }

  #say(line: string): void {
    this.lines.push(line);
  }

  #link(streamUuid: string, command: string): void {
    const [, standstill = '0'] = /standstill (\d+)/.exec(command) ?? [];
    const [, host = 'north'] = /of (\w+)/.exec(command) ?? [];
    this.#standstillMs = Number(standstill);
    const continuous = command.includes('continuous');
    const resumes = command.includes('resumes');
    // As a primary answers: what is continuous goes by the pairing that is held already.
    const pairing = (continuous ? this.#state.held?.pairing : undefined) ?? streamUuid;
    const events$ = new ReplaySubject<LinkEvent>();
    this.#linkEvents.set(streamUuid, events$);
    const link: StreamLink = {
      ...{ source: {} as StreamLink['source'], bufferedBytes: 0, peer: '' },
      welcome: { streamUuid, continuous, resumes, host, pairing } as StreamLink['welcome'],
      events$,
      boundary: () => of({ ...this.#open, bytes: 1, digest: 1n, outputBytes: 0, trial: false }),
      acknowledge: (epoch) => {
        this.#say(`link ${streamUuid}: acknowledge ${epoch}`);
        return of(undefined);
      },
      sumsWanted$: NEVER,
      answerSums: () => undefined,
      durable: () => undefined,
      bye: (reason) => {
        this.#say(`link ${streamUuid}: bye ${reason}`);
        return of(true);
      },
      destroy: (error) => {
        this.#say(`link ${streamUuid}: drop ${error.code}`);
        this.#lose(streamUuid, error.code);
      },
    };
    const dialling = this.#dialling;
    this.#dialling = null;
    this.#answer(dialling, link);
  }

  #refuse(code: string): void {
    const dialling = this.#dialling;
    this.#dialling = null;
    dialling?.error(new ChannelError(code as ChannelErrorCode, 'refused'));
  }

  #lose(streamUuid: string, code: string): void {
    const events$ = this.#linkEvents.get(streamUuid);
    events$?.next({ kind: 'lost', error: new ChannelError(code as ChannelErrorCode, code) });
    events$?.complete();
  }

  #receive(received: Received, back = 0, handOver = false): void {
    this.#unusableBack = back;
    if (received.kind === 'checkpoint') this.#open = { epoch: received.epoch, end: false, handOver };
    if (received.kind === 'end') this.#open = { epoch: received.epochs, end: true, handOver };
    const receiving = this.#receiving;
    this.#receiving = null;
    this.#answer(receiving, received);
  }

  #answer<T>(waiting: Subscriber<T> | null, answer: T): void {
    waiting?.next(answer);
    waiting?.complete();
  }

  #started(epochsBack: number, code?: string): void {
    this.#epochsBack = epochsBack;
    if (code === undefined) this.#answer(this.#starting, undefined);
    else this.#starting?.error(failure(code));
  }

  /** The first one, ahead; or the next one to be filled. */
  #noDomain(code: string): void {
    if (this.#state.dials === 0) this.#events$.next({ kind: 'domain-failed', code });
    else this.#fillFailure = code;
  }

  #transition(reason: string): void {
    this.#say(`report: ${this.#state.role}, ${secondaryLinkState(this.#state)}: ${reason}`);
  }

  #failover(event: FailoverEvent): void {
    const { phase, streamUuid, epoch, reason } = event;
    const why = event.phase === 'failed' ? `, ${event.error.code}` : '';
    this.#say(`report: failover ${phase}: ${streamUuid} ${epoch}, ${reason}${why}`);
  }

  #ports(): SecondaryPorts {
    const losses$ = new Subject<StandbyLossReport>();
    losses$.subscribe(({ was, reason }) => this.#say(`report: standby lost (${was}): ${reason}`));
    const failover$ = new Subject<FailoverEvent>();
    failover$.subscribe((event) => this.#failover(event));
    const error$ = new BehaviorSubject<DomainStatus['error']>(null);
    error$.pipe(distinctUntilChanged(), skip(1)).subscribe((error) => {
      this.#say(error === null ? 'mended' : `to be mended: ${error.code}`);
    });
    const changed = (line: string) => () => {
      this.#say(line);
      return EMPTY;
    };
    const standby: Fillable = { restore: () => NEVER, occupied: (work$) => work$ };
    return {
      ...{
        name: 'web',
        log,
        work: new Work(() => undefined),
        links: this.#links,
        error$,
        losses$,
        failover$,
      },
      stream$: new BehaviorSubject<StreamProgress | null>(null),
      commits$: new Subject<CommitReport>(),
      events$: this.#events$,
      spareEnded$: this.#spareEnded$,
      dial: (effect) => this.#dial(effect),
      standstillMs: () => this.#standstillMs,
      fill: (resumes) => {
        this.#resumed = resumes;
        if (resumes) {
          this.#say('standby: go on in the one that is kept');
          return of(standby);
        }
        const code = this.#fillFailure;
        this.#fillFailure = null;
        if (code !== null) throw failure(code);
        this.#say('standby: fill');
        return of(standby);
      },
      openRestore: () => of(this.#steps()),
      adopt: changed('standby: hold the filled one'),
      discard: (was) => {
        const named = { filling: 'the filled one', held: 'the held one', spare: 'the spare' };
        this.#say(`standby: destroy ${named[was]}`);
        return EMPTY;
      },
      acquire: ({ streamUuid, epoch, owner, pairing }, handedOver) => {
        const of = `${owner} and by pairing ${pairing}`;
        this.#handedOver = handedOver;
        this.#say(`register: ask, for ${streamUuid} ${epoch} of ${of}${handedOver ? ', handed over' : ''}`);
        return new Observable((subscriber) => (this.#asking = subscriber));
      },
      foresee: () => this.#say('register: read ahead'),
      confirm: () => {
        if (!this.#handedOver) return of('granted' as const);
        this.#say('register: confirm');
        return new Observable((subscriber) => (this.#asking = subscriber));
      },
      held: () => this.#takeable(),
      failed: (error) => error$.next({ code: codeOf(error), message: error.message }),
      transition: (reason) => this.#transition(reason),
      finished: () => this.#say('report: finished'),
      random: () => this.#random,
    };
  }

  #dial({ held, shared }: Effect<'dial'>): Observable<StreamLink> {
    const named = (point: Held | SharedPoint) => `${point.streamUuid} ${point.epoch}`;
    const holds = `dial: holds ${held === null ? 'nothing' : named(held)}`;
    if (held === null && shared !== null) this.#say(`${holds}, keeps ${named(shared)}`);
    else this.#say(holds);
    return new Observable((subscriber) => {
      this.#dialling = subscriber;
      return () => {
        // One that has ended was forgotten before.
        if (this.#dialling !== subscriber) return;
        this.#dialling = null;
        this.#say('dial: give up');
      };
    });
  }

  #steps(): Restorer {
    this.#committed = -1;
    const asOf = (epoch: number): RestoreOutcome => ({ kind: 'failover', epoch });
    return {
      receive: () => new Observable<Received>((subscriber) => void (this.#receiving = subscriber)),
      commit: () => {
        const { epoch } = this.#open;
        this.#say(`restorer: commit ${epoch}`);
        const committed = defer(() => of(this.#commit(epoch)));
        if (!this.#slow) return committed;
        return new Observable<void>((subscriber) => void (this.#committing = subscriber)).pipe(
          concatMap(() => committed),
        );
      },
      breakOff: (cause) => {
        if (this.#committed < 0 && !this.#resumed)
          throw cause ?? new RestoreError('NO_CONSISTENT_CHECKPOINT', 'none');
        return of(cause === null ? asOf(this.#committed) : { ...asOf(this.#committed), cause });
      },
      complete: () => of<RestoreOutcome>({ kind: 'complete', epochs: this.#committed + 1 }),
      close: (error) => of(error),
    };
  }

  #commit(epoch: number): Committed {
    const back = this.#unusableBack;
    if (back > 0) {
      const cause = failure('BAD_CONTEXT');
      return { kind: 'unusable', outcome: { kind: 'failover', epoch: epoch - back, cause } };
    }
    this.#committed = epoch;
    const counts = { records: 1, pages: 1, bufferedBytes: 1, applySeconds: 0 };
    return { kind: 'applied', applied: { epoch, ...counts } };
  }

  #takeable(): Takeable {
    const epochsBack = () => this.#epochsBack;
    return {
      speak: () => of(undefined),
      start: () => {
        this.#say('standby: take over');
        return new Observable<void>((subscriber) => void (this.#starting = subscriber));
      },
      domain: {
        get checkpointsBack() {
          return epochsBack();
        },
        announce: () => {
          this.#say('standby: announce');
          return EMPTY;
        },
      },
    };
  }
}

function failure(code: string): RomulusError {
  return new RomulusError(code, `because of ${code}`);
}
