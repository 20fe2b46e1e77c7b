// What a program that embeds Romulus imports.

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
export type { Lease, Witness } from './failover/witness.js';
export type { PrimaryDependencies, SecondaryDependencies } from './service/dependencies.js';
export { createHttpServer, type HttpServer, type HttpServerOptions } from './service/http.js';
export { createLogger } from './service/log.js';
export { createPrimaryMetrics, createSecondaryMetrics, type Metrics } from './service/metrics.js';
export { createPrimaryService } from './service/primary.js';
export type * from './service/reports.js';
export { createSecondaryService } from './service/secondary.js';
export { VERSION } from './version.js';
