// Extents laid out as the body of a DISK_WRITES record: as many as there is room for. Data are copied once, from the slab
// of the journal into that of the saver: extents are small and lie wherever they came, and a piece of the stream needs
// memory of its own before it (HEADROOM), so records that only refer to them would be a piece, and a message, per extent.
//
//   journal's slabs   │ … │ data 2 │ data 0 │ … │          extents, by offset: 0, 1 (ZERO), 2, …
//   saver's slab      │ headroom, header │ disk, count │ extent 0, 1, 2 │ data 0 │ data 2 │

import { type Extents, SLAB_BYTES, type Slab, WriteKind, f64At, u32At } from '../disk/extents.js';
import { valueAt } from '../stream/bounds.js';
import { viewOf } from '../stream/octets.js';
import {
  DISK_EXTENTS_MAX,
  DISK_EXTENT_BYTES,
  DISK_WRITES_HEADER_BYTES,
  writeDiskExtent,
  writeDiskWritesHeader,
} from '../stream/records/disks.js';

/** Of a body: less is not worth a record. */
export const DISK_ROOM_MIN = 4096;
/** A slab of data, and the extents of as many small writes. */
const ROOM_MAX = 1024 * 1024 + 64 * 1024;
/** Data that are cut are cut at sectors. */
const SECTOR_BYTES = 512;

/** How far extents have been laid out. */
export class ExtentCursor {
  index = 0;
  /** Octets of the extent at the index. */
  done = 0;
}

/**
 * Lays out the next extents at `memory[at]`, in at most `room` octets (DISK_ROOM_MIN at least), and moves the cursor
 * behind them. The length of the body.
 */
export function layDiskWrites(
  memory: Uint8Array,
  at: number,
  room: number,
  disk: number,
  extents: Extents,
  slabs: readonly Slab[],
  cursor: ExtentCursor,
): number {
  const { count, lastBytes } = fitting(Math.min(room, ROOM_MAX), extents, cursor);
  const { offsets, lengths, kinds, places } = extents;
  const view = viewOf(memory);
  writeDiskWritesHeader(memory, at, disk, count);
  let entry = at + DISK_WRITES_HEADER_BYTES;
  let data = entry + count * DISK_EXTENT_BYTES;
  for (let left = count; left > 0; left--) {
    const { index, done } = cursor;
    const kind = kinds[index] ?? NaN;
    const rest = f64At(lengths, index) - done;
    const bytes = left === 1 ? lastBytes : rest;
    writeDiskExtent(view, entry, f64At(offsets, index) + done, bytes, kind);
    entry += DISK_EXTENT_BYTES;
    if (kind === WriteKind.DATA) {
      const place = u32At(places, index) + done;
      const start = place % SLAB_BYTES;
      memory.set(valueAt(slabs, Math.floor(place / SLAB_BYTES)).subarray(start, start + bytes), data);
      data += bytes;
    }
    cursor.done = bytes === rest ? 0 : done + bytes;
    if (bytes === rest) cursor.index++;
  }
  return data - at;
}

/** How many extents have room, and how much of the last of them. */
function fitting(
  room: number,
  extents: Extents,
  cursor: ExtentCursor,
): { readonly count: number; readonly lastBytes: number } {
  let left = room - DISK_WRITES_HEADER_BYTES;
  let count = 0;
  let lastBytes = 0;
  for (let index = cursor.index; index < extents.count && count < DISK_EXTENTS_MAX; index++) {
    left -= DISK_EXTENT_BYTES;
    if (left < 0) break;
    const rest = f64At(extents.lengths, index) - (count === 0 ? cursor.done : 0);
    const isData = extents.kinds[index] === WriteKind.DATA;
    const bytes = !isData || rest <= left ? rest : left - (left % SECTOR_BYTES);
    if (bytes === 0) break;
    lastBytes = bytes;
    count++;
    if (bytes < rest) break;
    if (isData) left -= bytes;
  }
  return { count, lastBytes };
}
