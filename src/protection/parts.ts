// The two parts that a host can play for a domain: its owner, where it runs, and a standby. Each tells how it ended, and
// what the role has to know meanwhile; each is stopped by whoever began it.

import { Subject, type Observable } from 'rxjs';
import type { DomainOffer } from '../channel/contract.js';
import type { PrimaryDomainConfig, SecondaryDomainConfig } from '../config/agent.js';
import { WitnessError } from '../failover/error.js';
import { confirmWrite, mandateOf, takeOverWrite } from '../failover/mandate.js';
import { sharesDisks } from '../config/hypervisor.js';
import { sameRegister, type Register, type RegisterWrite } from '../failover/register.js';
import type { Settled } from '../failover/settle.js';
import { monotonicMs } from '../flow/clock.js';
import type { Reloaded } from '../flow/reloaded.js';
import { PrimaryDomain, type PrimaryReports } from '../primary/domain.js';
import type { AgentDependencies } from '../report/dependencies.js';
import type { Estate } from '../report/estate.js';
import type { Logger } from '../report/log.js';
import type { DomainStatus, SwitchoverReport, TrialReport, TrialRequest } from '../report/reports.js';
import { SecondaryDomain, type SecondaryReports } from '../secondary/domain.js';
import type { Held } from '../secondary/vigil-state.js';
import type { Route } from '../secondary/world.js';
import type { RoleEvent } from './role-state.js';
import { hostToDial } from './route.js';

export interface PartOptions {
  /** The name of this host. */
  readonly host: string;
  /** All hosts of the domain, in order of preference. */
  readonly hosts: readonly string[];
  /** Of this process alone. */
  readonly instance: string;
  readonly primary: PrimaryDomainConfig;
  /** Null: it cannot stand by here. */
  readonly secondary: SecondaryDomainConfig | null;
  /** The ways to the other hosts. */
  readonly routes: ReadonlyMap<string, Omit<Route, 'tried'>>;
  readonly shared: boolean;
  readonly dependencies: AgentDependencies;
  readonly reports: PrimaryReports & SecondaryReports;
  /** Offers the domain for protection; what comes back takes the offer away. */
  readonly offer: (offer: DomainOffer) => () => void;
  /** @throws WitnessError ABORTED, CLOSED: not known */
  readonly settle: (write: RegisterWrite, signal: AbortSignal) => Promise<Settled>;
  /** @throws WitnessError */
  readonly read: (signal: AbortSignal) => Promise<Register | null>;
  readonly log: Logger;
}

export interface Part {
  readonly news$: Observable<RoleEvent>;
  /** Rejects if it cannot begin at all; how it fares is news. */
  begin(): Promise<void>;
  status(): DomainStatus;
  /** As an owner has written it last; not there: it is not ours to write. */
  readonly register?: Register;
  requestCheckpoint(): void;
  reload(): Promise<readonly Reloaded[]>;
  /** Of an owner. @throws ServiceError */
  handOver?(to: string | null): Promise<SwitchoverReport>;
  /** Of a standby. @throws ServiceError, HypervisorError */
  testFailover?(request: TrialRequest): Promise<TrialReport>;
  /** What runs here after a takeover. */
  bequeath?(): Promise<Estate>;
  /** Safe to call twice. */
  stop(): Promise<void>;
}

/** A domain that ran for so long has started well. */
const STEADY_MS = 60_000;

export class OwnerPart implements Part {
  readonly news$ = new Subject<RoleEvent>();
  readonly #options: PartOptions;
  readonly #domain: PrimaryDomain;
  readonly #estate: Estate | null;
  #stopped = false;

  /** `register`: by which the domain is ours. */
  constructor(options: PartOptions, register: Register, estate: Estate | null = null) {
    const { host, instance, primary, shared, dependencies, reports, settle, log } = options;
    this.#options = options;
    this.#estate = estate;
    // Told apart from the tokens of the owners that this process was before.
    const mandate = mandateOf(host, `${instance}-${register.generation}`, register, shared);
    this.#domain = new PrimaryDomain(primary, dependencies, reports, log, { host, mandate, settle });
  }

  async begin(): Promise<void> {
    const sinceMs = monotonicMs();
    void this.#domain.finished.then(() => {
      if (this.#stopped) return;
      const { role } = this.#domain.status();
      const how = role === 'ended' || role === 'fenced' ? role : 'failed';
      const steady = monotonicMs() - sinceMs > STEADY_MS;
      this.news$.next({ kind: 'owner-over', how, alone: this.#domain.isAlone, steady });
    });
    await this.#domain.open(this.#estate);
    this.#domain.offer(this.#options.offer);
    this.#domain.start();
  }

  get register(): Register {
    return this.#domain.register;
  }

  status(): DomainStatus {
    return this.#domain.status();
  }

  requestCheckpoint(): void {
    this.#domain.requestCheckpoint();
  }

  handOver(to: string | null): Promise<SwitchoverReport> {
    return this.#domain.handOver(to);
  }

  reload(): Promise<readonly Reloaded[]> {
    return this.#domain.reload();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#domain.stop();
    this.news$.complete();
  }
}

export class StandbyPart implements Part {
  readonly news$ = new Subject<RoleEvent>();
  readonly #options: PartOptions;
  readonly #domain: SecondaryDomain;
  readonly #left = new AbortController();
  #granted: Register | null = null;
  #claimedFor: Held | null = null;
  /** As it was when a hand-over was about to come. */
  #foreseen: Register | null = null;
  #asked = 0;
  #tried = 0;
  #stopped = false;

  /** `owner`: whom the register names, if it is known. */
  constructor(options: PartOptions, owner: () => string | null) {
    const { host, secondary, dependencies, reports, log } = options;
    this.#options = options;
    if (!secondary) throw new WitnessError('BAD_OPTIONS', 'a standby needs another host');
    this.#domain = new SecondaryDomain(
      secondary,
      dependencies,
      {
        host,
        foresee: () => this.#foresee(),
        acquire: (held, handedOver) => this.#acquire(held, handedOver),
        confirm: () => this.#confirm(),
        route: (held) => this.#route(held?.owner ?? owner(), held !== null),
        busy: (busy) => this.news$.next({ kind: 'standby', busy }),
      },
      reports,
      log,
    );
  }

  async begin(): Promise<void> {
    void this.#domain.finished.then(() => {
      if (this.#stopped) return;
      const { role } = this.#domain.status();
      if (role === 'active' && this.#granted) this.news$.next({ kind: 'took-over', register: this.#granted });
      else this.news$.next({ kind: 'standby-over', how: role === 'ended' ? 'ended' : 'failed' });
    });
    await this.#domain.open();
    this.#domain.start();
  }

  status(): DomainStatus {
    return this.#domain.status();
  }

  requestCheckpoint(): void {
    // That is the owner's.
  }

  reload(): Promise<readonly Reloaded[]> {
    return this.#domain.reload();
  }

  testFailover(request: TrialRequest): Promise<TrialReport> {
    return this.#domain.testFailover(request);
  }

  bequeath(): Promise<Estate> {
    return this.#domain.bequeath();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#left.abort();
    await this.#domain.stop();
    this.news$.complete();
  }

  /** So that a domain that stands still waits for one answer of the witness, not for two. */
  #foresee(): void {
    const { read, log } = this.#options;
    read(this.#left.signal).then(
      (register) => (this.#foreseen = register),
      (error: unknown) => log.debug({ err: error }, 'the register could not be read ahead'),
    );
  }

  async #acquire(held: Held, handedOver: boolean): Promise<'granted' | 'denied'> {
    const { read, log } = this.#options;
    const foreseen = handedOver ? this.#foreseen : null;
    this.#foreseen = null;
    const ahead = foreseen && this.#claimOf(foreseen, held, handedOver);
    // What has changed since may be that its owner has taken it back: nothing is claimed by what is read after that.
    if (ahead) return (await this.#take(ahead, held)) ? 'granted' : 'denied';
    const register = await read(this.#left.signal);
    // It was granted, and did not start: it is ours still.
    if (this.#isOurs(register, held)) return 'granted';
    const write = this.#claimOf(register, held, handedOver);
    if (!write) {
      const { mode, owner: now, generation } = register ?? {};
      log.info({ mode, owner: now, generation }, 'by the register the domain is not ours to take over');
      return 'denied';
    }
    return (await this.#take(write, held)) ? 'granted' : 'denied';
  }

  /** Null: it does not let us. */
  #claimOf(
    register: Register | null,
    { owner, pairing: stream }: Held,
    handedOver: boolean,
  ): RegisterWrite | null {
    const { host, instance, shared, secondary } = this.#options;
    const token = `${instance}-take-${++this.#asked}`;
    // What runs here writes to the disks that its owner would go on with.
    const writesToTheSame = secondary !== null && sharesDisks(secondary.hypervisor);
    const claim = { mode: 'alone', owner: host, standby: null, stream: null } as const;
    // A register of our own says nothing of what the others have written.
    return shared
      ? takeOverWrite(register, host, { owner, stream, handedOver: handedOver && !writesToTheSame }, token)
      : { expected: register, claim, token };
  }

  async #take(write: RegisterWrite, held: Held): Promise<boolean> {
    const settled = await this.#options.settle(write, this.#left.signal);
    if (!settled.won) return false;
    this.#granted = settled.register;
    this.#claimedFor = held;
    return true;
  }

  /** As it was granted; what is only claimed, for what was handed over, and nothing else. */
  #isOurs(register: Register | null, { streamUuid, epoch }: Held): boolean {
    const granted = this.#granted;
    if (!granted || !sameRegister(register, granted)) return false;
    const claimed = this.#claimedFor;
    return granted.mode === 'alone' || (claimed?.streamUuid === streamUuid && claimed.epoch === epoch);
  }

  async #confirm(): Promise<'granted' | 'denied'> {
    const { instance, settle } = this.#options;
    const claimed = this.#granted;
    if (claimed?.mode !== 'paired') return 'granted';
    const settled = await settle(confirmWrite(claimed, `${instance}-keep-${this.#asked}`), this.#left.signal);
    this.#granted = settled.won ? settled.register : null;
    return settled.won ? 'granted' : 'denied';
  }

  #route(owner: string | null, only: boolean): Route {
    const { routes } = this.#options;
    const name = hostToDial([...routes.keys()], owner, only, this.#tried++);
    const route = name === undefined ? undefined : routes.get(name);
    if (name === undefined || !route) throw new WitnessError('BAD_OPTIONS', 'a standby needs another host');
    return {
      ...route,
      tried: (code) => {
        if (code === 'UNKNOWN_DOMAIN') this.news$.next({ kind: 'not-here', host: name });
      },
    };
  }
}
