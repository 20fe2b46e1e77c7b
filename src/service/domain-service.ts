// A service is a number of domains, each with a pipeline of its own, that are opened, started, reloaded and stopped
// together: what a primary's and a secondary's have in common.

import { Subject } from 'rxjs';
import { Coalesced } from '../flow/coalesced.js';
import type { Reloaded } from '../flow/reloaded.js';
import { checkDescriptors } from '../report/descriptors.js';
import { ServiceError } from '../report/error.js';
import type { Logger } from '../report/log.js';
import type { DomainStatus, ReplicationService, TransitionReport } from '../report/reports.js';

export interface ServedDomain {
  readonly finished: Promise<void>;
  /** Makes the domain; never rejects. */
  open(): Promise<void>;
  start(): void;
  stop(): Promise<void>;
  reload(): Promise<readonly Reloaded[]>;
  status(): DomainStatus;
}

export abstract class DomainService<Domain extends ServedDomain> implements ReplicationService {
  readonly transitions$ = new Subject<TransitionReport>();
  protected abstract readonly domains: readonly Domain[];
  readonly #configs: Parameters<typeof checkDescriptors>[0];
  readonly #log: Logger;
  readonly #interruption = new AbortController();
  readonly #reloads = new Coalesced(() => this.#reload());
  #opening: Promise<unknown> = Promise.resolve();
  #starting: Promise<void> | null = null;
  #stopping: Promise<void> | null = null;

  constructor(configs: Parameters<typeof checkDescriptors>[0], log: Logger) {
    this.#configs = configs;
    this.#log = log;
  }

  get finished(): Promise<void> {
    return Promise.all(this.domains.map((domain) => domain.finished)).then(() => undefined);
  }

  start(): Promise<void> {
    return (this.#starting ??= this.#start());
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  reload(): Promise<void> {
    return this.#reloads.run();
  }

  statuses(): readonly DomainStatus[] {
    return this.domains.map((domain) => domain.status());
  }

  /** Aborted when the service stops: a domain that is being made is given up, or destroyed when it is made. */
  protected get interrupted(): AbortSignal {
    return this.#interruption.signal;
  }

  /** The domains are made, and start when this resolves. */
  protected listen(): Promise<void> {
    return Promise.resolve();
  }

  /** What the service has besides its domains. */
  protected reloadOwn(): Promise<readonly Reloaded[]> {
    return Promise.resolve([]);
  }

  /** The domains have stopped. */
  protected abstract close(): Promise<void> | void;

  async #start(): Promise<void> {
    try {
      checkDescriptors(this.#configs, this.#log);
      this.#opening = Promise.all(this.domains.map((domain) => domain.open()));
      await this.#opening;
      if (this.#stopping) throw new ServiceError('STOPPED', 'stopped while it started');
      await this.listen();
    } catch (error) {
      // Why it did not start is what is told.
      await this.stop().catch((failure: unknown) => this.#log.error({ err: failure }, 'could not stop'));
      throw error;
    }
    for (const domain of this.domains) domain.start();
  }

  async #stop(): Promise<void> {
    this.#interruption.abort();
    await this.#opening;
    await Promise.all(this.domains.map((domain) => domain.stop()));
    await this.close();
    this.transitions$.complete();
  }

  async #reload(): Promise<void> {
    // A domain that is being made has opened its files, perhaps before they were moved.
    await this.#opening;
    if (this.#stopping) return;
    const reloads = [this.reloadOwn(), ...this.domains.map((domain) => domain.reload())];
    tellReloaded((await Promise.all(reloads)).flat(), this.#log);
  }
}

/** What came of a reload, said once and in one line. */
export function tellReloaded(reloaded: readonly Reloaded[], log: Logger): void {
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
