// The primary service: one port, any number of domains, each with a pipeline of its own.

import { Subject, type Observable } from 'rxjs';
import { PrimaryListener } from '../channel/listen/listener.js';
import type { PrimaryConfig } from '../config/schema.js';
import { VERSION } from '../version.js';
import { Credentials } from '../channel/credentials/credentials.js';
import type { PrimaryDependencies } from '../report/dependencies.js';
import { ServiceError } from '../report/error.js';
import { checkDescriptors } from '../report/descriptors.js';
import { openSource } from './hypervisors.js';
import { createLogger, domainLogger, type Logger } from '../report/log.js';
import { PrimaryDomain } from '../primary/domain.js';
import type { CheckpointReport, DomainStatus, PrimaryService, TransitionReport } from '../report/reports.js';
import { InOrder } from '../flow/in-order.js';

/** @throws ChannelError, CredentialsError, or Node's system error, if the replication port cannot be set up as configured */
export function createPrimaryService(
  config: PrimaryConfig,
  dependencies: Partial<PrimaryDependencies> = {},
): PrimaryService {
  return new Primary(config, { log: createLogger(config.log), openSource, ...dependencies });
}

class Primary implements PrimaryService {
  readonly checkpoints$: Observable<CheckpointReport>;
  readonly transitions$: Observable<TransitionReport>;
  readonly finished: Promise<void>;

  readonly #checkpoints = new Subject<CheckpointReport>();
  readonly #transitions = new Subject<TransitionReport>();
  readonly #config: PrimaryConfig;
  readonly #log: Logger;
  readonly #credentials: Credentials;
  readonly #listener: PrimaryListener;
  readonly #domains: readonly PrimaryDomain[];
  #port: number;
  readonly #interruption = new AbortController();
  #opening: Promise<unknown> = Promise.resolve();
  #starting: Promise<void> | null = null;
  #stopping: Promise<void> | null = null;
  readonly #reloads = new InOrder();

  constructor(config: PrimaryConfig, dependencies: PrimaryDependencies) {
    const { log } = dependencies;
    const { listen, domains } = config;
    this.#config = config;
    this.#log = log;
    this.checkpoints$ = this.#checkpoints.asObservable();
    this.transitions$ = this.#transitions.asObservable();
    this.#port = listen.port;
    this.#credentials = new Credentials(listen, listen.host, log);
    this.#listener = new PrimaryListener({
      host: listen.host,
      port: listen.port,
      ...this.#credentials.shown,
      plaintext: listen.plaintext,
      // Each domain's welcome says its own.
      heartbeatIntervalMs: 100,
      heartbeatTimeoutMs: 1000,
      handshakeTimeoutMs: listen.handshakeTimeoutMs,
      handshakesMax: listen.maxPendingHandshakes,
      socketBufferBytes: listen.socketBufferBytes,
      software: VERSION,
      log,
    });
    this.#credentials.changes$.subscribe((shown) => this.#listener.renew(shown));
    const interruptible: PrimaryDependencies = {
      ...dependencies,
      openSource: (domain) => dependencies.openSource(domain, this.#interruption.signal),
    };
    const reports = { checkpoints$: this.#checkpoints, transitions$: this.#transitions };
    this.#domains = domains.map(
      (domain) => new PrimaryDomain(domain, interruptible, reports, domainLogger(log, domain.name)),
    );
    this.finished = Promise.all(this.#domains.map((domain) => domain.finished)).then(() => undefined);
  }

  get port(): number {
    return this.#port;
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
    return this.#reloads.do(() => this.#reload());
  }

  statuses(): readonly DomainStatus[] {
    const certificates = this.#credentials.expiries;
    return this.#domains.map((domain) => ({ ...domain.status(), certificates }));
  }

  requestCheckpoint(domain: string): void {
    const known = this.#domains.find(({ name }) => name === domain);
    if (!known) throw new ServiceError('UNKNOWN_DOMAIN', `there is no domain ${domain} here`, { domain });
    known.requestCheckpoint();
  }

  async #reload(): Promise<void> {
    // A domain that is being made has opened its files, perhaps before they were moved.
    await this.#opening;
    if (this.#stopping) return;
    for (const domain of this.#domains) await domain.reload();
    this.#credentials.reload();
    this.#log.info('reloaded: output files are opened anew, certificates read again');
  }

  async #start(): Promise<void> {
    try {
      checkDescriptors(this.#config.domains, this.#log);
      this.#opening = Promise.all(this.#domains.map((domain) => domain.open()));
      await this.#opening;
      if (this.#stopping) throw new ServiceError('STOPPED', 'stopped while it started');
      for (const domain of this.#domains) domain.offer((offer) => this.#listener.offer(offer));
      this.#port = (await this.#listener.listen()).port;
    } catch (error) {
      await this.stop();
      throw error;
    }
    for (const domain of this.#domains) domain.start();
  }

  async #stop(): Promise<void> {
    // A domain that is being made is given up, or destroyed when it is made.
    this.#interruption.abort();
    await this.#opening;
    await Promise.all(this.#domains.map((domain) => domain.stop()));
    await this.#listener.close();
    this.#credentials.close();
    this.#checkpoints.complete();
    this.#transitions.complete();
  }
}
