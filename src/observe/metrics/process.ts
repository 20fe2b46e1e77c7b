// What Prometheus wants to know of any process: CPU, memory, file descriptors, event loop, garbage collection, under
// their customary names (process_*, nodejs_*); and what became of its log.
//
// prom-client starts observers for these (garbage collection, event-loop delay) that it cannot stop. So they are made
// once for the process, which owns them, and each agent's registry lists the same ones.

import { collectDefaultMetrics, Counter, Registry } from 'prom-client';
import { logLinesDropped } from '../../report/log.js';

/** Gauges with the suffix of a counter: `promtool check metrics` refuses them, and each has a twin by type. */
const MISNAMED = [
  'nodejs_active_handles_total',
  'nodejs_active_requests_total',
  'nodejs_active_resources_total',
];

let ofThisProcess: Registry | null = null;

export function registerProcessMetrics(registry: Registry): void {
  if (ofThisProcess === null) {
    ofThisProcess = new Registry();
    collectDefaultMetrics({ register: ofThisProcess });
    for (const name of MISNAMED) ofThisProcess.removeSingleMetric(name);
    new Counter({
      name: 'romulus_log_lines_dropped_total',
      help: 'Lines of the log that whoever reads standard error did not take in time.',
      registers: [ofThisProcess],
      collect() {
        this.reset();
        this.inc(logLinesDropped());
      },
    });
  }
  for (const { name } of ofThisProcess.getMetricsAsArray()) {
    const metric = ofThisProcess.getSingleMetric(name);
    if (metric) registry.registerMetric(metric);
  }
}
