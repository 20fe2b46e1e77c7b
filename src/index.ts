// What a program that embeds Romulus imports.

export { ChannelError, type ChannelErrorCode } from './channel/contract.js';
export { CredentialsError, type CredentialsErrorCode } from './channel/credentials/token-file.js';
export type {
  AgentConfig,
  AgentDomainConfig,
  HostConfig,
  PrimaryDomainConfig,
  SecondaryDomainConfig,
} from './config/agent.js';
export { loadCluster, parseCluster } from './config/cluster.js';
export { ConfigError, type ConfigErrorCode, type ConfigProblem } from './config/error.js';
export type { WitnessConfig } from './config/witness.js';
export { RomulusError, type Fact, type Facts } from './errors.js';
export { WitnessError, type WitnessErrorCode } from './failover/error.js';
export type { Claim, Register, RegisterWitness } from './failover/register.js';
export { HypervisorError, type HypervisorErrorCode } from './hypervisor/port.js';
export type { Domain, SourceDomain, TargetDomain } from './hypervisor/port.js';
export type { ConsoleWriter } from './output/console.js';
export type { AgentDependencies } from './report/dependencies.js';
export { ServiceError, type ServiceErrorCode } from './report/error.js';
export { createControl, type Control, type ControlOptions } from './observe/http/control.js';
export {
  createHttpServer,
  HttpError,
  type HttpServer,
  type HttpServerOptions,
} from './observe/http/server.js';
export { openSource, openTarget } from './service/hypervisors.js';
export { createLogger, type Logger } from './report/log.js';
export { createAgentMetrics, type Metrics } from './observe/metrics/metrics.js';
export { createAgent } from './service/agent.js';
export type * from './report/reports.js';
export { VERSION } from './version.js';
