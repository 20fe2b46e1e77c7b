// The dashboard shows every metric, names none that does not exist, and can be read by Prometheus and Grafana alike.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { stringify } from 'yaml';
import { registeredMetrics, romulusMetricsIn } from '../support/metric-names.js';
import { promtool, PROMTOOL_TIMEOUT_MS } from '../support/promtool.js';

interface GridPos {
  readonly h: number;
  readonly w: number;
  readonly x: number;
  readonly y: number;
}
interface Datasource {
  readonly type: string;
  readonly uid: string;
}
interface Target {
  readonly refId: string;
  readonly expr: string;
  readonly datasource: Datasource;
  readonly legendFormat: string;
}
interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: GridPos;
  readonly datasource?: Datasource;
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } };
  readonly targets?: readonly Target[];
}
interface Variable {
  readonly name: string;
  readonly type: string;
  readonly query: unknown;
  readonly definition?: string;
  readonly datasource?: Datasource;
}
interface Dashboard {
  readonly uid: string;
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly Variable[] };
  readonly annotations: {
    readonly list: readonly { readonly expr: string; readonly datasource: Datasource }[];
  };
}

const FROM_VARIABLE = { type: 'prometheus', uid: '${datasource}' };

/** Grafana's variables, replaced as Grafana would. */
function expand(expression: string): string {
  return expression
    .replaceAll('$__rate_interval', '1m')
    .replaceAll('$__range', '15m')
    .replaceAll('$domain', '.*')
    .replaceAll('$instance', '.*');
}

describe('grafana dashboard', () => {
  let dashboard: Dashboard;
  let panels: readonly Panel[];
  let expressions: readonly string[];
  before(async () => {
    dashboard = JSON.parse(await readFile('grafana/romulus.json', 'utf8')) as Dashboard;
    panels = dashboard.panels.filter(({ type }) => type !== 'row');
    expressions = panels.flatMap(({ targets }) => (targets ?? []).map(({ expr }) => expr));
  });

  it('shows each metric in a panel', async () => {
    const shown = new Set(expressions.flatMap(romulusMetricsIn));
    const registered = await registeredMetrics();
    expect(registered).to.have.length.greaterThan(20);
    expect(registered.filter(({ name }) => !shown.has(name))).to.deep.equal([]);
  });

  it('names no metric that does not exist, and asks histograms for buckets, sums and counts only', async () => {
    const types = new Map((await registeredMetrics()).map(({ name, type }) => [name, type]));
    const everything = [...expressions, ...dashboard.annotations.list.map(({ expr }) => expr)];
    for (const name of everything.flatMap((expression) => expression.match(/\bromulus_\w+/g) ?? [])) {
      const bare = name.replace(/_(bucket|sum|count)$/, '');
      expect([...types.keys()], name).to.include(bare);
      expect(bare !== name, name).to.equal(types.get(bare) === 'histogram');
    }
    for (const { definition, name } of dashboard.templating.list.filter(({ type }) => type === 'query')) {
      const [metric = ''] = romulusMetricsIn(definition ?? '');
      expect([...types.keys()], name).to.include(metric);
    }
  });

  it('has a stable identity, and the variables datasource, domain and instance', () => {
    expect(dashboard.uid).to.equal('romulus-replication');
    expect(dashboard.templating.list.map(({ name, type }) => `${name} ${type}`)).to.deep.equal([
      'datasource datasource',
      'domain query',
      'instance query',
    ]);
    for (const { type, datasource } of dashboard.templating.list) {
      if (type === 'query') expect(datasource).to.deep.equal(FROM_VARIABLE);
    }
  });

  it('has a title, a description and a unit on each panel, and takes its data from the variable', () => {
    for (const { title, description, fieldConfig, datasource, targets = [] } of panels) {
      expect(title).to.not.equal('');
      expect(description ?? '', title).to.not.equal('');
      expect(fieldConfig?.defaults.unit ?? '', title).to.not.equal('');
      expect(datasource, title).to.deep.equal(FROM_VARIABLE);
      expect(targets, title).to.not.be.empty;
      for (const target of targets) {
        expect(target.datasource, title).to.deep.equal(FROM_VARIABLE);
        expect(target.legendFormat, title).to.not.equal('');
        expect(target.expr, title).to.match(/\$domain|\$instance/);
      }
      expect(new Set(targets.map(({ refId }) => refId)).size, title).to.equal(targets.length);
    }
    for (const { datasource } of dashboard.annotations.list) expect(datasource).to.deep.equal(FROM_VARIABLE);
  });

  it('lays out panels with ids of their own, inside 24 columns, none over another', () => {
    const all = dashboard.panels;
    expect(new Set(all.map(({ id }) => id)).size).to.equal(all.length);
    const taken = new Map<string, string>();
    for (const { title, gridPos } of all) {
      expect(gridPos.x + gridPos.w, title).to.be.at.most(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.get(`${x},${y}`), title).to.equal(undefined);
          taken.set(`${x},${y}`, title);
        }
      }
    }
  });

  it('has expressions that Prometheus parses', async function () {
    this.timeout(PROMTOOL_TIMEOUT_MS);
    const queries = [...expressions, ...dashboard.annotations.list.map(({ expr }) => expr)];
    const rules = queries.map((query, index) => ({
      record: `panel:expression:${index}`,
      expr: expand(query),
    }));
    const directory = await mkdtemp(path.join(os.tmpdir(), 'romulus-dashboard-'));
    try {
      const file = path.join(directory, 'rules.yml');
      await writeFile(file, stringify({ groups: [{ name: 'dashboard', rules }] }));
      const checked = await promtool(['check', 'rules', file]);
      if (checked === null) return this.skip();
      expect(checked.code, checked.output).to.equal(0);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
