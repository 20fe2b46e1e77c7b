// One process that is the primary of its domains.

import { loadPrimaryConfig } from '../config/load.js';
import { fencedHookEvents } from '../observe/hooks/events.js';
import { createLogger } from '../report/log.js';
import { createPrimaryMetrics } from '../observe/metrics/metrics.js';
import { createPrimaryService } from '../service/primary-service.js';
import type { ExitCode } from './exit-codes.js';
import { serve } from './serve.js';

export async function primaryVerb(file: string): Promise<ExitCode> {
  const config = await loadPrimaryConfig(file);
  const log = createLogger(config.log);
  const service = createPrimaryService(config, { log });
  return serve({
    side: 'primary',
    service,
    log,
    http: config.http,
    hooks: config.hooks,
    hookEvents$: fencedHookEvents(service),
    metrics: (hookOutcomes$) => createPrimaryMetrics(service, { hookOutcomes$ }),
    report: (tell) => [
      service.checkpoints$.subscribe((report) => tell({ kind: 'checkpoint', report })),
      service.transitions$.subscribe((report) => tell({ kind: 'transition', report })),
    ],
    port: () => service.port,
  });
}
