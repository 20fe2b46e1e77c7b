// Which romulus_ metrics there are, as an agent registers them, and which ones an expression names.

import { createAgentMetrics } from '../../src/observe/metrics/metrics.js';
import { FakeAgent } from '../service/fakes.js';

export interface RegisteredMetric {
  readonly name: string;
  readonly type: string;
}

export async function registeredMetrics(): Promise<RegisteredMetric[]> {
  const metrics = createAgentMetrics(new FakeAgent());
  const all = await metrics.registry.getMetricsAsJSON();
  metrics.stop();
  // A number at run time (it indexes MetricType), a name in the text format.
  return all
    .filter(({ name }) => name.startsWith('romulus_'))
    .map(({ name, type }) => ({ name, type: String(type) }));
}

/** Without the suffixes that the series of a histogram have. */
export function romulusMetricsIn(expression: string): string[] {
  const names = expression.match(/\bromulus_\w+/g) ?? [];
  return names.map((name) => name.replace(/_(bucket|sum|count)$/, ''));
}
