// The whole path at work: an embedded machine of 64 MiB, replicated by the two services over loopback, at an interval
// that is shorter than what it can keep up with. How many checkpoints a second are acknowledged while the guest runs.

import { Subscription } from 'rxjs';
import {
  createPrimaryService,
  createSecondaryService,
  parsePrimaryConfig,
  parseSecondaryConfig,
  type CheckpointReport,
} from '../../src/index.js';
import { percentile, type BenchResult } from './bench.js';

const SECONDS = 5;
const quiet = { http: false, log: { level: 'warn' } } as const;
const domain = { name: 'bench', hypervisor: { kind: 'embedded' }, output: { console: 'none' } } as const;

export async function bench(): Promise<BenchResult[]> {
  const primary = createPrimaryService(
    parsePrimaryConfig({
      ...quiet,
      listen: { port: 0 },
      domains: [{ ...domain, checkpoint: { intervalMs: 5 } }],
    }),
  );
  const reports: CheckpointReport[] = [];
  const subscription = new Subscription();
  await primary.start();
  const secondary = createSecondaryService(
    parseSecondaryConfig({
      ...quiet,
      domains: [{ ...domain, primary: `ws://127.0.0.1:${primary.port}` }],
    }),
  );
  try {
    const first = new Promise<void>((resolve) => {
      subscription.add(secondary.commits$.subscribe(() => resolve()));
    });
    await secondary.start();
    await first;
    const began = performance.now();
    subscription.add(primary.checkpoints$.subscribe((report) => reports.push(report)));
    await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
    const seconds = (performance.now() - began) / 1000;
    const milliseconds = (of: (report: CheckpointReport) => number, share: number): number =>
      percentile(reports.map(of), share) * 1000;
    const dirty = reports.filter(({ dirtyPages }) => dirtyPages > 0).length;
    return [
      {
        name: 'replicated 64 MiB: checkpoints acknowledged',
        value: reports.length / seconds,
        unit: '1/s',
        target: '>= 20',
      },
      { name: 'replicated 64 MiB: of them with dirty pages', value: dirty / seconds, unit: '1/s' },
      { name: 'replicated 64 MiB: pause p50', value: milliseconds(({ pause }) => pause, 0.5), unit: 'ms' },
      { name: 'replicated 64 MiB: pause p99', value: milliseconds(({ pause }) => pause, 0.99), unit: 'ms' },
      {
        name: 'replicated 64 MiB: send and acknowledge p50',
        value: milliseconds(({ phases }) => phases.send + phases.acknowledge, 0.5),
        unit: 'ms',
      },
    ];
  } finally {
    subscription.unsubscribe();
    await secondary.stop();
    await primary.stop();
  }
}
