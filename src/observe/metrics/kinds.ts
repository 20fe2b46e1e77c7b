// The kinds of metric that belong to domains, each with the label `domain` and read or seeded when Prometheus scrapes.

import { Counter, Gauge, type Registry } from 'prom-client';
import type { DomainStatus } from '../../report/reports.js';

export type Statuses = () => readonly DomainStatus[];

/** One series for each domain, read at scrape; null: none. */
export function gauge(
  registry: Registry,
  name: string,
  help: string,
  statuses: Statuses,
  read: (status: DomainStatus) => number | null,
): void {
  new Gauge({
    name,
    help,
    labelNames: ['domain'],
    registers: [registry],
    collect() {
      this.reset();
      for (const status of statuses()) {
        const value = read(status);
        if (value !== null) this.set({ domain: status.domain }, value);
      }
    },
  });
}

/** One series for each domain and state: 1 for the state that it is in. */
export function stateSet<State extends string>(
  registry: Registry,
  name: string,
  label: string,
  states: readonly State[],
  help: string,
  statuses: Statuses,
  read: (status: DomainStatus) => State,
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
