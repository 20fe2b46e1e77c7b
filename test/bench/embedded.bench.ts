// The embedded machine of 64 MiB at work: what a pause is made of, how many checkpoints a second it stands, and how the
// dirty scan compares with a plain comparison of the same memory.

import { setTimeout as sleep } from 'node:timers/promises';
import { Bitmap } from '../../src/hypervisor/bitmap.js';
import { openEmbeddedSource } from '../../src/hypervisor/embedded/index.js';
import { DirtyScan, type Ram } from '../../src/hypervisor/embedded/scan.js';
import { PAGE_SIZE } from '../../src/stream/format.js';
import { percentile, type BenchResult } from './bench.js';

const MEMORY_BYTES = 64 * 1024 * 1024;
const PAGES = MEMORY_BYTES / PAGE_SIZE;
const CHECKPOINTS = 200;

async function benchPause(): Promise<BenchResult[]> {
  const machine = await openEmbeddedSource({
    name: 'bench',
    memoryBytes: MEMORY_BYTES,
    guest: { kind: 'builtin' },
  });
  try {
    let ticks = 0;
    machine.output$.subscribe((bytes) => {
      for (const byte of bytes) if (byte === 0x0a) ticks++;
    });
    await machine.start();
    await sleep(1500); // until what the guest runs has been compiled
    const dirty = new Bitmap(PAGES, { shared: true });
    const list = new Uint32Array(PAGES);
    const slab = new Uint8Array(new SharedArrayBuffer(MEMORY_BYTES));
    await machine.enableLogDirty();
    const parts = {
      suspend: [] as number[],
      scan: [] as number[],
      copy: [] as number[],
      state: [] as number[],
      resume: [] as number[],
      pause: [] as number[],
    };
    const began = performance.now();
    const ticksBefore = ticks;
    let dirtyPages = 0;
    for (let k = 0; k < CHECKPOINTS; k++) {
      const t0 = performance.now();
      await machine.suspend();
      const t1 = performance.now();
      await machine.cleanLogDirty(dirty);
      const t2 = performance.now();
      let count = 0;
      for (let pfn = dirty.next(0); pfn >= 0; pfn = dirty.next(pfn + 1)) list[count++] = pfn;
      await machine.copyPages(list, count, slab, 0);
      const t3 = performance.now();
      await machine.hvmContext();
      const t4 = performance.now();
      await machine.resume();
      const t5 = performance.now();
      dirtyPages += count;
      parts.suspend.push(t1 - t0);
      parts.scan.push(t2 - t1);
      parts.copy.push(t3 - t2);
      parts.state.push(t4 - t3);
      parts.resume.push(t5 - t4);
      parts.pause.push(t5 - t0);
      await sleep(15);
    }
    const seconds = (performance.now() - began) / 1000;
    const result = (name: string, value: number, unit: string, target?: string): BenchResult => ({
      name: `embedded 64 MiB: ${name}`,
      value,
      unit,
      ...(target !== undefined && { target }),
    });
    return [
      result('pause p50', percentile(parts.pause, 0.5), 'ms', '<= 10'),
      result('pause p99', percentile(parts.pause, 0.99), 'ms'),
      result('suspend p50', percentile(parts.suspend, 0.5), 'ms'),
      result('scan p50', percentile(parts.scan, 0.5), 'ms'),
      result('copy p50', percentile(parts.copy, 0.5), 'ms'),
      result('state p50', percentile(parts.state, 0.5), 'ms'),
      result('resume p50', percentile(parts.resume, 0.5), 'ms'),
      result('dirty pages per checkpoint', dirtyPages / CHECKPOINTS, 'pages'),
      result('checkpoints', CHECKPOINTS / seconds, '1/s', '>= 20'),
      result('guest ticks meanwhile (20 wanted)', (ticks - ticksBefore) / seconds, '1/s'),
    ];
  } finally {
    await machine.destroy();
  }
}

/** The best of many rounds, the two taking turns, so that what else the host does tells least. */
function gigabytesPerSecond(first: () => void, second: () => void): [number, number] {
  const times: [number[], number[]] = [[], []];
  for (let round = 0; round < 21; round++) {
    const t0 = performance.now();
    first();
    const t1 = performance.now();
    second();
    times[0].push(t1 - t0);
    times[1].push(performance.now() - t1);
  }
  return [MEMORY_BYTES / Math.min(...times[0]) / 1e6, MEMORY_BYTES / Math.min(...times[1]) / 1e6];
}

/** All of RAM in use, nothing changed: the scan against one Buffer.compare of RAM and a copy of it. */
function benchScan(): BenchResult {
  const memory = new ArrayBuffer(MEMORY_BYTES);
  const ram: Ram = { octets: Buffer.from(memory), words: new Uint32Array(memory) };
  for (let w = 0; w < ram.words.length; w++) ram.words[w] = Math.imul(w, 0x9e3779b9);
  const scan = new DirtyScan(ram);
  const bitmap = new Bitmap(PAGES);
  const copy = Buffer.from(ram.octets);
  const [value, plain] = gigabytesPerSecond(
    () => scan.scan(ram, bitmap, true),
    () => copy.compare(ram.octets),
  );
  return {
    name: 'embedded: dirty scan, all of RAM in use',
    value,
    unit: 'GB/s',
    reference: { name: 'Buffer.compare', value: plain },
    ratio: value / plain,
    target: '>= 0.8',
  };
}

export async function bench(): Promise<BenchResult[]> {
  return [...(await benchPause()), benchScan()];
}
