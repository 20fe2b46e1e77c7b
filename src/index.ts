// What a program that embeds Romulus imports.

export { ChannelError, type ChannelErrorCode } from './channel/contract.js';
export { ConfigError, type ConfigErrorCode, type ConfigProblem } from './config/error.js';
export {
  loadPrimaryConfig,
  loadSecondaryConfig,
  parsePrimaryConfig,
  parseSecondaryConfig,
} from './config/load.js';
export type {
  PrimaryConfig,
  PrimaryDomainConfig,
  SecondaryConfig,
  SecondaryDomainConfig,
} from './config/schema.js';
export { RomulusError, type Fact, type Facts } from './errors.js';
export { unwitnessed, type Lease, type Witness } from './failover/witness.js';
export { HypervisorError, type HypervisorErrorCode } from './hypervisor/port.js';
export type { Domain, SourceDomain, TargetDomain } from './hypervisor/port.js';
export type { ConsoleWriter } from './service/console.js';
export type { PrimaryDependencies, SecondaryDependencies } from './service/dependencies.js';
export { ServiceError, type ServiceErrorCode } from './service/error.js';
export { createHttpServer, HttpError, type HttpServer, type HttpServerOptions } from './service/http.js';
export { openSource, openTarget } from './service/hypervisors.js';
export { createLogger, type Logger } from './service/log.js';
export { createPrimaryMetrics, createSecondaryMetrics, type Metrics } from './service/metrics.js';
export { createPrimaryService } from './service/primary.js';
export type * from './service/reports.js';
export { createSecondaryService } from './service/secondary.js';
export { VERSION } from './version.js';
