// QEMU guests through both services: checkpoints a second, the pause, what protection costs the guest, how long a client
// is without it when its host dies, and QEMU's own live migration of the same guest beside our first synchronisation.

import { setTimeout as sleep } from 'node:timers/promises';
import { ensureGuest } from '../support/qemu.js';
import type { GuestFiles } from '../../src/hypervisor/qemu/guest/build.js';
import { openQemuSource } from '../../src/hypervisor/qemu/index.js';
import type { CheckpointReport } from '../../src/report/reports.js';
import { percentile, type BenchResult } from './bench.js';
import { liveMigration, type Migration } from './live-migration.js';
import { guestArguments, Pair, Ticks, type Load } from './qemu-pair.js';

const SECONDS = 6;
const KILLS = 20;
const TURNS = 3;
const MIGRATIONS = 3;
const MIB = 1024 * 1024;

/** 2,000 pages rewritten a second, all pages checked 20 times a second. */
const STEADY: Load = { workingSetPages: 2000, dirtyPages: 100, tickMs: 50 };
/** As many ticks as the vCPU can do, some 100 a second, each of 20 pages rewritten and 10,000 checked. */
const BUSY: Load = { workingSetPages: 10_000, dirtyPages: 20, tickMs: 1 };

interface Observed {
  readonly reports: readonly CheckpointReport[];
  readonly seconds: number;
  readonly ticksPerSecond: number;
}

async function observe(
  files: GuestFiles,
  load: Load,
  intervalMs: number,
  trialLoads?: 'each' | 'first',
): Promise<Observed> {
  const pair = await Pair.start({ files, load, intervalMs, ...(trialLoads && { trialLoads }) });
  try {
    await sleep(1000);
    const from = pair.reports.length;
    const tick = pair.primaryTicks.seen.length;
    const began = performance.now();
    await sleep(SECONDS * 1000);
    const seconds = (performance.now() - began) / 1000;
    return {
      reports: pair.reports.slice(from),
      seconds,
      ticksPerSecond: pair.primaryTicks.rate(tick),
    };
  } finally {
    await pair.end();
  }
}

/** The guest alone: no checkpoints, RAM that nobody watches. */
async function unprotected(files: GuestFiles, load: Load): Promise<number> {
  const domain = await openQemuSource({
    name: 'bench',
    memoryBytes: 128 * MIB,
    accelerator: 'tcg',
    cpu: 'max',
    dirty: 'compare',
    arguments: guestArguments(files, load),
  });
  try {
    const ticks = new Ticks();
    domain.output$.subscribe((bytes) => ticks.push(bytes));
    await domain.start();
    await ticks.until(5);
    await sleep(1000);
    const from = ticks.seen.length;
    await sleep(SECONDS * 1000);
    return ticks.rate(from);
  } finally {
    await domain.destroy();
  }
}

function milliseconds(
  { reports }: Observed,
  share: number,
  of: (report: CheckpointReport) => number = ({ pause }) => pause,
): number {
  return percentile(reports.map(of), share) * 1000;
}

function pauseParts(observed: Observed, name: string): BenchResult[] {
  return (['suspend', 'copy', 'state', 'resume', 'send', 'acknowledge'] as const).map((phase) => ({
    name: `${name}: ${phase} p50`,
    value: milliseconds(observed, 0.5, ({ phases }) => phases[phase]),
    unit: 'ms',
  }));
}

/** What it costs the guest that its secondary loads each checkpoint on trial. Both share the cores of this machine. */
async function trialLoads(files: GuestFiles): Promise<BenchResult> {
  const pauses: Record<'each' | 'first', number[]> = { each: [], first: [] };
  for (let k = 0; k < TURNS; k++) {
    for (const loads of ['each', 'first'] as const)
      pauses[loads].push(milliseconds(await observe(files, STEADY, 100, loads), 0.5));
  }
  const [each, first] = [percentile(pauses.each, 0.5), percentile(pauses.first, 0.5)];
  return {
    name: 'qemu, services, 100 ms: pause p50, each checkpoint loaded on trial',
    value: each,
    unit: 'ms',
    reference: { name: 'only the first is', value: first },
    ratio: each / first,
    target: '<= 1.1',
  };
}

export async function bench(): Promise<BenchResult[]> {
  const files = await ensureGuest();
  if (files === null) return [];
  const results: BenchResult[] = [];
  const at20 = await observe(files, STEADY, 20);
  results.push(
    ...pauseParts(at20, 'qemu, services, 20 ms'),
    {
      name: 'qemu, services, 20 ms: dirty pages p50',
      value: percentile(
        at20.reports.map((r) => r.dirtyPages),
        0.5,
      ),
      unit: 'pages',
    },
    { name: 'qemu, services, 20 ms: pause p50', value: milliseconds(at20, 0.5), unit: 'ms', target: '<= 5' },
    {
      name: 'qemu, services, 20 ms: pause p99',
      value: milliseconds(at20, 0.99),
      unit: 'ms',
      target: '<= 20',
    },
  );
  const at10 = await observe(files, STEADY, 10);
  results.push({
    name: 'qemu, services, 10 ms: checkpoints acknowledged',
    value: at10.reports.length / at10.seconds,
    unit: '1/s',
    target: '>= 40',
  });
  // Taking turns, so that what else the host does tells on both.
  const alone: number[] = [];
  const busy: number[] = [];
  for (let k = 0; k < TURNS; k++) {
    alone.push(await unprotected(files, BUSY));
    busy.push((await observe(files, BUSY, 20)).ticksPerSecond);
  }
  results.push({
    name: 'qemu, services, 20 ms: ticks of a busy guest p50',
    value: percentile(busy, 0.5),
    unit: '1/s',
    reference: { name: 'unprotected', value: percentile(alone, 0.5) },
    ratio: percentile(busy, 0.5) / percentile(alone, 0.5),
    target: '>= 0.85',
  });
  results.push(await trialLoads(files));
  const kills: { totalMs: number; takeoverMs: number }[] = [];
  for (let k = 0; k < KILLS; k++) {
    const pair = await Pair.start({ files, load: STEADY, intervalMs: 20 });
    try {
      await sleep(300 + Math.random() * 40);
      kills.push(await pair.kill());
    } finally {
      await pair.end();
    }
  }
  const ours: { totalMs: number; pauseMs: number }[] = [];
  const theirs: Migration[] = [];
  for (let k = 0; k < MIGRATIONS; k++) {
    const pair = await Pair.start({ files, load: STEADY, intervalMs: 20, joinAtWork: true });
    ours.push(pair.firstSynchronisation());
    await pair.end();
    theirs.push(await liveMigration(guestArguments(files, STEADY)));
  }
  const median = <T>(values: readonly T[], of: (value: T) => number) => percentile(values.map(of), 0.5);
  results.push(
    {
      name: 'qemu, services: first synchronisation p50',
      value: median(ours, ({ totalMs }) => totalMs),
      unit: 'ms',
      reference: { name: 'live migration, total', value: median(theirs, ({ totalMs }) => totalMs) },
    },
    {
      name: 'qemu, services: pause of the first synchronisation p50',
      value: median(ours, ({ pauseMs }) => pauseMs),
      unit: 'ms',
      reference: { name: 'live migration, downtime', value: median(theirs, ({ downtimeMs }) => downtimeMs) },
    },
  );
  const total = kills.map(({ totalMs }) => totalMs);
  results.push(
    {
      name: 'qemu, services: SIGKILL to running p50',
      value: percentile(total, 0.5),
      unit: 'ms',
      target: '<= 100',
    },
    { name: 'qemu, services: SIGKILL to running, longest', value: Math.max(...total), unit: 'ms' },
    {
      name: 'qemu, services: of that, takeover p50',
      value: percentile(
        kills.map(({ takeoverMs }) => takeoverMs),
        0.5,
      ),
      unit: 'ms',
      target: '<= 30',
    },
  );
  return results;
}
