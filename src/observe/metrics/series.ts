// The kinds of metric that belong to domains, each with the label `domain` and read or seeded when Prometheus scrapes.

import { Counter, Gauge, type Registry } from 'prom-client';
import type { DomainStatus } from '../../report/reports.js';

export type Statuses = () => readonly DomainStatus[];

/** One series for each domain; `read` gives null: none. */
export interface GaugeRow {
  readonly name: string;
  readonly help: string;
  readonly read: (status: DomainStatus, nowMs: number) => number | null;
}

/** Read at scrape. */
export function gauge(
  registry: Registry,
  { name, help, read }: GaugeRow,
  statuses: Statuses,
  nowMs: () => number,
): void {
  new Gauge({
    name,
    help,
    labelNames: ['domain'],
    registers: [registry],
    collect() {
      this.reset();
      for (const status of statuses()) {
        const value = read(status, nowMs());
        if (value !== null) this.set({ domain: status.domain }, value);
      }
    },
  });
}

/** One series for each domain and state: 1 for the state that it is in. */
export interface StateRow {
  readonly name: string;
  readonly help: string;
  readonly label: string;
  readonly states: readonly string[];
  readonly read: (status: DomainStatus) => string;
}

/** Read at scrape. */
export function stateSet(
  registry: Registry,
  { name, help, label, states, read }: StateRow,
  statuses: Statuses,
): void {
  new Gauge({
    name,
    help,
    labelNames: ['domain', label],
    registers: [registry],
    collect() {
      this.reset();
      for (const status of statuses()) {
        const now = read(status);
        for (const state of states)
          this.set({ domain: status.domain, [label]: state }, Number(state === now));
      }
    },
  });
}

type Labels = Readonly<Record<string, string>>;
const NO_LABELS: readonly Labels[] = [{}];

/** A counter whose series are there from the first scrape on: one for each domain and each of `variants`. */
export function counter(
  registry: Registry,
  name: string,
  help: string,
  statuses: Statuses,
  variants: readonly Labels[] = NO_LABELS,
): Counter {
  return new Counter({
    name,
    help,
    labelNames: ['domain', ...Object.keys(variants[0] ?? {})],
    registers: [registry],
    collect() {
      for (const { domain } of statuses()) {
        for (const labels of variants) this.inc({ domain, ...labels }, 0);
      }
    },
  });
}
