// The primary service: one port, any number of domains, each with a pipeline of its own.

import { Subject } from 'rxjs';
import { Credentials } from '../channel/credentials/credentials.js';
import { PrimaryListener } from '../channel/listen/listener.js';
import type { PrimaryConfig } from '../config/schema.js';
import type { Reloaded } from '../flow/reloaded.js';
import { PrimaryDomain } from '../primary/domain.js';
import type { PrimaryDependencies } from '../report/dependencies.js';
import { ServiceError } from '../report/error.js';
import { createLogger, domainLogger } from '../report/log.js';
import type { CheckpointReport, DomainStatus, PrimaryService } from '../report/reports.js';
import { VERSION } from '../version.js';
import { DomainService } from './domain-service.js';
import { openSource } from './hypervisors.js';

/** @throws ChannelError, CredentialsError, or Node's system error, if the replication port cannot be set up as configured */
export function createPrimaryService(
  config: PrimaryConfig,
  dependencies: Partial<PrimaryDependencies> = {},
): PrimaryService {
  return new Primary(config, { log: createLogger(config.log), openSource, ...dependencies });
}

class Primary extends DomainService<PrimaryDomain> implements PrimaryService {
  readonly checkpoints$ = new Subject<CheckpointReport>();
  protected readonly domains: readonly PrimaryDomain[];
  readonly #credentials: Credentials;
  readonly #listener: PrimaryListener;
  #port: number;

  constructor({ listen, domains }: PrimaryConfig, dependencies: PrimaryDependencies) {
    const { log } = dependencies;
    super(domains, log);
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
      openSource: (domain) => dependencies.openSource(domain, this.interrupted),
    };
    this.domains = domains.map(
      (domain) => new PrimaryDomain(domain, interruptible, this, domainLogger(log, domain.name)),
    );
  }

  get port(): number {
    return this.#port;
  }

  override statuses(): readonly DomainStatus[] {
    const certificates = this.#credentials.expiries;
    return super.statuses().map((status) => ({ ...status, certificates }));
  }

  requestCheckpoint(domain: string): void {
    const known = this.domains.find(({ name }) => name === domain);
    if (!known) throw new ServiceError('UNKNOWN_DOMAIN', `there is no domain ${domain} here`, { domain });
    known.requestCheckpoint();
  }

  protected override async listen(): Promise<void> {
    for (const domain of this.domains) domain.offer((offer) => this.#listener.offer(offer));
    this.#port = (await this.#listener.listen()).port;
  }

  protected override reloadOwn(): Promise<readonly Reloaded[]> {
    return this.#credentials.reload();
  }

  protected async close(): Promise<void> {
    await this.#listener.close();
    this.#credentials.close();
    this.checkpoints$.complete();
  }
}
