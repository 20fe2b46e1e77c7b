// The domains of the secondary. Each has a gate, which holds until the domain is taken over.
//
//   spare ──fill──▶ filling ──adopt──▶ held ──▶ destroyed, or taken over
//
// spare: made ahead. filling: a stream is being restored into it and has no whole checkpoint yet. held: what to fail
// over to; the stream may go on into it. While a new stream fills one, an older one may still be held.
//
// A domain may end by itself in any of these states: whoever decides is told which, and has it destroyed. What a domain
// gets over by itself is logged.

import {
  BehaviorSubject,
  EMPTY,
  Subscription,
  defer,
  finalize,
  repeat,
  switchMap,
  timer,
  type Observable,
} from 'rxjs';
import { withinAwake } from '../flow/awake.js';
import { Work } from '../flow/work.js';
import type { DiskTarget } from '../hypervisor/port-disks.js';
import { HypervisorError, type DomainEvent, type TargetDomain } from '../hypervisor/port.js';
import { ByteGate } from '../output/byte-gate.js';
import { FreshOutlet } from '../output/fresh-outlet.js';
import type { Outlet } from '../output/outlet.js';
import { consoleReports, LAST_OUTPUT_MS } from '../output/console.js';
import { DomainStop } from '../hypervisor/standstill.js';
import type { Estate } from '../report/estate.js';
import type { Logger } from '../report/log.js';
import type { StandbyState } from '../report/reports.js';
import type { RestoreSteps } from '../restore/steps.js';
import type { RecordSource } from '../stream/flow.js';
import type { Tap } from '../output/tap.js';

export interface StandbyOptions {
  readonly open: () => Promise<TargetDomain>;
  readonly console: Outlet;
  readonly tap: Tap | null;
  /** Octets of output held beyond which a domain that runs is stopped until some are out. */
  readonly limitBytes: number;
  /** A domain has ended by itself. What is taken over is `held` still. */
  readonly ended: (was: StandbyState, event: DomainEvent) => void;
  /** Somebody has stopped what is `held`, or lets it run again; or what it holds changes in that. */
  readonly stopped: () => void;
  /** How long one that is to be opened waits for the end of those before it. */
  readonly endLimitMs?: number;
  readonly log: Logger;
}

/** Somebody else may let a domain run that stands still for its console: it is stopped again after at most so long. */
const STOP_AGAIN_MS = 250;
const END_TIMEOUT_MS = 10_000;

export class Standby {
  readonly gate: ByteGate;
  /** How it ended by itself. */
  end: DomainEvent | null = null;
  /** By what it was stopped, if not by us; before it runs: on the primary. */
  stoppedBy: string | null = null;
  readonly #subscriptions: Subscription;
  readonly #feed: Subscription;
  readonly #outlet: FreshOutlet;
  readonly #console: Outlet;
  readonly #tap: Tap | null;
  #restorer: RestoreSteps | null = null;
  /** Resolves when the restorer is done with the domain. */
  #restored: Promise<void> = Promise.resolve();
  readonly #stop: DomainStop;
  readonly #log: Logger;
  readonly #work: Work;

  constructor(
    readonly domain: TargetDomain,
    { console, tap, limitBytes, log }: StandbyOptions,
    on: {
      readonly ended: (standby: Standby, event: DomainEvent) => void;
      readonly stopped: (standby: Standby) => void;
    },
  ) {
    this.#console = console;
    this.#tap = tap;
    this.#outlet = new FreshOutlet(console);
    this.gate = new ByteGate({ outlet: this.#outlet, limitBytes, ...consoleReports(log) });
    this.#log = log;
    this.#work = new Work((err, what) => log.warn({ err }, `could not ${what}`));
    this.#stop = new DomainStop(domain);
    this.#feed = domain.output$.subscribe((bytes) => {
      tap?.push(bytes);
      this.gate.push(bytes);
    });
    this.#subscriptions = new Subscription();
    this.#subscriptions.add(
      domain.stoppedBy$?.subscribe((stoppedBy) => {
        if (stoppedBy === this.stoppedBy) return;
        this.stoppedBy = stoppedBy;
        if (stoppedBy === null) log.info('the domain runs');
        else log.warn({ stoppedBy }, `the domain was stopped (${stoppedBy}), and is not let run by us`);
        on.stopped(this);
      }),
    );
    this.#subscriptions.add(
      domain.events$.subscribe((event) => {
        this.end = event;
        on.ended(this, event);
      }),
    );
    this.#subscriptions.add(domain.warnings$?.subscribe((warning) => log.warn(warning)));
  }

  /**
   * Waits for the stream's headers. The restorer that the domain has had before goes on with the stream; else `open` makes one.
   * @throws as openRestore(), or RestoreSteps.resume()
   */
  async restore(
    source: RecordSource,
    streamUuid: string,
    open: (domain: TargetDomain) => Promise<RestoreSteps>,
  ): Promise<RestoreSteps> {
    if (this.#restorer) await this.#restorer.resume(source, streamUuid);
    else this.#restorer = await open(this.domain);
    return this.#restorer;
  }

  /** What fills it, or did; null: nothing yet. */
  get restorer(): RestoreSteps | null {
    return this.#restorer;
  }

  /** The restorer's work on the domain: it is not destroyed before that is done. */
  occupied<T>(work$: Observable<T>): Observable<T> {
    return defer(() => {
      let done: () => void = () => undefined;
      this.#restored = new Promise((resolve) => (done = resolve));
      return work$.pipe(finalize(() => done()));
    });
  }

  /** It runs from now on, unheard. If it does not start, it may be tried again. @throws as start() of the domain */
  async start(): Promise<void> {
    await this.domain.start();
  }

  /** The world hears it, and it stands still while its console does not take what it says. */
  async speak(): Promise<void> {
    await this.gate.pass();
    this.#subscriptions.add(
      this.gate.pressure$.pipe(switchMap((on) => (on ? this.#standStill() : this.#goOn()))).subscribe(),
    );
  }

  /** What was taken over is somebody else's from now on. @throws HypervisorError UNSUPPORTED, or as resume() */
  async bequeath(): Promise<Estate> {
    this.#subscriptions.unsubscribe();
    await this.#stop.remove('pressure');
    return {
      domain: this.domain.source(),
      gate: this.gate,
      feed: this.#feed,
      outlet: this.#outlet,
      console: this.#console,
      tap: this.#tap,
    };
  }

  async destroy(): Promise<void> {
    await this.#restored;
    this.#subscriptions.unsubscribe();
    this.#feed.unsubscribe();
    await this.domain.destroy();
    const unsaidBytes = await this.gate.end(LAST_OUTPUT_MS);
    if (unsaidBytes > 0) this.#log.warn({ unsaidBytes }, 'the console did not take the end of the output');
  }

  /** Again and again, until it goes on or has ended. */
  #standStill(): Observable<never> {
    this.#log.warn({ heldBytes: this.gate.heldBytes }, 'output over its limit: domain stopped');
    return this.#work
      .attempt('stop the domain', () => this.#stop.add('pressure'))
      .pipe(repeat({ delay: () => (this.end === null ? timer(STOP_AGAIN_MS) : EMPTY) }));
  }

  #goOn(): Observable<never> {
    return this.#work.attempt('let the domain go on', () => this.#stop.remove('pressure'));
  }
}

export class Standbys {
  /** The domain of the stream at hand, or of the next one; null: it is still to be made. */
  readonly domain$ = new BehaviorSubject<TargetDomain | null>(null);
  readonly #now: Record<StandbyState, Standby | null> = { spare: null, filling: null, held: null };
  /** What is being destroyed: it may still have what only one can have. */
  readonly #ending = new Set<Promise<void>>();
  #closed = false;
  readonly #options: StandbyOptions;

  constructor(options: StandbyOptions) {
    this.#options = options;
  }

  get held(): Standby | null {
    return this.#now.held;
  }

  /** The images of the domain at hand; null: none are replicated, or there is no domain now. */
  get disks(): DiskTarget | null {
    return this.domain$.value?.disks ?? null;
  }

  /**
   * Makes the spare.
   * @throws as openTarget, or HypervisorError DOMAIN_GONE if the domain has ended already
   */
  async prepare(): Promise<TargetDomain> {
    const spare = await this.#make();
    this.#set('spare', spare);
    return requireAlive(spare).domain;
  }

  /**
   * The domain for a new stream: the spare, or one made now.
   * @throws as prepare()
   */
  async fill(): Promise<Standby> {
    const filling = this.#take('spare') ?? (await this.#make());
    this.#set('filling', filling);
    return requireAlive(filling);
  }

  /**
   * The one that is held, or was, for a stream that goes on from what is in it.
   * @throws HypervisorError DOMAIN_GONE
   */
  kept(): Standby {
    const { held } = this;
    if (held === null) throw new HypervisorError('DOMAIN_GONE', 'there is no standby to go on with');
    return requireAlive(held);
  }

  /** The one being filled is held from now on; resolves when the one held before is destroyed. */
  async adopt(): Promise<void> {
    const before = this.held;
    const { filling } = this.#now;
    this.#now.filling = null;
    this.#set('held', filling);
    await this.#destroy(before);
  }

  /** What was held, and taken over, is not ours any more. */
  async bequeath(): Promise<Estate> {
    const held = this.#take('held');
    if (!held) throw new HypervisorError('WRONG_STATE', 'nothing was taken over');
    return held.bequeath();
  }

  /** Resolves when it is destroyed. */
  discard(was: StandbyState): Promise<void> {
    return this.#destroy(this.#take(was));
  }

  /** From now on no domain is made; one that is being made is destroyed when it is there. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.discard('spare');
  }

  async #make(): Promise<Standby> {
    // What only one can have stays with the one that is held.
    const domain = await (this.held?.domain.another?.() ?? this.#open());
    if (this.#closed) {
      await domain.destroy();
      throw new HypervisorError('DOMAIN_GONE', 'the standby came too late');
    }
    return new Standby(domain, this.#options, {
      ended: (standby, event) => this.#ended(standby, event),
      stopped: (standby) => {
        if (standby === this.held) this.#options.stopped();
      },
    });
  }

  /**
   * When those before it have ended.
   * @throws HypervisorError FAILED if they do not in time, or as `open`
   */
  async #open(): Promise<TargetDomain> {
    const { open, endLimitMs = END_TIMEOUT_MS } = this.#options;
    if (this.#ending.size === 0) return open();
    const message = 'the standby before this one does not end';
    const late = () => new HypervisorError('FAILED', message, { endLimitMs });
    await withinAwake(endLimitMs, Promise.all(this.#ending), late);
    return open();
  }

  async #destroy(standby: Standby | null): Promise<void> {
    if (standby === null) return;
    const destroyed = standby.destroy();
    const ending = destroyed.catch(() => undefined); // told to the caller
    this.#ending.add(ending);
    await ending;
    this.#ending.delete(ending);
    await destroyed;
  }

  #ended(standby: Standby, event: DomainEvent): void {
    for (const was of ['held', 'filling', 'spare'] as const) {
      if (standby === this.#now[was]) this.#options.ended(was, event);
    }
    // Else it is being destroyed, or has ended before it was anything: see requireAlive().
  }

  #take(was: StandbyState): Standby | null {
    const standby = this.#now[was];
    this.#set(was, null);
    return standby;
  }

  #set(state: StandbyState, standby: Standby | null): void {
    this.#now[state] = standby;
    const { spare, filling, held } = this.#now;
    const domain = (filling ?? held ?? spare)?.domain ?? null;
    if (domain !== this.domain$.value) this.domain$.next(domain);
  }
}

function requireAlive(standby: Standby): Standby {
  if (standby.end === null) return standby;
  throw new HypervisorError('DOMAIN_GONE', `the standby has ended already: ${reasonOf(standby.end)}`);
}

export function reasonOf(event: DomainEvent): string {
  return event.kind === 'crashed' ? event.reason : 'it shut down';
}
