// Two hosts in one process, each with its agent, over real sockets, with one register that both see: who runs the domain
// changes, and what it says is heard by one listener, whoever lets it out.

import { pino, type Logger } from 'pino';
import { parseCluster } from '../../src/config/cluster.js';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import type { RegisterWitness } from '../../src/failover/register.js';
import type { AgentDependencies } from '../../src/report/dependencies.js';
import type {
  AgentService,
  CheckpointReport,
  DomainStatus,
  FailoverEvent,
} from '../../src/report/reports.js';
import { createAgent } from '../../src/service/agent.js';
import { openSource, openTarget } from '../../src/service/hypervisors.js';
import { HOSTS, PATIENCE_MS, type HostName } from './agent-pair.js';
import { lasting } from './hosts.js';
import type { Cleanup } from '../support/cleanup.js';
import { freePorts } from '../support/ports.js';
import { until } from '../support/until.js';
import type { Proxy } from './proxy.js';

const log = pino({ level: process.env['ROMULUS_TEST_LOG'] ?? 'silent' }, pino.destination(2));

export interface TwoAgentsOptions {
  readonly hypervisor: Record<string, unknown>;
  readonly domain?: Record<string, unknown>;
  readonly hypervisors?: Pick<AgentDependencies, 'openSource' | 'openTarget'>;
  readonly witness?: RegisterWitness;
  /** Default: as ROMULUS_TEST_LOG says. */
  readonly log?: Logger;
  /** The standby reaches its owner through these; else directly. */
  readonly proxies?: Readonly<Record<HostName, Proxy>>;
}

export class TwoAgents {
  /** All that was let out, in the order in which it was. */
  said = '';
  readonly failovers: FailoverEvent[] = [];
  readonly checkpoints: CheckpointReport[] = [];
  #committedOutput = 0;
  /** Of the last failover: how much had been let out, and how much was said as of the checkpoint that goes on. */
  #cut: { readonly letOut: number; readonly committed: number } | null = null;
  readonly witness: RegisterWitness;
  readonly #ports: Readonly<Record<HostName, number>>;
  readonly #options: TwoAgentsOptions;
  /** Where each is reached by the other, if not at its own port. */
  readonly #doors = new Map<HostName, number>();
  readonly #agents = new Map<HostName, AgentService>();

  /** `isPaired`: the pair is, when it resolves. */
  static async start(cleanup: Cleanup, options: TwoAgentsOptions, isPaired = true): Promise<TwoAgents> {
    const [alpha = 0, beta = 0] = await freePorts(2);
    const two = new TwoAgents({ alpha, beta }, options);
    for (const host of HOSTS) {
      const proxy = options.proxies?.[host];
      if (!proxy) continue;
      proxy.target = { alpha, beta }[host];
      two.#doors.set(host, await proxy.listen());
      cleanup.add(() => proxy.close());
    }
    cleanup.add(() => two.stop());
    for (const host of HOSTS) await two.begin(host);
    if (isPaired) await two.paired();
    return two;
  }

  private constructor(ports: Readonly<Record<HostName, number>>, options: TwoAgentsOptions) {
    this.#ports = ports;
    this.#options = options;
    this.witness = options.witness ?? createMemoryWitness();
  }

  async begin(host: HostName): Promise<void> {
    const { hypervisor, domain, hypervisors } = this.#options;
    const config = parseCluster(
      {
        witness: { kind: 'none' },
        hosts: Object.fromEntries(
          HOSTS.map((name) => {
            const door = name === host ? undefined : this.#doors.get(name);
            return [name, { address: '127.0.0.1', port: door ?? this.#ports[name] }];
          }),
        ),
        domains: [{ name: 'web', hosts: HOSTS, hypervisor, checkpoint: { intervalMs: 20 }, ...domain }],
        http: false,
      },
      host,
    );
    const agent = createAgent(config, {
      ...(hypervisors ?? { openSource, openTarget }),
      log: (this.#options.log ?? log).child({ host }),
      witness: { witness: lasting(this.witness), shared: true },
      openConsole: () => ({
        write: (bytes) => (this.said += Buffer.from(bytes).toString('latin1')),
        close: () => undefined,
      }),
    });
    this.#agents.set(host, agent);
    agent.failover$.subscribe((event) => {
      this.failovers.push(event);
      if (event.phase === 'started')
        this.#cut = { letOut: this.said.length, committed: this.#committedOutput };
    });
    agent.commits$.subscribe(({ outputBytes }) => (this.#committedOutput = outputBytes));
    agent.checkpoints$.subscribe((report) => this.checkpoints.push(report));
    await agent.start();
  }

  /**
   * Octets of the tick guest's console that no owner let out: it died between a checkpoint's acknowledgement and its
   * release. Negative if it let out what was committed nowhere.
   */
  get lost(): number {
    return this.#cut ? this.#cut.committed - this.#cut.letOut : 0;
  }

  /** What the tick guest said, with what was lost at a failover filled in: octet for octet one history, if all is well. */
  get history(): string {
    const { said, lost } = this;
    if (!this.#cut || lost <= 0) return said;
    const before = said.slice(0, this.#cut.letOut);
    const last = [...before.matchAll(/tick (\d+) ok\r?\n/g)].at(-1);
    if (!last) throw new Error('it had not ticked before the failover');
    const [line, tick] = last;
    const lineEnd = line.slice(line.indexOf('ok') + 2);
    let next = '';
    for (let k = Number(tick) + 1; next.length < before.length + lost; k++) next += `tick ${k} ok${lineEnd}`;
    const from = before.length - (last.index + line.length);
    return before + next.slice(from, from + lost) + said.slice(this.#cut.letOut);
  }

  agent(host: HostName): AgentService {
    const agent = this.#agents.get(host);
    if (!agent) throw new Error(`there is no agent of ${host}`);
    return agent;
  }

  status(host: HostName): DomainStatus {
    const [status] = this.agent(host).statuses();
    if (!status) throw new Error(`${host} has no domain`);
    return status;
  }

  /** The host that owns the domain, if one does. */
  get owner(): HostName | null {
    const owners = HOSTS.filter((host) => this.#agents.has(host) && this.status(host).phase === 'owner');
    if (owners.length > 1) throw new Error('two hosts own the domain');
    return owners[0] ?? null;
  }

  /** Resolves when the owner may hand over. */
  async paired(): Promise<{ readonly owner: HostName; readonly standby: HostName }> {
    await until('paired', () => this.owner !== null && this.#isPaired(this.owner), PATIENCE_MS);
    const { owner } = this;
    if (owner === null) throw new Error('it was paired, and has no owner');
    return { owner, standby: owner === 'alpha' ? 'beta' : 'alpha' };
  }

  /** What is heard goes on. */
  async more(octets = 200): Promise<void> {
    const { length } = this.said;
    await until('more is said', () => this.said.length > length + octets, PATIENCE_MS);
  }

  async end(host: HostName): Promise<void> {
    const agent = this.#agents.get(host);
    this.#agents.delete(host);
    await agent?.stop();
  }

  async stop(): Promise<void> {
    await Promise.all(HOSTS.map((host) => this.end(host)));
  }

  #isPaired(owner: HostName): boolean {
    return this.status(owner).link === 'replicating';
  }
}
