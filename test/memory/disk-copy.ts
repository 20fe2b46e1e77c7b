// The copy of a memory domain's disk while its guest writes on: pieces are read one after another, each asked for, served
// and answered at different times, with what is written meanwhile cut out of it (Mask).

import type { DirtyMap } from '../../src/disk/dirty-map.js';
import { CHUNK_BYTES } from '../../src/disk/dirty-map.js';
import { SLAB_BYTES, WriteKind } from '../../src/disk/extents.js';
import type { Mask } from '../../src/disk/mask.js';
import { asError } from '../../src/errors.js';
import type { CopiedExtents, DiskCopyOrder } from '../../src/hypervisor/port-disks.js';

export interface CopiedDisk {
  readonly image: Uint8Array;
  readonly mask: Mask;
  /** Some time passes. */
  readonly time: () => Promise<void>;
  /** seal() was called so often. */
  readonly seals: () => number;
  /** Calls it behind all that was posted before. */
  readonly post: (deliver: () => void) => void;
}

const PIECE_CHUNKS = 2;
const UNDER_WAY_MAX = 3;

export async function copyDisk(
  disk: CopiedDisk,
  todo: DirtyMap,
  { take, signal }: DiskCopyOrder,
): Promise<{ readonly left: DirtyMap; readonly error: Error | null }> {
  const totalBytes = todo.octets();
  let doneBytes = 0;
  let error: Error | null = null;
  const isOver = () => error !== null;
  let wake: () => void = () => undefined;
  const onAbort = () => {
    error ??= asError(signal.reason);
    wake();
  };
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  const underWay = new Set<Promise<void>>();
  const pieces = [...todo.runs()].flatMap(({ offset, length }) => cut(offset, length));
  for (const { offset, length } of pieces) {
    const read = await readPiece(disk, offset, length);
    if (isOver()) break;
    doneBytes += length;
    const seals = disk.seals();
    const copied: CopiedExtents = { ...read, seals, doneBytes, totalBytes };
    const taken = new Promise<void>((resolve, reject) =>
      disk.post(() => void take(copied).then(resolve, reject)),
    ).then(
      () => todo.clear(offset, length),
      (thrown: unknown) => {
        error ??= asError(thrown);
      },
    );
    const settled = taken.finally(() => {
      underWay.delete(settled);
      wake();
    });
    underWay.add(settled);
    while (underWay.size >= UNDER_WAY_MAX && !isOver()) {
      await new Promise<void>((resolve) => (wake = resolve));
    }
  }
  while (underWay.size > 0 && !isOver()) await new Promise<void>((resolve) => (wake = resolve));
  signal.removeEventListener('abort', onAbort);
  return { left: todo, error };
}

async function readPiece(disk: CopiedDisk, offset: number, length: number) {
  const { mask, image, time } = disk;
  const masked = mask.begin(offset, length);
  await time();
  const served = image.slice(offset, offset + length);
  await time();
  mask.end(masked);
  const { left } = masked;
  const count = left.length / 2;
  const isZero = served.every((octet) => octet === 0);
  const extents = {
    count,
    offsets: Float64Array.from({ length: count }, (_, i) => left[2 * i] ?? NaN),
    lengths: Float64Array.from({ length: count }, (_, i) => (left[2 * i + 1] ?? NaN) - (left[2 * i] ?? NaN)),
    kinds: new Uint8Array(count).fill(isZero ? WriteKind.ZERO : WriteKind.DATA),
    places: Uint32Array.from({ length: count }, (_, i) => (left[2 * i] ?? NaN) - offset),
  };
  const slab = isZero ? null : new Uint8Array(SLAB_BYTES);
  slab?.set(served);
  return { extents, slab };
}

function cut(offset: number, length: number): { offset: number; length: number }[] {
  const size = PIECE_CHUNKS * CHUNK_BYTES;
  return Array.from({ length: Math.ceil(length / size) }, (_, i) => ({
    offset: offset + i * size,
    length: Math.min(size, length - i * size),
  }));
}
