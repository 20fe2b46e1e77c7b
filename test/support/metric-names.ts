// Which romulus_ metrics there are, as the services register them, and which ones an expression names.

import { createPrimaryMetrics, createSecondaryMetrics } from '../../src/observe/metrics/metrics.js';
import { FakePrimary, FakeSecondary } from '../service/fakes.js';

export interface RegisteredMetric {
  readonly name: string;
  readonly type: string;
}

/** Those of both sides, each once. */
export async function registeredMetrics(): Promise<RegisteredMetric[]> {
  const found = new Map<string, RegisteredMetric>();
  for (const metrics of [
    createPrimaryMetrics(new FakePrimary()),
    createSecondaryMetrics(new FakeSecondary()),
  ]) {
    for (const { name, type } of await metrics.registry.getMetricsAsJSON()) {
      // A number at run time (it indexes MetricType), a name in the text format.
      if (name.startsWith('romulus_')) found.set(name, { name, type: String(type) });
    }
    metrics.stop();
  }
  return [...found.values()];
}

/** Without the suffixes that the series of a histogram have. */
export function romulusMetricsIn(expression: string): string[] {
  const names = expression.match(/\bromulus_\w+/g) ?? [];
  return names.map((name) => name.replace(/_(bucket|sum|count)$/, ''));
}
