// The primary's pipeline under virtual time, with everything around it played: what a transcript's commands do to it, and
// the lines that tell what it asked of its ports.
//
//   commands ─▶ links, domain, saver, register, clock ─▶ primary() ─▶ ports ─▶ lines

import {
  BehaviorSubject,
  EMPTY,
  Observable,
  ReplaySubject,
  Subject,
  defer,
  interval,
  map,
  of,
  share,
  type Subscriber,
} from 'rxjs';
import { TestScheduler } from 'rxjs/testing';
import {
  ChannelError,
  type ByeReason,
  type ChannelErrorCode,
  type LinkEvent,
} from '../../src/channel/contract.js';
import { RomulusError } from '../../src/errors.js';
import { mandateOf, type Pairing } from '../../src/failover/mandate.js';
import { written, type Register, type RegisterWrite } from '../../src/failover/register.js';
import { ofKind } from '../../src/flow/of-kind.js';
import type { CaptureStage } from '../../src/primary/checkpoints.js';
import {
  birth,
  linkStateOf,
  type HandOverOutcome,
  type LifeEvent,
  type LifeState,
} from '../../src/primary/life-state.js';
import { primary, type PrimaryPorts } from '../../src/primary/primary.js';
import type { StreamLink } from '../../src/primary/stream.js';

const BEAT_MS = 100;
const STALL_MS = 500;
const HAND_OVER_MS = 2000;
const HERE = 'north';
const ALONE: Register = {
  ...{ generation: 1, mode: 'alone', owner: HERE, standby: null, stream: null, token: 'boot' },
};
const PAIRED: Register = { ...ALONE, mode: 'paired', standby: 'south', stream: 'O', token: 'before' };

/** After what is due at the same time. */
const LATER_MS = 0.001;

type LinkEvents = Subject<LinkEvent>;

/** What comes of each command; `looked`: what has become of the domain then. */
export function playPrimary(
  commands: readonly string[],
  looked: (state: LifeState) => void = () => undefined,
): string[][] {
  const lines: string[][] = [];
  const scheduler = new TestScheduler(() => undefined);
  scheduler.run(() => {
    const played = new VirtualPrimary(scheduler, commands[0] ?? '');
    let atMs = 0;
    for (const command of commands) {
      scheduler.schedule(() => {
        lines.push((played.lines = []));
        played.obey(command);
      }, atMs);
      const [, waitMs] = /^wait (\d+)$/.exec(command) ?? [];
      if (waitMs !== undefined) atMs += Number(waitMs) + LATER_MS;
      scheduler.schedule(() => looked(played.state), atMs);
    }
    scheduler.schedule(() => played.end(), atMs);
  });
  return lines;
}

class VirtualPrimary {
  lines: string[] = [];

  readonly #scheduler: TestScheduler;
  readonly #state$: BehaviorSubject<LifeState>;
  readonly #events$ = new Subject<LifeEvent>();
  readonly #links$ = new Subject<StreamLink>();
  readonly #requested$ = new Subject<void>();
  readonly #handOver$ = new Subject<void>();
  #handOvers = 0;
  readonly #pressure$ = new Subject<boolean>();
  readonly #ended$ = new ReplaySubject<void>();
  readonly #links = new Map<string, LinkEvents>();
  readonly #running;
  /** Whoever waits for the capture, or END, that is under way, and for the saver to let go. */
  #stages: Subscriber<CaptureStage> | null = null;
  #suspending = false;
  #ending: Subscriber<unknown> | null = null;
  /** The writes whose outcome is not known; one is under way at a time. */
  #asking: { readonly write: RegisterWrite; readonly answer: Subscriber<LifeEvent> } | null = null;
  #closing: Subscriber<never> | null = null;
  readonly #slow: boolean;
  /** Each write waits for a command that answers it; else only one that says that nobody stands by. */
  readonly #isAsked: boolean;
  #stalledMs = 0;

  /** `settings`: the first command, if it is one of them. */
  constructor(scheduler: TestScheduler, settings: string) {
    this.#scheduler = scheduler;
    const has = (word: string) => settings.startsWith('with ') && settings.includes(word);
    const [, window = '1'] = /^with .*window (\d+)/.exec(settings) ?? [];
    this.#slow = has('a slow saver');
    this.#isAsked = has('the register');
    const born = birth(
      {
        startWithStandby: has('its standby'),
        stallMs: STALL_MS,
        standstill: has('shared disks') ? { silenceMs: 1000 } : null,
        handOverTimeoutMs: HAND_OVER_MS,
      },
      this.#now(),
      mandateOf(HERE, 'n', has('the register paired') ? PAIRED : ALONE),
    );
    const loop = {
      intervalMs: 50,
      windowEpochs: Number(window),
      acknowledgeTimeoutMs: 5000,
      stallMs: STALL_MS,
    };
    this.#state$ = new BehaviorSubject(born);
    this.#running = primary(this.#ports(), loop, this.#state$, { now: () => this.#now() }).subscribe();
  }

  get state(): LifeState {
    return this.#state$.value;
  }

  end(): void {
    this.#running.unsubscribe();
  }

  obey(command: string): void {
    const words = command.split(' ');
    const [first = '', second = '', third = ''] = words;
    const rest = words.slice(2).join(' ');
    const link = this.#links.get(first);
    if (link) this.#heard(first, link, second, rest);
    else if (first === 'saver') this.#saverDoes(second, third);
    else if (first === 'domain') this.#domainDoes(second, rest);
    // A link that was never made says nothing.
    else if (first === 'register') this.#answers(third);
    else if (!/^[A-Z]$/.test(first)) this.#happens(first, command);
  }

  #happens(first: string, command: string): void {
    const [, second = ''] = command.split(' ');
    const happenings: Record<string, () => void> = {
      with: () => undefined,
      wait: () => undefined,
      start: () => {
        const orphaned = command.includes('orphaned');
        this.#events$.next({ kind: 'start', orphaned, running: command.includes('running') });
      },
      link: () => {
        const events$: LinkEvents = new Subject();
        this.#links.set(second, events$);
        this.#links$.next({ streamUuid: second, pairing: this.#pairingOf(second, command), events$ });
      },
      request: () => this.#requested$.next(),
      hand: () => {
        const [, to = null] = /^hand over to (\w+)$/.exec(command) ?? [];
        this.#events$.next({ kind: 'hand-over', id: ++this.#handOvers, to });
      },
      pressure: () => this.#pressure$.next(second === 'on'),
      stop: () => this.#events$.next({ kind: 'stop' }),
      goodbye: () => {
        const confirmed = command.endsWith('confirmed');
        this.#events$.next({ kind: 'goodbye', streamUuid: second, confirmed });
      },
      stall: () => (this.#stalledMs += Number(second)),
    };
    const happening = happenings[first];
    if (!happening) throw new Error(`no such command: ${command}`);
    happening();
  }

  /** As welcome.ts has it: what is continuous goes by the pairing before. */
  #pairingOf(streamUuid: string, command: string): Pairing {
    const [, standby = 'south'] = /of (\w+)/.exec(command) ?? [];
    const { register, asking } = this.state.mandate;
    const before = register.stream ?? asking?.claim.stream;
    return { standby, stream: (command.includes('continuous') ? before : null) ?? streamUuid };
  }

  #answers(outcome: string): void {
    const asking = this.#asking;
    this.#asking = null;
    if (!asking) return;
    const { write, answer } = asking;
    const mine = written(write);
    const alone = { mode: 'alone', standby: null, stream: null } as const;
    const before = write.expected;
    const claimed = { mode: 'paired', standby: HERE, stream: before?.stream ?? null } as const;
    const claim = outcome === 'claimed' ? claimed : alone;
    const theirs: Register = { ...mine, ...claim, owner: 'south', token: 'theirs' };
    const won = outcome === 'won';
    answer.next({ kind: 'answered', token: write.token, won, register: won ? mine : theirs });
    answer.complete();
  }

  #heard(streamUuid: string, link: LinkEvents, what: string, detail: string): void {
    if (what === 'heard') link.next({ kind: 'heard' });
    else if (what === 'acknowledges') link.next({ kind: 'acknowledged', epoch: this.#epochOf(detail) });
    else if (what === 'bye') link.next({ kind: 'bye', reason: detail as ByeReason });
    else if (what === 'lost') this.#lose(streamUuid, channelError(detail));
    else throw new Error(`a link does not do that: ${what}`);
  }

  /** A number, or the next to be acknowledged. */
  #epochOf(word: string): number {
    return word === 'next' ? (this.state.stream?.acknowledged ?? -1) + 1 : Number(word);
  }

  #lose(streamUuid: string, error: ChannelError): void {
    this.#links.get(streamUuid)?.next({ kind: 'lost', error });
    this.#links.get(streamUuid)?.complete();
  }

  #saverDoes(what: string, code: string): void {
    const stages = this.#stages;
    if (what === 'suspends') this.#suspends();
    else if (what === 'captures') {
      this.#suspends();
      stages?.next('captured');
      stages?.complete();
    } else if (what === 'copies') {
      this.#suspends();
      stages?.next('captured');
    } else if (what === 'resumes') stages?.complete();
    else if (what === 'finds') {
      stages?.next('gone');
      stages?.complete();
    } else if (what === 'fails') (this.#ending ?? stages)?.error(new RomulusError(code, `${code} it is`));
    else if (what === 'lets') this.#closing?.complete();
    else throw new Error(`a saver does not do that: ${what}`);
  }

  #suspends(): void {
    if (!this.#suspending) for (const stage of ['suspending', 'stopping'] as const) this.#stages?.next(stage);
    this.#suspending = true;
  }

  #domainDoes(what: string, detail: string): void {
    if (what === 'shuts') {
      this.#events$.next({ kind: 'domain-shutdown' });
      this.#ended$.next();
    } else if (what === 'crashes:') this.#events$.next({ kind: 'domain-crashed', reason: detail });
    else if (what === 'fails:')
      this.#events$.next({ kind: 'domain-failed', code: detail, message: `${detail} it is` });
    else if (what === 'changes:') this.#events$.next({ kind: 'machine-changed', message: detail });
    else throw new Error(`a domain does not do that: ${what}`);
  }

  #now(): number {
    return this.#scheduler.now() + this.#stalledMs;
  }

  #does(line: string): Observable<never> {
    return defer(() => {
      this.lines.push(line);
      return EMPTY;
    });
  }

  #ports(): PrimaryPorts {
    const does = (line: string) => this.#does(line);
    const says = (line: string) => void this.lines.push(line);
    return {
      events$: this.#events$,
      links$: this.#links$,
      pressure$: this.#pressure$,
      requested$: this.#requested$,
      handOver$: this.#handOver$,
      beat$: interval(BEAT_MS).pipe(share()),
      ended$: this.#ended$,
      domain: {
        gate: (ask) => does(`gate: ${ask}`),
        start: () => does('domain: start'),
        halt: () => does('domain: halt'),
        unhalt: () => does('domain: go on'),
        pause: (again) => (again ? EMPTY : does('domain: pause')),
        unpause: () => does('domain: unpause'),
        expose: (on) => does(`hypervisor: ${on ? 'exposed' : 'not exposed'}`),
        handBack: () => does('domain: handed back'),
        outputLeaves: () => does('gate: all that was let out leaves'),
        letGo: (how, afterOutput) => does(`domain: let go, ${how}${afterOutput ? ', its output first' : ''}`),
      },
      write: (write) => {
        const { mode, standby, stream } = write.claim;
        says(`register: write ${mode}${mode === 'paired' ? `, ${standby} by ${stream}` : ''}`);
        if (!this.#isAsked && mode === 'paired')
          return of({ kind: 'answered', token: write.token, won: true, register: written(write) });
        return new Observable((answer) => {
          this.#asking = { write, answer };
        });
      },
      release: ({ epoch }) => says(`gate: release ${epoch}`),
      acknowledged: (streamUuid) => {
        const events$: StreamLink['events$'] = this.#links.get(streamUuid) ?? EMPTY;
        return events$.pipe(
          ofKind('acknowledged'),
          map(({ epoch }) => epoch),
        );
      },
      openSaver: (streamUuid) => ({
        capture: (epoch, mark) =>
          new Observable((stages) => {
            const marked = mark === null ? '' : `, the ${mark}`;
            says(`saver ${streamUuid}: capture ${epoch}${marked}`);
            this.#stages = stages;
            this.#suspending = false;
            this.#ending = null;
          }),
        end: (epoch) =>
          new Observable((ending) => {
            says(`saver ${streamUuid}: END ${epoch}`);
            this.#ending = ending;
            ending.next(epoch);
          }),
        report: (epoch) => says(`report: checkpoint ${epoch}`),
        close: () =>
          new Observable((closing) => {
            says(`saver ${streamUuid}: close`);
            this.#closing = closing;
            if (!this.#slow) closing.complete();
          }),
      }),
      link: {
        bye: (streamUuid, reason) => {
          says(`link ${streamUuid}: bye ${reason}`);
          return EMPTY;
        },
        handedOver: (streamUuid, epoch) => says(`link ${streamUuid}: handed over behind ${epoch}`),
        drop: (streamUuid, code, message) => {
          says(`link ${streamUuid}: drop ${code}: ${message}`);
          this.#lose(streamUuid, new ChannelError(code, message));
        },
      },
      host: {
        requestCheckpoint: () => this.#requested$.next(),
        handOver: () => this.#handOver$.next(),
        handOverSettled: (id, outcome) => says(`hand-over ${id}: ${told(outcome)}`),
        withdraw: () => says('offer: withdraw'),
        transition: (reason) => says(`report: ${this.state.role}, ${linkStateOf(this.state)}: ${reason}`),
        finished: () => says('report: finished'),
      },
    };
  }
}

/** The code, and for FENCED how long it took until the domain ran there. */
function channelError(detail: string): ChannelError {
  const [code = '', tookMs] = detail.split(' ');
  const facts = tookMs === undefined ? {} : { tookMs: Number(tookMs) };
  return new ChannelError(code as ChannelErrorCode, `${code} it is`, facts);
}

function told(outcome: HandOverOutcome): string {
  if (outcome.how !== 'done') return `${outcome.how}: ${outcome.message}`;
  const { standby, epoch, pauseMs } = outcome;
  return `done: ${standby} has it from epoch ${String(epoch)}, stood still for ${Math.round(pauseMs)} ms`;
}
