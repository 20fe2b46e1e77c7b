// One process that is the secondary of its domains.

import { loadSecondaryConfig } from '../config/load.js';
import { failoverHookEvents } from '../observe/hooks/events.js';
import { createLogger } from '../report/log.js';
import { createSecondaryMetrics } from '../observe/metrics/metrics.js';
import { createSecondaryService } from '../service/secondary-service.js';
import type { ExitCode } from './exit-codes.js';
import { serve } from './serve.js';

export async function secondaryVerb(file: string): Promise<ExitCode> {
  const config = await loadSecondaryConfig(file);
  const log = createLogger(config.log);
  const service = createSecondaryService(config, { log });
  return serve({
    side: 'secondary',
    service,
    log,
    http: config.http,
    hooks: config.hooks,
    hookEvents$: failoverHookEvents(service),
    metrics: (hookOutcomes$) => createSecondaryMetrics(service, { hookOutcomes$ }),
    report: (tell) => [
      service.commits$.subscribe((report) => tell({ kind: 'commit', report })),
      service.failover$.subscribe((event) => tell({ kind: 'failover', event })),
      service.transitions$.subscribe((report) => tell({ kind: 'transition', report })),
    ],
    port: () => null,
  });
}
