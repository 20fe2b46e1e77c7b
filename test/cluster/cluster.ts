// A cluster in a lab: hosts with their agents, a real etcd, and who listens to it from outside.

import type { Register } from '../../src/failover/register.js';
import type { GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { Lab, needLab, TAP } from '../hypervisor/qemu/lab.js';
import { ensureInstalled, ensureTool } from '../support/tools.js';
import { ensureGuest, GUEST_TIMEOUT_MS, guestMachine } from '../support/qemu.js';
import { until } from '../support/until.js';
import { ClusterHost, type Said, type Seen, type Tick } from './host.js';
import { ADDRESS_OF, cutWay, healWay, HOSTS, networkOf, type HostName, type Party } from './network.js';
import { contradiction, Outside, ownersOf, speechesOf } from './outside.js';
import { ENDPOINT, Witness } from './witness.js';

export const DOMAIN = 'counter';
export const GUEST_MAC = '52:54:00:77:00:02';
/** Until a guest that is started speaks, or one is synchronised, on a machine that has other things to do. */
export const PATIENCE_MS = 90_000;

export interface ClusterOptions {
  /** Default: two. */
  readonly hosts?: readonly HostName[];
  /** The domains; see qemuDomain(), embeddedDomain(). */
  readonly domains: readonly object[];
  readonly etcd: string;
  /** There is a guest with a network. Default: true. */
  readonly frames?: boolean;
}

export interface DomainOptions {
  readonly name?: string;
  readonly hosts?: readonly HostName[];
  readonly intervalMs?: number;
  /** Silence that is death. */
  readonly timeoutMs?: number;
  readonly reconnectWindowMs?: number;
  readonly memory?: string;
  /** Where its console goes to; default: to the agent's standard output. */
  readonly console?: object;
}

function domain(hypervisor: object, options: DomainOptions): object {
  const { name = DOMAIN, hosts = HOSTS.slice(0, 2) } = options;
  const { intervalMs = 20, timeoutMs = 1000, reconnectWindowMs = 300 } = options;
  return {
    name,
    hosts,
    hypervisor,
    checkpoint: { intervalMs },
    heartbeat: { intervalMs: 100, timeoutMs },
    failover: { reconnectWindowMs, redialMaxMs: 500 },
    ...(options.console && { output: { console: options.console } }),
  };
}

/** The counter of Debian's kernel, on the network. */
export function qemuDomain(files: GuestFiles, options: DomainOptions = {}): object {
  const load = { workingSetPages: 1024, dirtyPages: 100, tickMs: 50 };
  const machine = guestMachine(files, { ...load, address: `${ADDRESS_OF.guest}/24` });
  return domain({ ...machine, network: [{ id: 'lan', mac: GUEST_MAC, tap: TAP }] }, options);
}

/** A guest that ticks on its console. */
export function embeddedDomain(options: DomainOptions = {}): object {
  const guest = { workingSetPages: 256, dirtyPages: 20, tickMs: 20 };
  return domain({ kind: 'embedded', memory: options.memory ?? '4MiB', guest }, options);
}

/** @returns its name in the lab */
export function writeConfig(
  lab: Lab,
  file: string,
  hosts: readonly HostName[],
  domains: readonly object[],
): string {
  const config = {
    witness: { kind: 'etcd', endpoints: [ENDPOINT], plaintext: true },
    hosts: Object.fromEntries(hosts.map((host) => [host, { address: ADDRESS_OF[host] }])),
    plaintext: true,
    http: false,
    domains,
  };
  return lab.write(file, JSON.stringify(config)); // JSON is YAML
}

export class Cluster {
  readonly lab: Lab;
  readonly hosts: readonly ClusterHost[];
  readonly witness: Witness;
  readonly outside: Outside | null;
  readonly #cuts = new Set<`${Party} ${Party}`>();

  private constructor(lab: Lab, hosts: readonly ClusterHost[], witness: Witness, outside: Outside | null) {
    this.lab = lab;
    this.hosts = hosts;
    this.witness = witness;
    this.outside = outside;
  }

  /** Its agents are not started yet. */
  static async open({
    hosts = HOSTS.slice(0, 2),
    domains,
    etcd,
    frames = true,
  }: ClusterOptions): Promise<Cluster> {
    const lab = await Lab.open(networkOf(hosts));
    try {
      const config = writeConfig(lab, 'cluster.yaml', hosts, domains);
      const witness = await Witness.open(lab, etcd);
      const outside = frames ? await Outside.open(lab, GUEST_MAC, hosts) : null;
      const agents = hosts.map((host) => new ClusterHost(lab, host, config));
      return new Cluster(lab, agents, witness, outside);
    } catch (thrown) {
      await lab.close();
      throw thrown;
    }
  }

  /** All hosts at once. */
  async start(): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.start()));
  }

  /** All of it ends. */
  close(): Promise<void> {
    return this.lab.close();
  }

  host(name: HostName): ClusterHost {
    const host = this.hosts.find((each) => each.name === name);
    if (!host) throw new Error(`there is no ${name}`);
    return host;
  }

  /** Whoever says that it runs here; null: nobody, or two. */
  owner(name = DOMAIN): ClusterHost | null {
    const owners = this.hosts.filter((host) => host.partIn(name).role === 'primary');
    return owners.length === 1 ? (owners[0] ?? null) : null;
  }

  /** Whoever has a whole checkpoint and is linked: the one that the register names, if there are more who say so. */
  standby(name = DOMAIN): ClusterHost | null {
    const standbys = this.hosts.filter((host) => {
      const { role, link } = host.partIn(name);
      return role === 'standby' && link === 'replicating';
    });
    const named = this.register(name)?.standby;
    return standbys.find((host) => host.name === named) ?? standbys[0] ?? null;
  }

  /** The last that was written to the register. */
  register(name = DOMAIN): Seen | null {
    const seen = this.hosts.map((host) => host.wonIn(name)).filter((each) => each !== undefined);
    return seen.sort((one, other) => other.generation - one.generation)[0] ?? null;
  }

  /** Either side may die: by the register, too. */
  isProtected(name = DOMAIN): boolean {
    const [owner, standby, register] = [this.owner(name), this.standby(name), this.register(name)];
    return (
      owner?.partIn(name).link === 'replicating' &&
      register?.mode === 'paired' &&
      register.owner === owner.name &&
      register.standby === standby?.name
    );
  }

  async untilProtected(name = DOMAIN, timeoutMs = PATIENCE_MS): Promise<void> {
    await until(`${name} is protected`, () => this.isProtected(name), timeoutMs);
  }

  /** In one direction. */
  async cut(from: Party, to: Party): Promise<void> {
    this.#cuts.add(`${from} ${to}`);
    await cutWay(this.lab, from, to);
  }

  /** Safe to call where nothing is cut. */
  async mend(from: Party, to: Party): Promise<void> {
    this.#cuts.delete(`${from} ${to}`);
    await healWay(this.lab, from, to);
  }

  async cutBoth(one: Party, other: Party): Promise<void> {
    await Promise.all([this.cut(one, other), this.cut(other, one)]);
  }

  async mendBoth(one: Party, other: Party): Promise<void> {
    await Promise.all([this.mend(one, other), this.mend(other, one)]);
  }

  /** All ways are free again. */
  async heal(): Promise<void> {
    for (const cut of this.#cuts) await healWay(this.lab, ...(cut.split(' ') as [Party, Party]));
    this.#cuts.clear();
  }

  history(name = DOMAIN): Promise<readonly Register[]> {
    return this.witness.history(name);
  }

  /** On the consoles that are let out, all hosts', in the order in which they came. */
  get ticks(): readonly Tick[] {
    return this.hosts.flatMap(({ ticks }) => ticks).sort((one, other) => one.atMs - other.atMs);
  }

  /**
   * Null, or how the world has heard two: frames, and ticks of the one guest that has a console, out of turn. `boots`:
   * so often it was started, and counts from 1.
   */
  async contradiction(name = DOMAIN, boots = 1): Promise<string | null> {
    const bad = this.hosts.flatMap((host) => host.bad);
    if (bad.length > 0) return bad.join(', ');
    const owners = ownersOf(await this.history(name));
    const frames = this.outside ? await this.outside.speeches() : [];
    const { ticks } = this;
    return (
      backwards(ticks, boots) ?? contradiction(frames, owners) ?? contradiction(speechesOf(ticks), owners)
    );
  }

  /** What all hosts said, from the first time to the second (since 1970, milliseconds): for whoever looks for a fault. */
  transcript(fromMs = 0, untilMs = Infinity): string {
    return this.hosts
      .flatMap(({ said }) => said)
      .filter(({ atMs }) => atMs >= fromMs && atMs <= untilMs)
      .sort((one, other) => one.atMs - other.atMs)
      .map(lineOf)
      .join('\n');
  }
}

function backwards(ticks: readonly Tick[], boots: number): string | null {
  let left = boots - 1;
  for (const [k, { number }] of ticks.entries()) {
    // Of one that ran before its agent came, the first that is heard is any.
    if (number > (ticks[k - 1]?.number ?? -Infinity)) continue;
    if (number === 1 && left-- > 0) continue;
    const told = ticks.slice(Math.max(0, k - 2), k + 2);
    return `ticks: ${told.map((tick) => `${tick.host} ${tick.number}`).join(', ')}`;
  }
  return null;
}

function lineOf({ host, atMs, level, domain: name, msg, facts }: Said): string {
  const { reason, code, err } = facts as { reason?: string; code?: string; err?: { message: string } };
  const details = [reason, code, err?.message].filter((detail) => detail !== undefined && detail !== msg);
  const at = new Date(atMs).toISOString().slice(14, 23);
  return `${at} ${host.padEnd(5)} ${name} ${level === 'info' ? '' : `${level} `}${msg}  ${details.join(' · ')}`;
}

export interface Needed {
  readonly etcd: string;
  readonly files: GuestFiles | null;
}

/** What there must be for a cluster; null, and a loud line, where it is not to be had. */
export async function findNeeded(guest: boolean): Promise<Needed | null> {
  const etcd = await ensureTool('etcd', 'etcd-server');
  if (etcd === null || (await ensureInstalled('tcpdump', 'tcpdump')) === null) return null;
  const files = guest ? await ensureGuest() : null;
  return guest && !files ? null : { etcd, files };
}

/** For `before`: skips the suite, loudly, where there can be no cluster. */
export async function needCluster(context: Mocha.Context): Promise<{ etcd: string; files: GuestFiles }> {
  await needLab(context);
  context.timeout(GUEST_TIMEOUT_MS);
  const needed = await findNeeded(true);
  if (!needed?.files) context.skip();
  return { etcd: needed.etcd, files: needed.files };
}
