// The host's face of one domain of the secondary: it is opened, started, asked how it is, and stopped. What happens in
// between is the pipeline of secondary.ts; here its ports are put together from the world of the domain.

import { tmpdir } from 'node:os';
import { BehaviorSubject, Subject, type Subscription } from 'rxjs';
import { standstillMsOf } from '../channel/link/heartbeat.js';
import type { SecondaryDomainConfig } from '../config/agent.js';
import { sharesDisks } from '../config/hypervisor.js';
import { asError, codeOf } from '../errors.js';
import { MONOTONIC, monotonicMs } from '../flow/clock.js';
import type { Reloaded } from '../flow/reloaded.js';
import { Work } from '../flow/work.js';
import type { DomainEvent } from '../hypervisor/port.js';
import type { SecondaryDependencies } from '../report/dependencies.js';
import { nameDescriptorLimit } from '../report/descriptors.js';
import type { Estate } from '../report/estate.js';
import type { Logger } from '../report/log.js';
import type {
  CommitReport,
  DomainStatus,
  FailoverEvent,
  StandbyLossReport,
  StandbyState,
  TransitionReport,
  TrialReport,
  TrialRequest,
} from '../report/reports.js';
import { openRestore } from '../restore/steps.js';
import type { SecondaryPorts, StreamLink } from './ports.js';
import type { StreamProgress } from './restore-news.js';
import { secondary } from './secondary.js';
import { reasonOf } from './standbys.js';
import { Trials } from './trials.js';
import {
  initialSecondaryState,
  isBusy,
  secondaryLinkState,
  type Held,
  type SecondaryEvent,
  type SecondaryState,
} from './vigil-state.js';
import { SecondaryWorld, type Route } from './world.js';

/** Where a domain reports to; shared by all domains of an agent. */
export interface SecondaryReports {
  readonly commits$: Subject<CommitReport>;
  readonly failover$: Subject<FailoverEvent>;
  readonly standbyLosses$: Subject<StandbyLossReport>;
  readonly transitions$: Subject<TransitionReport>;
}

/** Where the standby stands in the register. */
export interface StandbyOffice {
  /** Of this host. */
  readonly host: string;
  /** As SecondaryPorts says; so are foresee and confirm. */
  acquire(held: Held, handedOver: boolean): Promise<'granted' | 'denied'>;
  foresee(): void;
  confirm(): Promise<'granted' | 'denied'>;
  /** Left out: as configured. */
  readonly route?: (held: Held | null) => Route;
  /** It has a link or a checkpoint, or is about one; or no more. */
  readonly busy?: (busy: boolean) => void;
}

const STOP_TIMEOUT_MS = 5000;

export class SecondaryDomain {
  readonly name: string;
  readonly finished: Promise<void>;

  readonly #config: SecondaryDomainConfig;
  readonly #office: StandbyOffice;
  readonly #reports: SecondaryReports;
  readonly #log: Logger;
  readonly #world: SecondaryWorld;
  readonly #work: Work;
  readonly #trials: Trials;
  readonly #links = new Map<string, StreamLink>();
  readonly #events$ = new Subject<SecondaryEvent>();
  readonly #spareEnded$ = new Subject<string>();
  readonly #stream$ = new BehaviorSubject<StreamProgress | null>(null);
  readonly #error$ = new BehaviorSubject<DomainStatus['error']>(null);
  readonly #pipeline: Subscription;
  #state: SecondaryState;
  #finish: () => void = () => undefined;
  #stopping: Promise<void> | null = null;

  constructor(
    config: SecondaryDomainConfig,
    dependencies: SecondaryDependencies,
    office: StandbyOffice,
    reports: SecondaryReports,
    log: Logger,
  ) {
    this.name = config.name;
    this.#config = config;
    this.#office = office;
    this.#reports = reports;
    this.#log = log;
    this.#work = new Work((err, what) => log.warn({ err }, `could not ${what}`));
    const { host } = office;
    this.#trials = new Trials({ name: config.name, host, work: this.#work, log });
    this.finished = new Promise((resolve) => (this.#finish = resolve));
    const ended = (was: StandbyState, event: DomainEvent) => this.#standbyEnded(was, event);
    const stopped = () => this.#stopped();
    this.#world = new SecondaryWorld({
      config,
      host: office.host,
      route: office.route ?? (() => ({ url: config.primary, primaryName: config.primaryName })),
      dependencies,
      ended,
      stopped,
      log,
    });
    this.#state = initialSecondaryState(config.failover);
    // A step that throws is a fault of ours: nobody catches it here, and the process ends.
    this.#pipeline = secondary(this.#ports(), config.failover, MONOTONIC).subscribe(([state]) => {
      const { busy } = this.#office;
      if (busy && isBusy(state) !== isBusy(this.#state)) busy(isBusy(state));
      this.#state = state;
      // Before anything is done about it.
      this.#trials.follow(state);
    });
  }

  /** Makes the first domain. If that fails, this domain has failed and the others go on. */
  async open(): Promise<void> {
    try {
      await this.#world.open();
    } catch (error) {
      this.#failed(asError(error), 'no domain can be made');
      this.#events$.next({ kind: 'domain-failed', code: codeOf(error) });
    }
  }

  /** Opens the files of the domain's output anew, and reads the certificates for the next dial. */
  reload(): Promise<readonly Reloaded[]> {
    return this.#world.reload();
  }

  start(): void {
    this.#events$.next({ kind: 'start' });
  }

  /** What was taken over, when this has finished. */
  bequeath(): Promise<Estate> {
    return this.#world.bequeath();
  }

  /** As AgentService says. @throws ServiceError, HypervisorError */
  testFailover(request: TrialRequest): Promise<TrialReport> {
    return this.#trials.run(this.#state, this.#world.held, request);
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  status(): DomainStatus {
    const state = this.#state;
    const stream = this.#stream$.value;
    const link = stream === null ? undefined : this.#links.get(stream.streamUuid);
    return {
      domain: this.name,
      role: state.role,
      link: secondaryLinkState(state),
      peer: link?.peer ?? null,
      streamUuid: state.session?.streamUuid ?? state.held?.streamUuid ?? stream?.streamUuid ?? null,
      epochSeen: stream?.epochAcknowledged ?? -1,
      epochAcknowledged: stream?.epochAcknowledged ?? -1,
      epochCommitted: stream?.epochCommitted ?? -1,
      acknowledgedAtMs: stream?.acknowledgedAtMs ?? null,
      bufferedBytes: state.session ? (stream?.bufferedBytes ?? 0) : 0,
      heldOutputBytes: this.#world.heldOutputBytes,
      stoppedBy: this.#stoppedBy,
      error: this.#error$.value,
      certificates: this.#world.certificates,
    };
  }

  #ports(): SecondaryPorts {
    const config = this.#config;
    const log = this.#log;
    const world = this.#world;
    return {
      name: this.name,
      log,
      work: this.#work,
      links: this.#links,
      stream$: this.#stream$,
      error$: this.#error$,
      commits$: this.#reports.commits$,
      failover$: this.#reports.failover$,
      losses$: this.#reports.standbyLosses$,
      events$: this.#events$,
      spareEnded$: this.#spareEnded$,
      dial: (effect) => world.dial(effect),
      standstillMs: ({ welcome }) => (sharesDisks(config.hypervisor) ? standstillMsOf(welcome) : 0),
      fill: (resumes) => this.#fill(resumes),
      openRestore: (standby, source, streamUuid) => {
        world.fills(streamUuid);
        return standby.restore(source, streamUuid, (domain) =>
          openRestore({
            domain,
            source,
            streamType: 'remus',
            bufferLimitBytes: config.bufferBytes,
            // While one is held, the images are of its checkpoint.
            disks: {
              streamUuid,
              first: world.held === null ? 'in-place' : 'staged',
              spillDirectory: tmpdir(),
            },
            callbacks: {
              skippedRecord: (type, offset) => log.debug({ type, offset }, 'optional record skipped'),
            },
          }),
        );
      },
      adopt: () => world.standbys.adopt(),
      discard: (was) => world.standbys.discard(was),
      held: () => world.standbys.held,
      acquire: (held, handedOver) => this.#office.acquire(held, handedOver),
      foresee: () => this.#office.foresee(),
      confirm: () => this.#office.confirm(),
      failed: (error) => this.#failed(error, 'the domain does not start'),
      transition: (reason) => this.#transition(reason),
      finished: () => this.#finish(),
      random: () => Math.random(),
    };
  }

  async #fill(resumes: boolean) {
    try {
      const { standbys } = this.#world;
      return resumes ? standbys.kept() : await standbys.fill();
    } catch (error) {
      const err = nameDescriptorLimit(asError(error));
      this.#log[this.#stopping ? 'debug' : 'error']({ err }, 'no domain can be made');
      throw error;
    }
  }

  #standbyEnded(was: StandbyState, event: DomainEvent): void {
    const reason = reasonOf(event);
    if (was === 'spare') this.#spareEnded$.next(reason);
    else if (was === 'filling') this.#events$.next({ kind: 'filling-ended', reason });
    else this.#events$.next({ kind: 'held-ended', reason });
  }

  /** That of a domain which runs elsewhere is told there. */
  get #stoppedBy(): string | null {
    return this.#state.role === 'active' ? this.#world.stoppedBy : null;
  }

  #stopped(): void {
    if (this.#state.role !== 'active') return;
    const stoppedBy = this.#stoppedBy;
    this.#transition(stoppedBy === null ? 'the domain runs again' : `the domain was stopped: ${stoppedBy}`);
  }

  #failed(thrown: Error, what: string): void {
    const error = nameDescriptorLimit(thrown);
    this.#error$.next({ code: codeOf(error), message: error.message });
    this.#log.error({ err: error }, what);
  }

  #transition(reason: string): void {
    const { role, link, streamUuid } = this.status();
    this.#log.info({ role, link, streamUuid, reason }, `${role}, ${link}`);
    this.#reports.transitions$.next({ domain: this.name, role, link, reason, atMs: monotonicMs() });
  }

  async #stop(): Promise<void> {
    this.#events$.next({ kind: 'stop' });
    void this.#work.run('destroy a domain', () => this.#world.endStandbys());
    // A link whose domain has ended waits for the primary to close it.
    for (const link of this.#links.values()) {
      this.#work.attempt('say goodbye', () => link.bye('shutdown')).subscribe();
    }
    // What does not come to rest in time is ended when it does.
    this.#work.idle$.subscribe(() => this.#pipeline.unsubscribe());
    if (!(await this.#work.settled(STOP_TIMEOUT_MS))) {
      this.#log.warn('the domain did not come to rest in time');
    }
    await this.#world.close();
  }
}
