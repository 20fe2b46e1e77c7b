// The whole path at work: an embedded machine of 64 MiB, replicated by two agents over loopback, at an interval
// that is shorter than what it can keep up with. How many checkpoints a second are acknowledged while the guest runs.

import { Subscription } from 'rxjs';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { createAgent, parseCluster, type CheckpointReport } from '../../src/index.js';
import { lasting } from '../service/hosts.js';
import { freePorts } from '../support/ports.js';
import { percentile, type BenchResult } from './bench.js';

const SECONDS = 5;

export async function bench(): Promise<BenchResult[]> {
  const [alpha = 0, beta = 0] = await freePorts(2);
  const cluster = {
    witness: { kind: 'none' },
    hosts: { alpha: { address: '127.0.0.1', port: alpha }, beta: { address: '127.0.0.1', port: beta } },
    http: false,
    log: { level: 'fatal' },
    domains: [
      {
        ...{ name: 'bench', hosts: ['alpha', 'beta'], hypervisor: { kind: 'embedded' } },
        ...{ output: { console: 'none' }, checkpoint: { intervalMs: 5 } },
      },
    ],
  };
  const witness = { witness: lasting(createMemoryWitness()), shared: true };
  const primary = createAgent(parseCluster(cluster, 'alpha'), { witness });
  const secondary = createAgent(parseCluster(cluster, 'beta'), { witness });
  const reports: CheckpointReport[] = [];
  const subscription = new Subscription();
  try {
    const first = new Promise<void>((resolve) => {
      subscription.add(secondary.commits$.subscribe(() => resolve()));
    });
    await primary.start();
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
