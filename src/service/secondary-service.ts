// The secondary service: any number of standby domains, each with a link and a pipeline of its own.

import { Subject } from 'rxjs';
import type { SecondaryConfig } from '../config/schema.js';
import type { SecondaryDependencies } from '../report/dependencies.js';
import { createLogger, domainLogger } from '../report/log.js';
import type { CommitReport, FailoverEvent, SecondaryService, StandbyLossReport } from '../report/reports.js';
import { SecondaryDomain } from '../secondary/domain.js';
import { DomainService } from './domain-service.js';
import { openTarget } from './hypervisors.js';

export function createSecondaryService(
  config: SecondaryConfig,
  dependencies: Partial<SecondaryDependencies> = {},
): SecondaryService {
  return new Secondary(config, { log: createLogger(config.log), openTarget, ...dependencies });
}

class Secondary extends DomainService<SecondaryDomain> implements SecondaryService {
  readonly commits$ = new Subject<CommitReport>();
  readonly failover$ = new Subject<FailoverEvent>();
  readonly standbyLosses$ = new Subject<StandbyLossReport>();
  protected readonly domains: readonly SecondaryDomain[];

  constructor({ domains }: SecondaryConfig, dependencies: SecondaryDependencies) {
    const { log } = dependencies;
    super(domains, log);
    log.warn('no witness is configured: the secondary decides alone that the primary is dead');
    const interruptible: SecondaryDependencies = {
      ...dependencies,
      openTarget: (domain) => dependencies.openTarget(domain, this.interrupted),
    };
    this.domains = domains.map((domain) => {
      const granted = () => Promise.resolve('granted' as const);
      const office = { host: '', acquire: granted, confirm: granted };
      return new SecondaryDomain(domain, interruptible, office, this, domainLogger(log, domain.name));
    });
  }

  protected close(): void {
    this.commits$.complete();
    this.failover$.complete();
    this.standbyLosses$.complete();
  }
}
