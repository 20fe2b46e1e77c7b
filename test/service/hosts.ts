// The agents of a test's hosts, and what makes a cluster of them: north, which starts a domain, south, which stands by,
// and west, which may.

import { parseCluster } from '../../src/config/cluster.js';
import { WitnessError } from '../../src/failover/error.js';
import type { RegisterWitness } from '../../src/failover/register.js';
import { createFileWitness } from '../../src/failover/witnesses/file/file.js';
import type { AgentDependencies } from '../../src/report/dependencies.js';
import type {
  AgentService,
  CheckpointReport,
  CommitReport,
  DomainRole,
  DomainStatus,
  FailoverEvent,
  StandbyLossReport,
  TransitionReport,
} from '../../src/report/reports.js';
import { createAgent } from '../../src/service/agent.js';

export type HostName = 'north' | 'south' | 'west';

/** A witness in this process, or the directory of one that other processes ask as well. */
export type Registers = RegisterWitness | string;

/** What the other hosts have to know of north. */
export interface Reach {
  readonly port: number;
  readonly registers: Registers;
}

export interface HostOptions {
  /** Where north listens (0: any free one), or is dialled (0: where nobody listens). */
  readonly port: number;
  readonly registers: Registers;
  /** Keys of the file, beside hosts and domains. */
  readonly file?: Record<string, unknown>;
  /** Of the sections of single hosts. */
  readonly hosts?: Partial<Record<HostName, Record<string, unknown>>>;
  /** `hosts`: north and south, if left out. */
  readonly domains: readonly Record<string, unknown>[];
}

/** Nobody listens there: an agent that was replaced finds nobody whom it could stand by for. */
const NOWHERE: Readonly<Record<HostName, number>> = { south: 1, north: 2, west: 3 };

export function agentOn(
  host: HostName,
  options: HostOptions,
  dependencies: Omit<Partial<AgentDependencies>, 'witness'>,
): AgentService {
  const { port, registers, file, hosts, domains } = options;
  const sectionOf = (name: HostName) => ({
    address: '127.0.0.1',
    port: name === 'north' && port > 0 ? port : NOWHERE[name],
    ...hosts?.[name],
  });
  const config = parseCluster(
    {
      witness: { kind: 'none' },
      hosts: { north: sectionOf('north'), south: sectionOf('south'), west: sectionOf('west') },
      domains: domains.map((domain) => ({ hosts: ['north', 'south'], ...domain })),
      http: false,
      ...file,
    },
    host,
  );
  // A file names each port; here any free one will do.
  const listen = { ...config.listen, port: host === 'north' ? port : 0 };
  const witness =
    typeof registers === 'string' ? createFileWitness({ directory: registers }) : lasting(registers);
  return createAgent({ ...config, listen }, { ...dependencies, witness: { witness, shared: true } });
}

/** No agent that has an end closes it. */
export function lasting(registers: RegisterWitness): RegisterWitness {
  return {
    name: registers.name,
    read: (...given) => registers.read(...given),
    compareAndSet: (...given) => registers.compareAndSet(...given),
    close: () => undefined,
  };
}

/** For one that is nobody's standby here: what it would need for that is not made as long as it lives. */
export const neverOpened: AgentDependencies['openTarget'] = (_, signal) =>
  new Promise((_resolve, reject) =>
    signal?.addEventListener('abort', () => reject(new Error('it is not wanted any more'))),
  );

/** A host's way to the witness, which can be cut. */
export class WitnessLine implements RegisterWitness {
  readonly name = 'behind a line';
  isCut = false;

  constructor(private readonly registers: RegisterWitness) {}

  read: RegisterWitness['read'] = async (...given) => {
    this.#pass();
    return this.registers.read(...given);
  };

  compareAndSet: RegisterWitness['compareAndSet'] = async (...given) => {
    this.#pass();
    return this.registers.compareAndSet(...given);
  };

  close(): void {
    // The witness is not its own.
  }

  #pass(): void {
    if (this.isCut) throw new WitnessError('UNREACHABLE', 'the line is cut');
  }
}

/** A host, and what its agent says. */
export class WatchedHost {
  readonly service: AgentService;
  readonly checkpoints: CheckpointReport[] = [];
  readonly commits: CommitReport[] = [];
  readonly failovers: FailoverEvent[] = [];
  readonly losses: StandbyLossReport[] = [];
  readonly transitions: TransitionReport[] = [];
  /** As it was at each transition: what a domain came to is soon followed by what the host does next. */
  readonly history: DomainStatus[] = [];

  constructor(service: AgentService) {
    this.service = service;
    service.checkpoints$.subscribe((report) => this.checkpoints.push(report));
    service.commits$.subscribe((report) => this.commits.push(report));
    service.failover$.subscribe((event) => this.failovers.push(event));
    service.standbyLosses$.subscribe((report) => this.losses.push(report));
    service.transitions$.subscribe((report) => {
      this.transitions.push(report);
      this.history.push(this.status(report.domain));
    });
  }

  /** Left out: of the first domain. */
  status(name?: string): DomainStatus {
    const statuses = this.service.statuses();
    const found = name === undefined ? statuses[0] : statuses.find(({ domain }) => domain === name);
    if (!found) throw new Error(`no status of ${name ?? 'any domain'}`);
    return found;
  }

  /** It came to that, for good or for a moment. */
  was(role: DomainRole, name?: string): boolean {
    return this.history.some(({ role: was, domain }) => was === role && (name ?? domain) === domain);
  }

  /** The domain is this host's to run. */
  owns(name?: string): boolean {
    return this.status(name).phase === 'owner';
  }
}
