// A QEMU guest at work (TCG, one vCPU, 2,000 pages dirtied a second): what a pause is made of with either way of dirty
// tracking and with much memory, and how long a takeover takes. Without QEMU there is nothing to measure.

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Bitmap } from '../../src/hypervisor/bitmap.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import {
  openQemuSource,
  openQemuTarget,
  type DirtyWay,
  type PauseTimes,
  type QemuConfig,
  type QemuSource,
} from '../../src/hypervisor/qemu/index.js';
import { PAGE_SIZE } from '../../src/stream/format.js';
import { percentile, type BenchResult } from './bench.js';

const MIB = 1024 * 1024;
const CHECKPOINTS = 200;
const INTERVAL_MS = 20;
const TAKEOVERS = 10;
const guest = fileURLToPath(new URL('../../../src/hypervisor/embedded/guest/tick.elf', import.meta.url));

function config(memoryBytes: number, dirty: DirtyWay): QemuConfig {
  return {
    name: 'bench',
    memoryBytes,
    accelerator: 'tcg',
    dirty,
    arguments: ['-kernel', guest, '-append', 'pages=4000 dirty=100 tick_ms=50'],
  };
}

async function untilTick(domain: QemuSource, tick: number): Promise<void> {
  let text = '';
  await new Promise<void>((resolve) => {
    domain.output$.subscribe((bytes) => {
      text += Buffer.from(bytes).toString('latin1');
      if (text.includes(`tick ${tick} ok`)) resolve();
    });
  });
}

/** Pauses at an interval, and milliseconds of the copying in each. */
async function pauses(memoryBytes: number, dirty: DirtyWay): Promise<PauseTimes[]> {
  const domain = await openQemuSource(config(memoryBytes, dirty));
  try {
    const ready = untilTick(domain, 3);
    await domain.start();
    await ready;
    const pages = memoryBytes / PAGE_SIZE;
    const bitmap = new Bitmap(pages);
    const list = new Uint32Array(pages);
    const slab = new Uint8Array(new SharedArrayBuffer(32 * MIB));
    await domain.enableLogDirty();
    const found: PauseTimes[] = [];
    for (let k = 0; k < CHECKPOINTS; k++) {
      await sleep(INTERVAL_MS);
      await domain.prepareSuspend();
      await domain.suspend();
      await domain.cleanLogDirty(bitmap);
      let count = 0;
      for (let pfn = bitmap.next(0); pfn >= 0; pfn = bitmap.next(pfn + 1)) list[count++] = pfn;
      await domain.copyPages(list, Math.min(count, slab.length / PAGE_SIZE), slab, 0);
      await domain.emulatorContext();
      await domain.resume();
      if (domain.lastPause && k > 10) found.push(domain.lastPause);
    }
    return found;
  } finally {
    await domain.destroy();
  }
}

const FRAMES = Uint32Array.from({ length: (128 * MIB) / PAGE_SIZE }, (_, pfn) => pfn);

interface Whole {
  readonly ram: Uint8Array;
  readonly context: Uint8Array;
}

/** A guest that runs for a moment, and all of it. */
async function wholeGuest(): Promise<Whole> {
  const domain = await openQemuSource(config(128 * MIB, 'compare'));
  try {
    const ready = untilTick(domain, 3);
    await domain.start();
    await ready;
    await domain.suspend();
    const ram = new Uint8Array(new SharedArrayBuffer(128 * MIB));
    await domain.copyPages(FRAMES, FRAMES.length, ram, 0);
    return { ram, context: await domain.emulatorContext() };
  } finally {
    await domain.destroy();
  }
}

/** Milliseconds of start(), until the guest runs; `loaded`: the last checkpoint was loaded when it was committed. */
async function takeover({ ram, context }: Whole, loaded: boolean): Promise<number> {
  const target = await openQemuTarget(config(128 * MIB, 'compare'));
  try {
    await target.populate(FRAMES, FRAMES.length, new Uint32Array(FRAMES.length));
    await target.writePages(FRAMES, FRAMES.length, ram);
    await target.checkpoint(context);
    // Written since: it has to be loaded again.
    if (!loaded) await target.writePages(FRAMES, 1, ram);
    const began = performance.now();
    await target.start();
    return performance.now() - began;
  } finally {
    await target.destroy();
  }
}

export async function bench(): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  const p50 = (times: readonly PauseTimes[], part: keyof PauseTimes): number =>
    percentile(
      times.map((time) => time[part]),
      0.5,
    );
  try {
    const small = await pauses(128 * MIB, 'fuse');
    for (const part of ['stop', 'capture', 'state', 'cont'] as const) {
      results.push({ name: `qemu: fuse, 128 MiB, ${part} p50`, value: p50(small, part), unit: 'ms' });
    }
    const total = p50(small, 'total');
    results.push({ name: 'qemu: fuse, 128 MiB, pause p50', value: total, unit: 'ms', target: '<= 5' });
    const p99 = percentile(
      small.map((time) => time.total),
      0.99,
    );
    results.push({ name: 'qemu: fuse, 128 MiB, pause p99', value: p99, unit: 'ms', target: '<= 20' });
    const large = p50(await pauses(1024 * MIB, 'fuse'), 'total');
    results.push({
      name: 'qemu: fuse, 1 GiB, pause p50',
      value: large,
      unit: 'ms',
      reference: { name: '128 MiB', value: total },
      ratio: large / total,
      target: '<= 1.3',
    });
    const compared = p50(await pauses(128 * MIB, 'compare'), 'total');
    results.push({ name: 'qemu: compare, 128 MiB, pause p50', value: compared, unit: 'ms' });
    const whole = await wholeGuest();
    const takeovers = { loaded: [] as number[], unloaded: [] as number[] };
    for (let k = 0; k < TAKEOVERS; k++) {
      takeovers.loaded.push(await takeover(whole, true));
      takeovers.unloaded.push(await takeover(whole, false));
    }
    results.push(
      ...(
        [
          ['loaded when it was committed', takeovers.loaded, '<= 3'],
          ['still to be loaded', takeovers.unloaded, '<= 15'],
        ] as const
      ).map(([what, times, target]) => ({
        name: `qemu: takeover, ${what}, p50`,
        value: percentile(times, 0.5),
        unit: 'ms' as const,
        target,
      })),
    );
  } catch (error) {
    // No QEMU, no /dev/fuse: said, and no more than that.
    if (!(error instanceof HypervisorError)) throw error;
    if (error.code !== 'BAD_CONFIGURATION' && error.code !== 'UNSUPPORTED') throw error;
    console.log(`qemu: not measured: ${error.message}`);
  }
  return results;
}
