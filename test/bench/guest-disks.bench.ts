// What replication of its disk costs a guest that does nothing but write (guest/flood.c): its rate and its pauses with the
// mirror and without it, in turn, in the same run. There is no channel here: what it writes is kept, sealed, and given back.

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { firstValueFrom } from 'rxjs';
import { openQemuSource, type QemuPrimary } from '../../src/hypervisor/qemu/index.js';
import type { QemuDisks } from '../../src/hypervisor/qemu/disks/qemu-disks.js';
import { MIB, rawImage } from '../hypervisor/qemu/disks/support.js';
import { Cleanup } from '../support/cleanup.js';
import { QEMU } from '../support/qemu.js';
import { ensureInstalled } from '../support/tools.js';
import { type BenchResult, percentile } from './bench.js';

const FLOOD = fileURLToPath(new URL('../../../test/bench/guest/flood.elf', import.meta.url));
const DISK_BYTES = 256 * MIB;
const INTERVAL_MS = 20;
const ROUNDS = 7;
const ROUND_MS = 1000;
/** Until what was done before is over. */
const SETTLING_MS = 200;
const PAUSES = 30;

interface Flood {
  readonly name: string;
  readonly depth: number;
  readonly sectors: number;
  /** After how many writes one is a flush; 0: none is. */
  readonly flush: number;
  readonly target: string;
}

const FLOODS: readonly Flood[] = [
  { name: 'writes of 4 KiB, depth 1', ...{ depth: 1, sectors: 8, flush: 0 }, target: '>= 0.6' },
  { name: 'writes of 64 KiB, depth 4', ...{ depth: 4, sectors: 128, flush: 0 }, target: '>= 0.7' },
  { name: 'writes of 4 KiB, each flushed', ...{ depth: 1, sectors: 8, flush: 2 }, target: '>= 0.8' },
];

interface Guest {
  readonly source: QemuPrimary;
  readonly disks: QemuDisks;
}

/** It writes. */
async function flooding(
  cleanup: Cleanup,
  { depth, sectors, flush }: Pick<Flood, 'depth' | 'sectors' | 'flush'>,
): Promise<Guest> {
  const image = await rawImage(`${await cleanup.directory()}/image`, DISK_BYTES);
  const source = await openQemuSource({
    ...{ name: `bench-${process.pid}`, memoryBytes: 16 * MIB, accelerator: 'tcg', dirty: 'compare' },
    arguments: [
      ...['-kernel', FLOOD, '-append', `depth=${depth} sectors=${sectors} flush=${flush}`],
      ...['-drive', `if=none,id=disk,file=${image},format=raw,cache=none`],
      ...['-device', 'virtio-blk-pci,drive=disk,disable-modern=on'],
    ],
  });
  cleanup.add(() => source.destroy());
  const { disks } = source;
  if (disks === undefined) throw new Error('it has no disks');
  const begun = firstValueFrom(source.output$);
  await source.start();
  await begun;
  return { source, disks };
}

/** Writes and flushes that QEMU has done. */
async function done({ source }: Guest): Promise<number> {
  const [of] = (await source.machine.qmp.execute('query-blockstats')) as {
    readonly stats: { readonly wr_operations: number; readonly flush_operations: number };
  }[];
  if (of === undefined) throw new Error('QEMU has no disk');
  return of.stats.wr_operations + of.stats.flush_operations;
}

/** In a second. */
async function rate(guest: Guest): Promise<number> {
  await sleep(SETTLING_MS);
  const before = await done(guest);
  const startedMs = performance.now();
  await sleep(ROUND_MS);
  return ((await done(guest)) - before) / ((performance.now() - startedMs) / 1000);
}

/** While its disk is replicated, epoch after epoch. */
async function replicated<T>({ disks }: Guest, work: () => Promise<T>): Promise<T> {
  await disks.attach();
  await disks.keep();
  const over = new AbortController();
  const epochs = (async () => {
    while (!over.signal.aborted) {
      await sleep(INTERVAL_MS);
      for (const { slabs } of await disks.seal()) disks.release(slabs);
    }
  })();
  try {
    return await work();
  } finally {
    over.abort();
    await epochs;
    await disks.detach();
  }
}

async function rates(flood: Flood): Promise<BenchResult> {
  const cleanup = new Cleanup();
  try {
    const guest = await flooding(cleanup, flood);
    const [mirrored, alone]: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      alone.push(await rate(guest));
      mirrored.push(await replicated(guest, () => rate(guest)));
    }
    const [value, other] = [percentile(mirrored, 0.5), percentile(alone, 0.5)];
    return {
      name: `a replicated disk, ${flood.name}: p50`,
      ...{ value: value / 1000, unit: 'thousand/s' },
      reference: { name: 'not replicated', value: other / 1000 },
      ...{ ratio: value / other, target: flood.target },
    };
  } finally {
    await cleanup.run();
  }
}

/** Milliseconds, of each pause. */
async function pauses({ source }: Guest): Promise<number[]> {
  const times: number[] = [];
  for (let pause = 0; pause < PAUSES; pause++) {
    await sleep(INTERVAL_MS);
    const startedMs = performance.now();
    await source.suspend();
    times.push(performance.now() - startedMs);
    await source.resume();
  }
  return times;
}

async function drain(): Promise<BenchResult> {
  const cleanup = new Cleanup();
  try {
    const guest = await flooding(cleanup, { depth: 4, sectors: 8, flush: 0 });
    const [mirrored, alone]: [number[], number[]] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      alone.push(...(await pauses(guest)));
      mirrored.push(...(await replicated(guest, () => pauses(guest))));
    }
    const [value, other] = [percentile(mirrored, 0.5), percentile(alone, 0.5)];
    return {
      name: `a stop costs so much more, writes of 4 KiB, depth 4: p50 (${value.toFixed(2)} ms, else ${other.toFixed(2)})`,
      ...{ value: value - other, unit: 'ms', target: '<= 1' },
    };
  } finally {
    await cleanup.run();
  }
}

export async function bench(): Promise<BenchResult[]> {
  if ((await ensureInstalled(QEMU, 'qemu-system-x86')) === null) return [];
  const results: BenchResult[] = [];
  for (const flood of FLOODS) results.push(await rates(flood));
  results.push(await drain());
  return results;
}
