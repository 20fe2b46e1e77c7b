// The series of an agent's domains: each has the label `domain`, and is read or seeded when Prometheus scrapes.

import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { DomainStatus } from '../../report/reports.js';

type Labels = Readonly<Record<string, string>>;
const NO_LABELS: readonly Labels[] = [{}];
/** For each series of a domain its labels, but for the domain's, and its value. */
type ReadSeries = (status: DomainStatus) => readonly (readonly [Labels, number])[];

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
  gauges(name: string, help: string, labels: readonly string[], read: ReadSeries): void {
    const each = this.#each(read);
    new Gauge({
      ...this.#ofDomains(name, help, labels),
      collect() {
        this.reset();
        each((all, value) => this.set(all, value));
      },
    });
  }

  /** Read at scrape, as gauges(); but what is read only grows. */
  counters(name: string, help: string, labels: readonly string[], read: ReadSeries): void {
    const each = this.#each(read);
    new Counter({
      ...this.#ofDomains(name, help, labels),
      collect() {
        this.reset();
        each((all, value) => this.inc(all, value));
      },
    });
  }

  /** Its series are there from the first scrape on: one for each domain and each of `variants`. */
  counter(name: string, help: string, variants = NO_LABELS): Counter {
    const { statuses } = this;
    return new Counter({
      ...this.#ofDomains(name, help, Object.keys(variants[0] ?? {})),
      collect() {
        for (const { domain } of statuses()) {
          for (const labels of variants) this.inc({ domain, ...labels }, 0);
        }
      },
    });
  }

  histogram(name: string, help: string, buckets: number[], labels: readonly string[] = []): Histogram {
    return new Histogram({ ...this.#ofDomains(name, help, labels), buckets });
  }

  /** Set when something is reported, and not there before. */
  reported(name: string, help: string): Gauge {
    return new Gauge(this.#ofDomains(name, help));
  }

  #ofDomains(name: string, help: string, labels: readonly string[] = []) {
    return { name, help, labelNames: ['domain', ...labels], registers: [this.registry] };
  }

  #each(read: ReadSeries): (put: (labels: Labels, value: number) => void) => void {
    return (put) => {
      for (const status of this.statuses()) {
        for (const [labels, value] of read(status)) put({ domain: status.domain, ...labels }, value);
      }
    };
  }
}
