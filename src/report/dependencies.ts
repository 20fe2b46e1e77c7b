// What a service is given by whoever makes it: the places where it touches the world beyond its own sockets.

import type { PrimaryDomainConfig, SecondaryDomainConfig } from '../config/agent.js';
import type { RegisterWitness } from '../failover/register.js';
import type { SourceDomain, TargetDomain } from '../hypervisor/port.js';
import type { ConsoleWriter } from '../output/console.js';
import type { Logger } from './log.js';

export interface PrimaryDependencies {
  readonly log: Logger;
  /** Makes a domain: created, not started. `signal`: the service stops, and needs it no more. */
  readonly openSource: (config: PrimaryDomainConfig, signal?: AbortSignal) => Promise<SourceDomain>;
  /** Default: as output.console says. */
  readonly openConsole?: (config: PrimaryDomainConfig) => ConsoleWriter;
}

export interface SecondaryDependencies {
  readonly log: Logger;
  /** Makes an empty domain, to be filled. `signal`: as above. */
  readonly openTarget: (config: SecondaryDomainConfig, signal?: AbortSignal) => Promise<TargetDomain>;
  /** Default: as output.console says. */
  readonly openConsole?: (config: SecondaryDomainConfig) => ConsoleWriter;
}

export interface AgentDependencies
  extends Pick<PrimaryDependencies, 'log' | 'openSource'>, Pick<SecondaryDependencies, 'openTarget'> {
  /** Default: as output.console says. */
  readonly openConsole?: (domain: { readonly name: string }) => ConsoleWriter;
  /** Default: as configured. `shared`: one for all hosts. It is closed with the agent. */
  readonly witness?: { readonly witness: RegisterWitness; readonly shared: boolean };
}
