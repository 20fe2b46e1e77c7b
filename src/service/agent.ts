// The agent: what one host does for all domains of the cluster that name it. One port where standbys dial in, one witness,
// and for each domain a role that changes over its life.

import { Subject } from 'rxjs';
import { Credentials } from '../channel/credentials/credentials.js';
import { PrimaryListener } from '../channel/listen/listener.js';
import { primaryOf, secondaryOf, type AgentConfig, type AgentDomainConfig } from '../config/agent.js';
import { asError, codeOf } from '../errors.js';
import type { RegisterWitness } from '../failover/register.js';
import { Coalesced } from '../flow/coalesced.js';
import type { Reloaded } from '../flow/reloaded.js';
import { ProtectedDomain } from '../protection/domain.js';
import type { AgentDependencies } from '../report/dependencies.js';
import { checkDescriptors } from '../report/descriptors.js';
import { ServiceError } from '../report/error.js';
import { createLogger, domainLogger, type Logger } from '../report/log.js';
import type {
  AgentService,
  CheckpointReport,
  CommitReport,
  DomainStatus,
  EvacuationReport,
  FailoverEvent,
  RoleReport,
  StandbyLossReport,
  SwitchoverReport,
  TransitionReport,
  TrialReport,
  TrialRequest,
} from '../report/reports.js';
import { VERSION } from '../version.js';
import { openSource, openTarget } from './hypervisors.js';
import { openWitness } from './witnesses.js';

/** @throws ChannelError, CredentialsError, WitnessError, or Node's system error, if it cannot be set up as configured */
export function createAgent(
  config: AgentConfig,
  dependencies: Partial<AgentDependencies> = {},
): AgentService {
  const log = dependencies.log ?? createLogger(config.log);
  return new Agent(config, { openSource, openTarget, ...dependencies, log });
}

class Agent implements AgentService {
  readonly checkpoints$ = new Subject<CheckpointReport>();
  readonly commits$ = new Subject<CommitReport>();
  readonly failover$ = new Subject<FailoverEvent>();
  readonly standbyLosses$ = new Subject<StandbyLossReport>();
  readonly transitions$ = new Subject<TransitionReport>();
  readonly roles$ = new Subject<RoleReport>();
  readonly trials$ = new Subject<TrialReport>();
  readonly host: string;
  readonly #config: AgentConfig;
  readonly #log: Logger;
  readonly #witness: RegisterWitness;
  readonly #credentials: Credentials;
  readonly #listener: PrimaryListener;
  readonly #domains: readonly ProtectedDomain[];
  readonly #interruption = new AbortController();
  readonly #reloads = new Coalesced(() => this.#reload());
  #port: number;
  #starting: Promise<void> | null = null;
  #stopping: Promise<void> | null = null;

  constructor(config: AgentConfig, dependencies: AgentDependencies) {
    const { listen, domains, host } = config;
    const { log } = dependencies;
    this.host = host;
    this.#config = config;
    this.#log = log;
    this.#port = listen.port;
    const { witness, shared } =
      dependencies.witness ?? openWitness(config, (name, peer) => this.#hasLetGo(name, peer));
    this.#witness = witness;
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
    const { signal } = this.#interruption;
    const interruptible: AgentDependencies = {
      ...dependencies,
      openSource: (domain) => dependencies.openSource(domain, signal),
      openTarget: (domain) => dependencies.openTarget(domain, signal),
    };
    this.#domains = domains.map((domain) => this.#protected(domain, shared, interruptible));
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
    return this.#reloads.run();
  }

  statuses(): readonly DomainStatus[] {
    const certificates = this.#credentials.expiries;
    return this.#domains.map((domain) => ({ certificates, ...domain.status() }));
  }

  async refresh(): Promise<void> {
    await Promise.all(this.#domains.map((domain) => domain.refresh()));
  }

  requestCheckpoint(domain: string): void {
    this.#named(domain).requestCheckpoint();
  }

  force(domain: string): boolean {
    return this.#named(domain).force();
  }

  async switchover(domain: string, to?: string): Promise<SwitchoverReport> {
    return this.#named(domain).switchover(to ?? null);
  }

  async testFailover(domain: string, request: TrialRequest = {}): Promise<TrialReport> {
    const report = await this.#named(domain).testFailover(request);
    this.trials$.next(report);
    return report;
  }

  async evacuate(): Promise<readonly EvacuationReport[]> {
    const reports: EvacuationReport[] = [];
    for (const domain of this.#domains) {
      if (!domain.runsHere) continue;
      try {
        reports.push({ ok: true, ...(await domain.switchover(null)) });
      } catch (thrown) {
        const error = asError(thrown);
        reports.push({ ok: false, domain: domain.name, code: codeOf(error), message: error.message });
      }
    }
    return reports;
  }

  #protected(domain: AgentDomainConfig, shared: boolean, dependencies: AgentDependencies): ProtectedDomain {
    const config = this.#config;
    const { host } = config;
    const others = domain.hosts.filter((name) => name !== host);
    const ways = others.map((name) => [name, secondaryOf(domain, config, name)] as const);
    const primary = primaryOf(domain, config);
    const { hypervisor } = primary;
    return new ProtectedDomain({
      host,
      hosts: domain.hosts,
      primary,
      // Whom it dials says each route.
      secondary: ways[0]?.[1] ?? null,
      routes: new Map(ways.map(([name, { primary: url, primaryName }]) => [name, { url, primaryName }])),
      shared,
      onCrash: domain.onCrash,
      canStandBy: domain.canStandBy && others.length > 0,
      found: hypervisor.kind === 'qemu' && hypervisor.mode === 'attached',
      witness: this.#witness,
      offer: (offer) => this.#listener.offer(offer),
      dependencies,
      reports: this,
      roles$: this.roles$,
      log: domainLogger(this.#log, domain.name),
    });
  }

  #hasLetGo(name: string, peer: string): boolean {
    return this.#domains.find((domain) => domain.name === name)?.hasLetGo(peer) === true;
  }

  #named(name: string): ProtectedDomain {
    const known = this.#domains.find((domain) => domain.name === name);
    if (!known) throw new ServiceError('UNKNOWN_DOMAIN', `there is no domain ${name} here`, { domain: name });
    return known;
  }

  async #start(): Promise<void> {
    try {
      checkDescriptors(this.#config.domains, this.#log);
      this.#port = (await this.#listener.listen()).port;
      if (this.#stopping) throw new ServiceError('STOPPED', 'stopped while it started');
    } catch (error) {
      // Why it did not start is what is told.
      await this.stop().catch((failure: unknown) => this.#log.error({ err: failure }, 'could not stop'));
      throw error;
    }
    this.#log.info({ host: this.host, witness: this.#witness.name }, 'who may run a domain says the witness');
    for (const domain of this.#domains) domain.start();
  }

  async #stop(): Promise<void> {
    this.#interruption.abort();
    await Promise.all(this.#domains.map((domain) => domain.stop()));
    await this.#listener.close();
    await this.#witness.close();
    this.#credentials.close();
    const reports = [this.checkpoints$, this.commits$, this.failover$, this.standbyLosses$];
    for (const subject of [...reports, this.transitions$, this.roles$, this.trials$]) subject.complete();
  }

  async #reload(): Promise<void> {
    if (this.#stopping) return;
    const reloads = [this.#credentials.reload(), ...this.#domains.map((domain) => domain.reload())];
    tellReloaded((await Promise.all(reloads)).flat(), this.#log);
  }
}

/** What came of a reload, said once and in one line. */
function tellReloaded(reloaded: readonly Reloaded[], log: Logger): void {
  const failed = filesOf(reloaded.filter(({ error }) => error !== null));
  const files = filesOf(reloaded.filter(({ error }) => error === null));
  if (failed.length === 0) {
    log.info({ files }, 'reloaded: output files are opened anew, certificates and token read again');
  } else {
    log.warn({ files, failed }, `reloaded, but for what stays as it was: ${failed.join(', ')}`);
  }
}

/** Domains may share one. */
function filesOf(reloaded: readonly Reloaded[]): string[] {
  return [...new Set(reloaded.map(({ file }) => file))];
}
