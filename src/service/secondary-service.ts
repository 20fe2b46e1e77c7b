// The secondary service: any number of standby domains, each with a link and a pipeline of its own.

import { Subject, type Observable } from 'rxjs';
import type { SecondaryConfig } from '../config/schema.js';
import { unwitnessed } from '../failover/witness.js';
import type { SecondaryDependencies } from '../report/dependencies.js';
import { ServiceError } from '../report/error.js';
import { checkDescriptors } from '../report/descriptors.js';
import { openTarget } from './hypervisors.js';
import { createLogger, domainLogger, type Logger } from '../report/log.js';
import { tellReloaded } from '../report/reload.js';
import type {
  CommitReport,
  DomainStatus,
  FailoverEvent,
  SecondaryService,
  StandbyLossReport,
  TransitionReport,
} from '../report/reports.js';
import { SecondaryDomain } from '../secondary/domain.js';
import { Coalesced } from '../flow/coalesced.js';

export function createSecondaryService(
  config: SecondaryConfig,
  dependencies: Partial<SecondaryDependencies> = {},
): SecondaryService {
  return new Secondary(config, { log: createLogger(config.log), openTarget, ...dependencies });
}

class Secondary implements SecondaryService {
  readonly commits$: Observable<CommitReport>;
  readonly failover$: Observable<FailoverEvent>;
  readonly standbyLosses$: Observable<StandbyLossReport>;
  readonly transitions$: Observable<TransitionReport>;
  readonly finished: Promise<void>;

  readonly #commits = new Subject<CommitReport>();
  readonly #failovers = new Subject<FailoverEvent>();
  readonly #losses = new Subject<StandbyLossReport>();
  readonly #transitions = new Subject<TransitionReport>();
  readonly #config: SecondaryConfig;
  readonly #log: Logger;
  readonly #domains: readonly SecondaryDomain[];
  readonly #interruption = new AbortController();
  readonly #reloads = new Coalesced(() => this.#reload());
  #opening: Promise<unknown> = Promise.resolve();
  #starting: Promise<void> | null = null;
  #stopping: Promise<void> | null = null;

  constructor(config: SecondaryConfig, dependencies: SecondaryDependencies) {
    const { log } = dependencies;
    this.#config = config;
    this.#log = log;
    this.commits$ = this.#commits.asObservable();
    this.failover$ = this.#failovers.asObservable();
    this.standbyLosses$ = this.#losses.asObservable();
    this.transitions$ = this.#transitions.asObservable();
    const witness = dependencies.witness ?? unwitnessed((message) => log.warn(message));
    const interruptible: SecondaryDependencies = {
      ...dependencies,
      openTarget: (domain) => dependencies.openTarget(domain, this.#interruption.signal),
    };
    const reports = {
      commits$: this.#commits,
      failover$: this.#failovers,
      standbyLosses$: this.#losses,
      transitions$: this.#transitions,
    };
    this.#domains = config.domains.map(
      (domain) =>
        new SecondaryDomain(domain, interruptible, witness, reports, domainLogger(log, domain.name)),
    );
    this.finished = Promise.all(this.#domains.map((domain) => domain.finished)).then(() => undefined);
  }

  start(): Promise<void> {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  reload(): Promise<void> {
    return this.#reloads.run();
  }

  statuses(): readonly DomainStatus[] {
    return this.#domains.map((domain) => domain.status());
  }

  async #reload(): Promise<void> {
    // A domain that is being made has opened its files, perhaps before they were moved.
    await this.#opening;
    if (this.#stopping) return;
    const reloads = this.#domains.map((domain) => domain.reload());
    tellReloaded((await Promise.all(reloads)).flat(), this.#log);
  }

  async #start(): Promise<void> {
    checkDescriptors(this.#config.domains, this.#log);
    this.#opening = Promise.all(this.#domains.map((domain) => domain.open()));
    await this.#opening;
    if (this.#stopping) throw new ServiceError('STOPPED', 'stopped while it started');
    for (const domain of this.#domains) domain.start();
  }

  async #stop(): Promise<void> {
    // A domain that is being made is given up, or destroyed when it is made.
    this.#interruption.abort();
    await this.#opening;
    await Promise.all(this.#domains.map((domain) => domain.stop()));
    this.#commits.complete();
    this.#failovers.complete();
    this.#losses.complete();
    this.#transitions.complete();
  }
}
