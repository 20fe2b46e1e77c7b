// The series of an agent's domains: each has the label `domain`, and is read or seeded when Prometheus scrapes.

import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { DomainStatus } from '../../report/reports.js';

type Labels = Readonly<Record<string, string>>;
const NO_LABELS: readonly Labels[] = [{}];

export class DomainSeries {
  constructor(
    readonly registry: Registry,
    readonly statuses: () => readonly DomainStatus[],
  ) {}

  /** Read at scrape: for each domain one series, or none (null). */
  gauge(name: string, help: string, read: (status: DomainStatus) => number | null): void {
    this.gauges(name, help, [], (status) => {
      const value = read(status);
      return value === null ? [] : [[{}, value]];
    });
  }

  /** Read at scrape: for each domain one series for each state, 1 for the state that it is in. */
  states(
    name: string,
    help: string,
    label: string,
    states: readonly string[],
    read: (status: DomainStatus) => string,
  ): void {
    this.gauges(name, help, [label], (status) =>
      states.map((state) => [{ [label]: state }, Number(state === read(status))]),
    );
  }

  /** Read at scrape: for each domain as many series as it has, each with its `labels`. */
  gauges(
    name: string,
    help: string,
    labels: readonly string[],
    read: (status: DomainStatus) => readonly (readonly [Labels, number])[],
  ): void {
    const { statuses } = this;
    new Gauge({
      name,
      help,
      labelNames: ['domain', ...labels],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const status of statuses()) {
          for (const [own, value] of read(status)) this.set({ domain: status.domain, ...own }, value);
        }
      },
    });
  }

  /** Read at scrape, as gauges(); but what is read only grows. */
  counters(
    name: string,
    help: string,
    labels: readonly string[],
    read: (status: DomainStatus) => readonly (readonly [Labels, number])[],
  ): void {
    const { statuses } = this;
    new Counter({
      name,
      help,
      labelNames: ['domain', ...labels],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const status of statuses()) {
          for (const [own, value] of read(status)) this.inc({ domain: status.domain, ...own }, value);
        }
      },
    });
  }

  /** Its series are there from the first scrape on: one for each domain and each of `variants`. */
  counter(name: string, help: string, variants = NO_LABELS): Counter {
    const { statuses } = this;
    return new Counter({
      name,
      help,
      labelNames: ['domain', ...Object.keys(variants[0] ?? {})],
      registers: [this.registry],
      collect() {
        for (const { domain } of statuses()) {
          for (const labels of variants) this.inc({ domain, ...labels }, 0);
        }
      },
    });
  }

  histogram(name: string, help: string, buckets: number[], labels: readonly string[] = []): Histogram {
    return new Histogram({
      name,
      help,
      labelNames: ['domain', ...labels],
      buckets,
      registers: [this.registry],
    });
  }

  /** Set when something is reported, and not there before. */
  reported(name: string, help: string): Gauge {
    return new Gauge({ name, help, labelNames: ['domain'], registers: [this.registry] });
  }
}
