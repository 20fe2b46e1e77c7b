// Page tables of a PV guest, from machine frames to pfns and back, against the least that it could be: a look at each entry.

import { localiseTable, normaliseTable } from '../../src/guest/x86-pv/page-table.js';
import { Physmap } from '../../src/guest/x86-pv/physmap.js';
import { INVALID_FRAME, PAGE_SIZE } from '../../src/stream/format.js';
import { type BenchResult, percentile } from './bench.js';

const TABLES = 256;
const ENTRIES = TABLES * 512;
const FRAMES = 4096;
const TURNS = 40;

export function bench(): Promise<BenchResult[]> {
  const physmap = new Physmap(8);
  physmap.expand(FRAMES - 1);
  physmap.maxMfn = 5000;
  physmap.m2p = new Uint32Array(2 * (physmap.maxMfn + 1)).fill(INVALID_FRAME);
  for (let pfn = 0; pfn < FRAMES; pfn++) {
    physmap.setPfnToMfn(pfn, 5000 - pfn);
    physmap.m2p.set([pfn, 0], 2 * (5000 - pfn));
  }
  const memory = new Uint8Array(TABLES * PAGE_SIZE);
  const view = new DataView(memory.buffer);
  for (let i = 0; i < ENTRIES; i++)
    view.setBigUint64(i * 8, (BigInt(5000 - (i % FRAMES)) << 12n) | 0x67n, true);

  const ways: number[] = [];
  const looks: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    ways.push(
      timed(() => {
        for (let at = 0; at < memory.length; at += PAGE_SIZE)
          normaliseTable(view, at, 1, 4, physmap, INVALID_FRAME);
        for (let at = 0; at < memory.length; at += PAGE_SIZE) localiseTable(view, at, physmap);
      }),
    );
    looks.push(timed(() => look(view)));
  }
  const microseconds = (times: readonly number[]) => (percentile(times, 0.5) * 1000) / (2 * TABLES);
  const [value, least] = [microseconds(ways), microseconds(looks)];
  return Promise.resolve([
    {
      name: 'PV page table, one way: p50',
      value,
      unit: 'µs',
      reference: { name: 'each entry read and written', value: least },
      ratio: value / least,
      target: '<= 20',
    },
  ]);
}

function timed(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

/** Both ways: each entry is looked at twice. */
function look(view: DataView): void {
  for (let way = 0; way < 2; way++) {
    for (let i = 0; i < ENTRIES * 2; i++) view.setUint32(i * 4, view.getUint32(i * 4, true), true);
  }
}
