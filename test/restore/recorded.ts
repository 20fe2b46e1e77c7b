// A checkpointed stream of a small domain, with what the domain was at each checkpoint; and a second, simple reading
// of such streams to compare the restorer with.

import { openEmbeddedSource } from '../../src/hypervisor/embedded/index.js';
import { HvmParamIndex } from '../../src/guest/x86-hvm/restore.js';
import { MemoryDomain } from '../memory/domain.js';
import type { DiskSource, ReplicatedDisk } from '../../src/hypervisor/port-disks.js';
import type { SourceDomain } from '../../src/hypervisor/port.js';
import { WriteKind, dataAt } from '../../src/disk/extents.js';
import { saveDomain } from '../../src/save/save.js';
import { PAGE_SIZE, RecordType, hasPageData } from '../../src/stream/format.js';
import { decodePageData, PageBatch } from '../../src/stream/page-data.js';
import { LibxlRecordType, decodeEmulatorContext } from '../../src/stream/libxl.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import { decodeHvmParams } from '../../src/stream/records/hvm.js';
import { driver, pagePattern, type RecordedBoundary, RecordingSink } from '../save/support.js';

export interface Snapshot {
  readonly memory: Uint8Array;
  readonly context: Uint8Array;
  readonly emulatorState: Uint8Array;
  /** Of its one disk, if it has one. */
  readonly disk?: Uint8Array;
}

/** What the stream lies in: libxl's layer is there for domains with a device model. */
export type RecordedLayer = 'libxc' | 'libxl';
export const LAYERS: readonly RecordedLayer[] = ['libxc', 'libxl'];

export interface Recording {
  readonly layer: RecordedLayer;
  readonly pages: number;
  readonly disks: readonly ReplicatedDisk[];
  readonly octets: Uint8Array;
  readonly boundaries: readonly RecordedBoundary[];
  /** The domain at each checkpoint. */
  readonly snapshots: readonly Snapshot[];
  /** Where each record begins, and the end of the stream. */
  readonly recordOffsets: readonly number[];
}

export async function record(
  layer: RecordedLayer,
  pages: number,
  checkpoints: number,
  dirtyPages: number,
): Promise<Recording> {
  const emulator = layer === 'libxl';
  const domain = new MemoryDomain({
    pages,
    emulator,
    holes: [pages - 1],
    params: [
      { index: 19n, value: 1n },
      { index: 12n, value: 99n },
    ],
    cpuPolicy: { cpuid: new Uint8Array(24).fill(9), msrs: new Uint8Array(0) },
  });
  for (let pfn = 0; pfn < pages - 1; pfn++) domain.write(pfn, pagePattern(pfn, 0));
  await domain.start();
  const sink = new RecordingSink();
  const snapshots: Snapshot[] = [];
  await saveDomain({
    domain,
    sink,
    streamType: 'remus',
    live: true,
    callbacks: driver({
      domain,
      checkpoints,
      suspended(epoch) {
        const state = Uint8Array.from({ length: 40 }, (_, i) => i + epoch);
        if (emulator) domain.emulatorState = state;
        else domain.context = state;
        const { context, emulatorState } = domain;
        snapshots.push({ memory: domain.memoryCopy(), context, emulatorState });
      },
      between(epoch) {
        for (let n = 0; n < dirtyPages; n++) {
          const pfn = (epoch * 5 + n * 3) % (pages - 1);
          domain.write(pfn, pagePattern(pfn, epoch + 1));
        }
      },
    }),
  });
  return recordingOf(sink, pages, [], snapshots);
}

/** The same of a real machine: the embedded one, its guest at work, with all that it has as it is in the pause. */
export async function recordEmbedded(checkpoints: number): Promise<Recording> {
  const domain = await openEmbeddedSource({
    name: 'recorded',
    memoryBytes: 4 * 1024 * 1024,
    guest: { kind: 'builtin', workingSetPages: 128, dirtyPages: 20, tickMs: 5, diskBlocks: 64 },
  });
  const { disks } = domain;
  if (!disks) throw new Error('it has no disk');
  try {
    const { p2mSize: pages } = await domain.info();
    const everyFrame = Uint32Array.from({ length: pages }, (_, frame) => frame);
    const copy = new Uint8Array(new SharedArrayBuffer(pages * PAGE_SIZE));
    const sink = new RecordingSink();
    const snapshots: Snapshot[] = [];
    // Asked once: v86 counts a cycle each time that it is asked for its context.
    const hvmContext = async () => {
      await domain.copyPages(everyFrame, pages, copy, 0);
      const context = await domain.hvmContext();
      const [memory, emulatorState] = [copy.slice(), new Uint8Array(0)];
      snapshots.push({ memory, context: context.slice(), emulatorState, disk: await contentOf(disks) });
      return context;
    };
    const watched: SourceDomain = new Proxy(domain, {
      get: (target, key): unknown => {
        if (key === 'hvmContext') return hvmContext;
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
      },
    });
    await domain.start();
    await disks.attach();
    await saveDomain({
      domain: watched,
      sink,
      streamType: 'remus',
      live: true,
      callbacks: {
        suspend: () => domain.suspend(),
        postcopy: () => domain.resume(),
        async checkpoint(epoch, sent) {
          await sent;
          // Long enough for the guest to tick.
          await new Promise((resolve) => setTimeout(resolve, 20));
          return epoch + 1 < checkpoints ? 'continue' : 'finish';
        },
      },
    });
    return recordingOf(sink, pages, disks.disks, snapshots);
  } finally {
    await domain.destroy();
  }
}

/** Of its one disk, now. */
export async function contentOf(disks: DiskSource): Promise<Uint8Array> {
  const content = new Uint8Array(disks.disks[0]?.bytes ?? 0);
  const { error } = await disks.copy({
    ...{ disk: 0, signal: new AbortController().signal },
    take({ extents, slab }) {
      for (let k = 0; k < extents.count; k++) {
        if (extents.kinds[k] === WriteKind.DATA)
          content.set(dataAt(extents, slab ? [slab] : [], k), extents.offsets[k]);
      }
      return Promise.resolve();
    },
  });
  if (error) throw error;
  return content;
}

function recordingOf(
  sink: RecordingSink,
  pages: number,
  disks: readonly ReplicatedDisk[],
  snapshots: readonly Snapshot[],
): Recording {
  const octets = sink.octets();
  const recordOffsets: number[] = [];
  const reader = new RecordReader();
  reader.push(octets);
  for (let one = reader.next(); one !== null; one = reader.next()) recordOffsets.push(one.offset);
  recordOffsets.push(octets.length);
  const layer = reader.headers()?.layer ?? 'libxc';
  return { layer, pages, disks, octets, boundaries: sink.boundaries, snapshots, recordOffsets };
}

/** What the stream holds after `epochs` checkpoints, read naively. The octets are known to be good up to there. */
export function replay(octets: Uint8Array, pages: number, epochs: number): Snapshot {
  const memory = new Uint8Array(pages * PAGE_SIZE);
  const populated = new Set<number>();
  let context: Uint8Array = new Uint8Array(0);
  let emulatorState: Uint8Array = new Uint8Array(0);
  const batch = new PageBatch();
  const reader = new RecordReader();
  reader.push(octets);
  for (let done = 0; done < epochs;) {
    const record = reader.next();
    if (record === null) throw new Error('the stream does not hold that many checkpoints');
    if (record.layer === 'libxl') {
      if (record.type === LibxlRecordType.EMULATOR_CONTEXT) {
        emulatorState = decodeEmulatorContext(record).context;
      }
      if (record.type === LibxlRecordType.CHECKPOINT_END) done++;
      continue;
    }
    switch (record.type) {
      case RecordType.PAGE_DATA: {
        decodePageData(record, batch);
        let at = batch.dataOffset;
        for (let i = 0; i < batch.count; i++) {
          const pfn = batch.pfns[i] ?? 0;
          const type = batch.types[i] ?? 0;
          if (type < 13 || type === 14) populated.add(pfn);
          if (!hasPageData(type)) continue;
          memory.set(record.body.subarray(at, at + PAGE_SIZE), pfn * PAGE_SIZE);
          at += PAGE_SIZE;
        }
        break;
      }
      case RecordType.HVM_PARAMS:
        for (const { index, value } of decodeHvmParams(record)) {
          const cleared =
            index === HvmParamIndex.STORE_PFN ||
            index === HvmParamIndex.IOREQ_PFN ||
            index === HvmParamIndex.BUFIOREQ_PFN;
          const pfn = Number(value);
          if (cleared && populated.has(pfn)) memory.fill(0, pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE);
        }
        break;
      case RecordType.HVM_CONTEXT:
        context = record.body;
        break;
      case RecordType.CHECKPOINT:
        if (reader.headers()?.layer !== 'libxl') done++;
        break;
      default:
        break;
    }
  }
  return { memory, context, emulatorState };
}
