// One domain of the primary as its host sees it: made, offered to secondaries, started, asked how it is, stopped.
//
//   host ── open, offer, start, requestCheckpoint, stop ──▶ primary() ─▶ work.ts, links, reports
//        ◀─ status, finished ──────────────────────────────┘

import {
  BehaviorSubject,
  EMPTY,
  Subject,
  catchError,
  concat,
  defer,
  interval,
  map,
  of,
  share,
  type Observable,
  type Subscription,
} from 'rxjs';
import { ChannelError, type ByeReason, type DomainOffer, type PrimaryLink } from '../channel/contract.js';
import { beatMsOf, silenceMsOf, stallMsOf } from '../channel/link/heartbeat.js';
import { isAlone, type Mandate } from '../failover/mandate.js';
import type { Register, RegisterWrite } from '../failover/register.js';
import type { PrimaryDomainConfig } from '../config/agent.js';
import { sharesDisks } from '../config/hypervisor.js';
import { MONOTONIC, monotonicMs } from '../flow/clock.js';
import { ofKind } from '../flow/of-kind.js';
import type { Reloaded } from '../flow/reloaded.js';
import type { DiskEvent } from '../hypervisor/port-disks.js';
import type { DomainEvent, MachineChange } from '../hypervisor/port.js';
import type { PrimaryDependencies } from '../report/dependencies.js';
import type { Estate } from '../report/estate.js';
import type { Logger } from '../report/log.js';
import type {
  CheckpointReport,
  DomainStatus,
  SwitchoverReport,
  TransitionReport,
} from '../report/reports.js';
import type { LoopSettings } from './checkpoints.js';
import { HandOvers } from './hand-overs.js';
import { birth, linkStateOf, type LifeEvent, type LifeState } from './life-state.js';
import { OutputSays } from './output-says.js';
import { primary, type PrimaryPorts } from './primary.js';
import type { StreamLink } from './stream.js';
import { judgeHello } from './welcome.js';
import { DomainWork } from './work.js';
import { openWorld } from './world.js';

/** Where a domain reports to; shared by all domains of an agent. */
export interface PrimaryReports {
  readonly checkpoints$: Subject<CheckpointReport>;
  readonly transitions$: Subject<TransitionReport>;
}

/** Where the domain's owner stands in the register. */
export interface Office {
  /** Of this host. */
  readonly host: string;
  readonly mandate: Mandate;
  /** Writes until it is known what became of it. @throws if `signal` is aborted before: nobody knows then */
  settle(
    write: RegisterWrite,
    signal: AbortSignal,
  ): Promise<{ readonly won: boolean; readonly register: Register | null }>;
}

const STOP_TIMEOUT_MS = 5000;

export class PrimaryDomain {
  readonly name: string;
  readonly finished: Promise<void>;

  readonly #config: PrimaryDomainConfig;
  readonly #dependencies: PrimaryDependencies;
  readonly #reports: PrimaryReports;
  readonly #log: Logger;
  readonly #office: Office;
  readonly #left = new AbortController();
  readonly #work: DomainWork;
  readonly #state$: BehaviorSubject<LifeState>;
  readonly #events$ = new Subject<LifeEvent>();
  readonly #links$ = new Subject<StreamLink>();
  readonly #requested$ = new Subject<void>();
  readonly #handOver$ = new Subject<void>();
  readonly #handOvers: HandOvers;
  readonly #outputSays: OutputSays;
  readonly #pressure$ = new Subject<boolean>();
  readonly #links = new Map<string, PrimaryLink>();
  readonly #running: Subscription;
  #withdraw: (() => void) | null = null;
  #finish: () => void = () => undefined;
  #stoppedBy: string | null = null;
  #stopping: Promise<void> | null = null;

  constructor(
    config: PrimaryDomainConfig,
    dependencies: PrimaryDependencies,
    reports: PrimaryReports,
    log: Logger,
    office: Office,
  ) {
    this.name = config.name;
    this.#config = config;
    this.#dependencies = dependencies;
    this.#reports = reports;
    this.#log = log;
    this.#office = office;
    this.#work = new DomainWork(config, log);
    this.#handOvers = new HandOvers(config.name);
    this.#outputSays = new OutputSays(log);
    this.finished = new Promise((resolve) => (this.#finish = resolve));
    // The secondary takes over after heartbeat.timeoutMs of silence at the earliest.
    const { timeoutMs } = config.heartbeat;
    const stallMs = stallMsOf(timeoutMs);
    const { intervalMs, windowEpochs, acknowledgeTimeoutMs, switchoverTimeoutMs } = config.checkpoint;
    const silenceMs = silenceMsOf(config.heartbeat.intervalMs, timeoutMs);
    const settings: LoopSettings = { intervalMs, windowEpochs, acknowledgeTimeoutMs, stallMs, silenceMs };
    const born = birth(
      {
        startWithStandby: config.start === 'with-standby',
        stallMs,
        standstill: sharesDisks(config.hypervisor) ? { silenceMs: timeoutMs } : null,
        handOverTimeoutMs: switchoverTimeoutMs,
      },
      monotonicMs(),
      office.mandate,
    );
    this.#state$ = new BehaviorSubject(born);
    this.#running = primary(this.#ports(beatMsOf(timeoutMs)), settings, this.#state$, MONOTONIC).subscribe();
  }

  /** Makes the domain. If that fails, this domain has failed and the others go on. */
  async open(estate: Estate | null = null): Promise<void> {
    try {
      const hooks = {
        pressure: (on: boolean) => this.#pressure$.next(on),
        event: (event: DomainEvent) => this.#events$.next(lifeEventOf(event)),
        // What comes after a gap in time is found to do so with the next event.
        mayLeaveUntilMs: () => this.#state$.value.lastAtMs + this.#state$.value.settings.stallMs,
        machineChange: (change: MachineChange) => this.#machineChanged(change),
        stoppedBy: (stoppedBy: string | null) => this.#stoppedByOthers(stoppedBy),
        disk: (event: DiskEvent) => this.#ofDisks(event),
      };
      const { tasks } = this.#work;
      const world = await openWorld(this.#config, this.#dependencies, hooks, tasks, this.#log, estate);
      this.#work.made(world);
    } catch (error) {
      this.#events$.next(this.#work.failed(error, 'the domain cannot be made'));
    }
  }

  /** Offers the domain for protection: `offer` is the listener's. */
  offer(offer: (offer: DomainOffer) => () => void): void {
    if (this.#state$.value.role !== 'primary') return;
    this.#withdraw = offer({
      domain: this.name,
      secondaryNames: this.#config.secondaryNames,
      welcome: (hello) =>
        judgeHello(
          hello,
          this.#config,
          this.#work.world?.info,
          this.#state$.value,
          this.#office.host,
          this.#work.shared,
        ),
      linked: (link) => this.#linked(link),
    });
  }

  start(): void {
    const { domain, info } = this.#work.world ?? {};
    const orphaned = domain?.orphaned ?? false;
    this.#events$.next({ kind: 'start', orphaned, running: info?.state === 'running' });
    this.#outputSays.tell(this.#state$.value);
  }

  /** As it was written, or found, last. */
  get register(): Register {
    return this.#state$.value.mandate.register;
  }

  /** By the register nobody else may run it, nor ever took it over. */
  get isAlone(): boolean {
    return isAlone(this.#state$.value.mandate);
  }

  /** Opens the files of the domain's output anew. */
  async reload(): Promise<readonly Reloaded[]> {
    return (await this.#work.world?.reopen()) ?? [];
  }

  requestCheckpoint(): void {
    this.#requested$.next();
  }

  /**
   * The standby takes the domain over, if it is the host `to`, or whichever it is (null).
   * @throws as HandOvers.ask()
   */
  handOver(to: string | null): Promise<SwitchoverReport> {
    return this.#handOvers.ask((id) => this.#events$.next({ kind: 'hand-over', id, to }));
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  status(): DomainStatus {
    const state = this.#state$.value;
    const stream = state.stream ?? state.lastStream;
    const link = state.stream ? this.#links.get(state.stream.streamUuid) : undefined;
    return {
      domain: this.name,
      role: state.role,
      link: linkStateOf(state),
      peer: link?.peer ?? null,
      streamUuid: stream?.streamUuid ?? null,
      epochSeen: stream?.captured ?? -1,
      epochAcknowledged: stream?.acknowledged ?? -1,
      epochCommitted: -1,
      acknowledgedAtMs: state.acknowledgedAtMs,
      bufferedBytes: link?.bufferedBytes ?? 0,
      heldOutputBytes: this.#work.world?.gate.heldBytes ?? 0,
      ...this.#work.ofDisks(linkStateOf(state) === 'replicating'),
      synchronisation: this.#work.synchronisation,
      stoppedBy: this.#stoppedBy,
      error: state.error,
    };
  }

  #ports(beatMs: number): PrimaryPorts {
    const work = this.#work;
    return {
      events$: this.#events$,
      links$: this.#links$,
      pressure$: this.#pressure$,
      requested$: this.#requested$,
      handOver$: this.#handOver$,
      beat$: interval(beatMs).pipe(share()),
      ended$: defer(() => work.world?.domain.events$ ?? EMPTY).pipe(ofKind('shutdown')),
      domain: work,
      write: (write) => this.#write(write),
      release: (release) => work.release(release),
      acknowledged: (streamUuid) =>
        (this.#links.get(streamUuid)?.events$ ?? EMPTY).pipe(
          ofKind('acknowledged'),
          map(({ epoch }) => epoch),
        ),
      heard: (streamUuid) => (this.#links.get(streamUuid)?.events$ ?? EMPTY).pipe(ofKind('heard')),
      openSaver: (streamUuid) =>
        work.saver(this.#links.get(streamUuid), (report) => this.#reports.checkpoints$.next(report)),
      link: {
        bye: (streamUuid, reason) => this.#bye(streamUuid, reason),
        handedOver: (streamUuid, epoch) => this.#links.get(streamUuid)?.handedOver(epoch),
        drop: (streamUuid, code, message) =>
          this.#links.get(streamUuid)?.destroy(new ChannelError(code, message, { domain: this.name })),
      },
      host: {
        requestCheckpoint: () => this.requestCheckpoint(),
        handOver: () => this.#handOver$.next(),
        handOverSettled: (id, outcome) => this.#handOvers.settled(id, outcome),
        withdraw: () => this.#withdraw?.(),
        transition: (reason) => this.#transition(reason),
        finished: () => this.#finish(),
      },
    };
  }

  #linked(link: PrimaryLink): void {
    this.#links.set(link.streamUuid, link);
    const { streamUuid, pairing, events$ } = link;
    this.#links$.next({ streamUuid, pairing: { standby: link.hello.host, stream: pairing }, events$ });
    link.events$.pipe(ofKind('durable')).subscribe(({ point }) => this.#work.disks?.durable(point));
    link.events$.pipe(ofKind('lost')).subscribe(({ error: { code, message } }) => {
      this.#log[code === 'STATE_REFUSED' ? 'warn' : 'info']({ code, reason: message }, 'link lost');
      this.#links.delete(link.streamUuid);
    });
  }

  #bye(streamUuid: string, reason: ByeReason): Observable<LifeEvent> {
    const link = this.#links.get(streamUuid);
    let confirmed = false;
    return concat(
      this.#work.tasks.attempt('say goodbye', async () => {
        confirmed = (await link?.bye(reason)) ?? false;
      }),
      defer(() => of<LifeEvent>({ kind: 'goodbye', streamUuid, confirmed })),
    );
  }

  /** What becomes of it when we leave is for the next owner to read. */
  #write(write: RegisterWrite): Observable<LifeEvent> {
    const settled = this.#work.tasks.keep(() => this.#office.settle(write, this.#left.signal));
    return settled.pipe(
      map((outcome): LifeEvent => ({ kind: 'answered', token: write.token, ...outcome })),
      catchError((error: unknown) => {
        this.#log.warn({ err: error, claim: write.claim }, 'it is not known what the register says');
        return EMPTY;
      }),
    );
  }

  /** What is lost ends the stream; the next one attaches it again, and finds what differs. */
  #ofDisks(event: DiskEvent): void {
    if (event.kind === 'pressure') this.requestCheckpoint();
    else this.#log.error({ disk: event.disk }, `what is written to a disk is not known: ${event.reason}`);
  }

  #machineChanged({ inventory, message }: MachineChange): void {
    const { world } = this.#work;
    if (world) world.info = { ...world.info, inventory };
    this.#log.error(message);
    this.#events$.next({ kind: 'machine-changed', message });
  }

  #stoppedByOthers(stoppedBy: string | null): void {
    if (this.#stoppedBy === stoppedBy) return;
    this.#stoppedBy = stoppedBy;
    if (stoppedBy === null) this.#log.info('the domain runs again');
    else
      this.#log.warn({ stoppedBy }, `the domain was stopped (${stoppedBy}), not by Romulus, and is left so`);
    this.#transition(stoppedBy === null ? 'the domain runs again' : `the domain was stopped: ${stoppedBy}`);
  }

  #transition(reason: string): void {
    const { role, link, streamUuid } = this.status();
    this.#log.info({ role, link, streamUuid, reason }, `${role}, ${link}`);
    this.#outputSays.tell(this.#state$.value);
    this.#reports.transitions$.next({ domain: this.name, role, link, reason, atMs: monotonicMs() });
  }

  async #stop(): Promise<void> {
    this.#events$.next({ kind: 'stop' });
    if (!(await this.#work.tasks.settled(STOP_TIMEOUT_MS))) {
      this.#log.warn('the domain did not come to rest in time');
    }
    this.#left.abort();
    this.#withdraw?.();
    await this.#work.world?.close();
    this.#running.unsubscribe();
    this.#handOvers.end();
  }
}

function lifeEventOf(event: DomainEvent): LifeEvent {
  if (event.kind === 'shutdown') return { kind: 'domain-shutdown' };
  return { kind: 'domain-crashed', reason: event.reason };
}
