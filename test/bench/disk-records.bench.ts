// An epoch's disk writes laid out as records, and read again: against copying the same octets in the same order from the
// same memory to the same memory. In turn; the best of each is taken.

import {
  type Extents,
  SLAB_BYTES,
  type Slab as JournalSlab,
  WriteKind,
  f64At,
  u32At,
} from '../../src/disk/extents.js';
import { ExtentCursor, layDiskWrites } from '../../src/save/disk-records.js';
import { Slab } from '../../src/save/slab.js';
import { valueAt } from '../../src/stream/bounds.js';
import type { StreamPiece } from '../../src/stream/flow.js';
import { RECORD_HEADER_BYTES, RecordType } from '../../src/stream/format.js';
import { DiskWritesBatch, decodeDiskWrites } from '../../src/stream/records/disks.js';
import type { BenchResult } from './bench.js';

const MIB = 1024 * 1024;
const DATA_BYTES = 24 * MIB;
const ROUNDS = 40;

export function bench(): Promise<BenchResult[]> {
  const [large, small] = [measured('1 MiB writes', MIB), measured('4 KiB writes', 4096)];
  return Promise.resolve([large.laid, small.laid, small.read]);
}

function measured(name: string, bytes: number): { laid: BenchResult; read: BenchResult } {
  const slabs = Array.from({ length: DATA_BYTES / SLAB_BYTES }, (_, i) => new Uint8Array(SLAB_BYTES).fill(i));
  const extents = everyOther(bytes);
  const slab = new Slab(2 * DATA_BYTES);
  const batch = new DiskWritesBatch();
  const best = { copy: Infinity, lay: Infinity, read: Infinity };
  for (let round = 0; round < ROUNDS; round++) {
    best.copy = Math.min(
      best.copy,
      seconds(() => copy(extents, slabs, slab.memory)),
    );
    slab.reset();
    const pieces: StreamPiece[] = [];
    best.lay = Math.min(
      best.lay,
      seconds(() => lay(extents, slabs, slab, pieces)),
    );
    best.read = Math.min(
      best.read,
      seconds(() => read(pieces, batch)),
    );
  }
  const speed = (took: number) => DATA_BYTES / MIB / took;
  const reference = { name: 'copied', value: speed(best.copy) };
  return {
    laid: {
      ...{ name: `disk records, ${name}, laid out`, value: speed(best.lay), unit: 'MiB/s', reference },
      ...{ ratio: best.copy / best.lay, target: '>= 0.7' },
    },
    read: {
      ...{ name: `disk records, ${name}, read`, value: (best.read / extents.count) * 1e9 },
      ...{ unit: 'ns an extent', target: '<= 200' },
    },
  };
}

/** Extents with as much room between them: a guest's writes lie in the slabs in the order in which they came. */
function everyOther(bytes: number): Extents {
  const count = DATA_BYTES / bytes;
  return {
    count,
    offsets: Float64Array.from({ length: count }, (_, i) => 2 * i * bytes),
    lengths: new Float64Array(count).fill(bytes),
    kinds: new Uint8Array(count).fill(WriteKind.DATA),
    places: Uint32Array.from({ length: count }, (_, i) => ((i * 7919) % count) * bytes),
  };
}

function copy({ count, places, lengths }: Extents, slabs: readonly JournalSlab[], memory: Uint8Array): void {
  let at = 0;
  for (let i = 0; i < count; i++) {
    const place = u32At(places, i);
    const length = f64At(lengths, i);
    const start = place % SLAB_BYTES;
    memory.set(valueAt(slabs, Math.floor(place / SLAB_BYTES)).subarray(start, start + length), at);
    at += length;
  }
}

function lay(extents: Extents, slabs: readonly JournalSlab[], slab: Slab, pieces: StreamPiece[]): void {
  for (const cursor = new ExtentCursor(); cursor.index < extents.count;) {
    const at = slab.bodyOffset();
    const length = layDiskWrites(slab.memory, at, slab.bodyRoom(), 0, extents, slabs, cursor);
    pieces.push(slab.closeBody(RecordType.DISK_WRITES, length));
  }
}

function read(pieces: readonly StreamPiece[], batch: DiskWritesBatch): void {
  for (const { memory, start, end } of pieces) {
    const body = memory.subarray(start + RECORD_HEADER_BYTES, end);
    decodeDiskWrites({ type: RecordType.DISK_WRITES, body, offset: start }, batch);
  }
}

function seconds(work: () => void): number {
  const started = performance.now();
  work();
  return (performance.now() - started) / 1000;
}
