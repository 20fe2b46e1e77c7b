// What an agent is told: the file of the cluster as one of its hosts sees it; and a domain as the part is told of it that
// plays its role there. Defaults are filled in, sizes are in octets, paths absolute.

import { ConfigError } from './error.js';
import { authority, unknown } from './fields.js';
import type { Cluster, ClusterDomain } from './cluster-schema.js';
import { printed } from './problems.js';
import type { HooksConfig, HttpConfig, LogConfig } from './sections.js';
import type { WitnessConfig } from './witness.js';

/** How the other hosts reach one, and the name in its certificate. */
export interface HostConfig {
  readonly address: string;
  readonly port: number;
  readonly name: string;
}

/** What it shows to the host that it dials. */
export type DialConfig = Pick<Cluster, 'tls' | 'token' | 'plaintext'>;

/** Where it listens, and how. */
export interface ListenConfig
  extends DialConfig, Pick<Cluster, 'handshakeTimeoutMs' | 'maxPendingHandshakes' | 'socketBufferBytes'> {
  readonly host: string;
  readonly port: number;
}

/** As it is on this host. `hosts`: in order of preference, this one among them. */
export interface AgentDomainConfig extends ClusterDomain {
  /** A standby runs in a QEMU that is started here, not in one that is there already. */
  readonly canStandBy: boolean;
}

export interface AgentConfig {
  /** This one's name. */
  readonly host: string;
  /** All, this one among them, by name, in the order of the file. */
  readonly hosts: ReadonlyMap<string, HostConfig>;
  readonly witness: WitnessConfig;
  readonly listen: ListenConfig;
  readonly dial: DialConfig;
  readonly http: HttpConfig;
  /** The socket through which it is asked, on this host. */
  readonly control: string;
  readonly log: LogConfig;
  readonly hooks: HooksConfig;
  /** Those that this host may run. */
  readonly domains: readonly AgentDomainConfig[];
}

/** A domain while it runs here. */
export interface PrimaryDomainConfig extends Pick<
  ClusterDomain,
  'name' | 'hypervisor' | 'start' | 'checkpoint' | 'precopy' | 'disks' | 'heartbeat' | 'output'
> {
  /** One of them its secondary has in its certificate; undefined: there is no TLS. */
  readonly secondaryNames: readonly string[] | undefined;
}

/** A domain while it stands by here. */
export interface SecondaryDomainConfig
  extends DialConfig, Pick<ClusterDomain, 'name' | 'hypervisor' | 'bufferBytes' | 'failover' | 'output'> {
  /** The address of the host that runs it: ws:// or wss://. */
  readonly primary: string;
  /** What that host's certificate is for; undefined: there is no TLS. */
  readonly primaryName: string | undefined;
}

/** The domain while it runs here. Its secondary is one of its other hosts. */
export function primaryOf(domain: AgentDomainConfig, agent: AgentConfig): PrimaryDomainConfig {
  const { name, hypervisor, start, checkpoint, precopy, disks, heartbeat, output } = domain;
  const others = domain.hosts.filter((host) => host !== agent.host);
  return {
    name,
    secondaryNames: agent.listen.tls && others.map((host) => hostOf(host, agent.hosts).name),
    hypervisor,
    start,
    checkpoint,
    precopy,
    disks,
    heartbeat,
    output,
  };
}

/**
 * The domain while it stands by here for the host that runs it.
 * @throws ConfigError UNKNOWN_HOST if that is no other host of the domain: whoever named it has another file
 */
export function secondaryOf(
  domain: AgentDomainConfig,
  agent: AgentConfig,
  owner: string,
): SecondaryDomainConfig {
  const { name, hypervisor, bufferBytes, failover, output } = domain;
  const others = domain.hosts.filter((host) => host !== agent.host);
  if (!others.includes(owner))
    throw unknownHost(`owner of ${name}`, owner, unknown(owner, others, 'host beside this one'));
  const { address, port, name: primaryName } = hostOf(owner, agent.hosts);
  const { tls, token, plaintext } = agent.dial;
  return {
    name,
    primary: `${tls ? 'wss' : 'ws'}://${authority(address, port)}`,
    plaintext,
    tls,
    primaryName: tls && primaryName,
    token,
    hypervisor,
    bufferBytes,
    failover,
    output,
  };
}

function hostOf(name: string, hosts: AgentConfig['hosts']): HostConfig {
  const host = hosts.get(name);
  if (host === undefined) throw unknownHost('hosts', name, unknown(name, [...hosts.keys()], 'host'));
  return host;
}

export function unknownHost(
  path: string,
  given: string | undefined,
  expected: string,
  file: string | null = null,
) {
  return new ConfigError('UNKNOWN_HOST', file, [{ path, given: printed(given), expected }]);
}
