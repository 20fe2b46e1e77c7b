// romulus primary

import { map, merge } from 'rxjs';
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
    reports$: merge(
      service.checkpoints$.pipe(map((report) => ({ kind: 'checkpoint', report }) as const)),
      service.transitions$.pipe(map((report) => ({ kind: 'transition', report }) as const)),
    ),
    port: () => service.port,
  });
}
