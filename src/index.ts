// What a program that embeds Romulus imports.

export { ChannelError, type ChannelErrorCode } from './channel/contract.js';
export { CredentialsError, type CredentialsErrorCode } from './channel/credentials/token-file.js';
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
export { HypervisorError, type HypervisorErrorCode } from './hypervisor/port.js';
export type { Domain, SourceDomain, TargetDomain } from './hypervisor/port.js';
export type { ConsoleWriter } from './output/console.js';
export type { PrimaryDependencies, SecondaryDependencies } from './report/dependencies.js';
export { ServiceError, type ServiceErrorCode } from './report/error.js';
export {
  createHttpServer,
  HttpError,
  type HttpServer,
  type HttpServerOptions,
} from './observe/http/server.js';
export { openSource, openTarget } from './service/hypervisors.js';
export { createLogger, type Logger } from './report/log.js';
export { createPrimaryMetrics, createSecondaryMetrics, type Metrics } from './observe/metrics/metrics.js';
export { createPrimaryService } from './service/primary-service.js';
export type * from './report/reports.js';
export { createSecondaryService } from './service/secondary-service.js';
export { VERSION } from './version.js';
