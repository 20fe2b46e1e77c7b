// The pause of a checkpoint against the least that it could be: one plain copy of the dirty pages.

import { MemoryDomain } from '../memory/domain.js';
import { saveDomain } from '../../src/save/save.js';
import type { StreamSink } from '../../src/stream/flow.js';
import { PAGE_SIZE } from '../../src/stream/format.js';
import { type BenchResult, percentile } from './bench.js';

const PAGES = 65_536;
const DIRTY = 2000;
const EPOCHS = 200;

const nowhere: StreamSink = {
  write: () => Promise.resolve(),
  boundary: () => Promise.resolve(),
  drain: () => Promise.resolve(),
};

export async function bench(): Promise<BenchResult[]> {
  const domain = new MemoryDomain({ pages: PAGES });
  domain.memory.fill(1);
  await domain.start();
  const buffer = new Uint8Array(DIRTY * PAGE_SIZE);
  const pauses: number[] = [];
  const copies: number[] = [];
  let suspending = 0;
  await saveDomain({
    domain,
    sink: nowhere,
    streamType: 'remus',
    live: true,
    callbacks: {
      suspend() {
        suspending = performance.now();
        return domain.suspend();
      },
      async postcopy(epoch) {
        await domain.resume();
        if (epoch > 0) pauses.push(performance.now() - suspending);
      },
      async checkpoint(epoch, sent) {
        await sent;
        const pfns = scattered(epoch);
        domain.dirty(pfns);
        copies.push(plainCopy(domain.memory, pfns, buffer));
        return epoch === EPOCHS ? 'finish' : 'continue';
      },
    },
  });
  const value = percentile(pauses, 0.5);
  const reference = percentile(copies, 0.5);
  return [
    {
      name: `pause, ${PAGES / 256} MiB, ${DIRTY} dirty pages, p50`,
      value,
      unit: 'ms',
      reference: { name: 'one plain copy of them', value: reference },
      ratio: value / reference,
      target: '<= 1.5',
    },
    { name: 'the same, p99', value: percentile(pauses, 0.99), unit: 'ms' },
  ];
}

/** One page in each of 2000 stretches of memory, another one in each epoch. */
function scattered(epoch: number): Uint32Array {
  const stretch = Math.floor(PAGES / DIRTY);
  return Uint32Array.from(
    { length: DIRTY },
    (_, i) => i * stretch + ((i * 7919 + epoch * 104_729) % stretch),
  );
}

function plainCopy(memory: Uint8Array, pfns: Uint32Array, buffer: Uint8Array): number {
  const started = performance.now();
  for (let i = 0; i < pfns.length; i++) {
    const from = (pfns[i] ?? 0) * PAGE_SIZE;
    buffer.set(memory.subarray(from, from + PAGE_SIZE), i * PAGE_SIZE);
  }
  return performance.now() - started;
}
