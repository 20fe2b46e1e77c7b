// What a program that embeds Romulus imports: the two services, their configuration, what they report, and the errors
// that they fail with.

export { createPrimaryService } from './service/primary.js';
export { createSecondaryService } from './service/secondary.js';
export { openSource, openTarget } from './service/hypervisors.js';
export { createLogger, type Logger } from './service/log.js';
export { createHttpServer, HttpError, type HttpServer } from './service/http.js';
export { createPrimaryMetrics, createSecondaryMetrics, type Metrics } from './service/metrics.js';
export type { PrimaryDependencies, SecondaryDependencies } from './service/dependencies.js';
export type { ConsoleWriter } from './service/console.js';
export type {
  CheckpointPhases,
  CheckpointReport,
  CommitReport,
  DomainRole,
  DomainStatus,
  FailoverCompleted,
  FailoverEvent,
  FailoverFailed,
  FailoverStarted,
  LinkState,
  PrimaryService,
  SecondaryService,
  TransitionReport,
} from './service/reports.js';
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
export { unwitnessed, type Lease, type Witness } from './failover/witness.js';
export type { Domain, SourceDomain, TargetDomain } from './hypervisor/port.js';
export { HypervisorError } from './hypervisor/port.js';
export { ChannelError } from './channel/contract.js';
export { ConfigError } from './config/error.js';
export { RestoreError } from './restore/error.js';
export { SaveError } from './save/error.js';
export { ServiceError } from './service/error.js';
export { StreamError } from './stream/error.js';
export { RomulusError } from './errors.js';
export { VERSION } from './version.js';
