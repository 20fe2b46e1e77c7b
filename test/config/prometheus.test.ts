// The files for Prometheus: its own checker accepts them, they name only metrics that exist, and the alerts go off
// when they should (test/config/alerts.yml) and not otherwise.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parse } from 'yaml';
import { romulusMetricsIn, registeredMetrics } from '../support/metric-names.js';
import { promtool, PROMTOOL_TIMEOUT_MS } from '../support/promtool.js';

interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

describe('config for Prometheus', () => {
  const { groups } = parse(readFileSync('config/alerts.yml', 'utf8')) as { groups: { rules: AlertRule[] }[] };
  const rules = groups.flatMap((group) => group.rules);

  it('has alerts with a severity, a summary and a description, on metrics that exist', async () => {
    const known = new Set((await registeredMetrics()).map(({ name }) => name));
    for (const { alert, expr, labels, annotations } of rules) {
      expect(labels['severity'], alert).to.be.oneOf(['page', 'ticket']);
      expect(annotations, alert).to.have.all.keys('summary', 'description');
      for (const name of romulusMetricsIn(expr)) expect(known, `${alert}: ${name}`).to.include(name);
    }
    expect(new Set(rules.map(({ alert }) => alert)).size).to.equal(rules.length);
  });

  for (const [what, ...command] of [
    ['rules are accepted', 'check', 'rules', 'config/alerts.yml'],
    ['scrape configuration is accepted', 'check', 'config', 'config/prometheus.yml'],
    ['alerts go off when they should', 'test', 'rules', 'test/config/alerts.yml'],
  ] as const) {
    it(what, async function () {
      this.timeout(PROMTOOL_TIMEOUT_MS);
      const checked = await promtool(command);
      if (checked === null) return this.skip();
      expect(checked.code, checked.output).to.equal(0);
    });
  }
});
