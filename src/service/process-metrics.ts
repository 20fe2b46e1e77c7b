// What Prometheus wants to know of any process: CPU, memory, file descriptors, event loop, garbage collection, under
// their customary names (process_*, nodejs_*).
//
// prom-client starts observers for these (garbage collection, event-loop delay) that it cannot stop. So they are made
// once for the process, which owns them, and each service's registry lists the same ones.

import { collectDefaultMetrics, Registry } from 'prom-client';

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
  }
  for (const { name } of ofThisProcess.getMetricsAsArray()) {
    const metric = ofThisProcess.getSingleMetric(name);
    if (metric) registry.registerMetric(metric);
  }
}
