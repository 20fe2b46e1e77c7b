// What a server says of an export's blocks, put together: which chunks of it hold something, which a bitmap has.

import { DirtyMap } from '../../../../disk/dirty-map.js';
import { f64At, u32At } from '../../../../disk/extents.js';
import type { NbdClient } from './client.js';
import { Allocation } from './protocol.js';

/** What is known of the content of a disk's blocks without reading them. */
export const ALLOCATION = 'base:allocation';
/** Of a range of so many octets at a time: QEMU looks it all up before it answers. */
const SPAN_BYTES = 64 * 1024 * 1024;
/** Of qemu:dirty-bitmap:… */
const DIRTY = 1 << 0;

/** Lengths and flags in turn, of all of the range. @throws NbdError */
async function statusOf(
  client: NbdClient,
  context: string,
  offset: number,
  length: number,
): Promise<Float64Array> {
  const all: number[] = [];
  for (let done = 0; done < length;) {
    const status = await client.blockStatus(context, offset + done, length - done);
    for (let i = 0; i < status.length; i += 2) {
      all.push(u32At(status, i), u32At(status, i + 1));
      done += u32At(status, i);
    }
  }
  return Float64Array.from(all);
}

/**
 * Marks in `data` the chunks of the range that hold anything but zeroes, as far as the server knows. The client has the
 * context ALLOCATION.
 * @throws NbdError
 */
export async function markData(
  client: NbdClient,
  offset: number,
  length: number,
  data: DirtyMap,
): Promise<void> {
  const status = await statusOf(client, ALLOCATION, offset, length);
  let at = offset;
  for (let i = 0; i < status.length; i += 2) {
    const bytes = f64At(status, i);
    if ((f64At(status, i + 1) & Allocation.ZERO) === 0) data.mark(at, bytes);
    at += bytes;
  }
}

/**
 * The chunks that a named bitmap of QEMU's has. The client has the context of that bitmap.
 * @param context qemu:dirty-bitmap:NAME
 * @throws NbdError
 */
export async function readBitmap(client: NbdClient, context: string): Promise<DirtyMap> {
  const map = new DirtyMap(client.bytes);
  for (let offset = 0; offset < client.bytes; offset += SPAN_BYTES) {
    const status = await statusOf(client, context, offset, Math.min(SPAN_BYTES, client.bytes - offset));
    let at = offset;
    for (let i = 0; i < status.length; i += 2) {
      if ((f64At(status, i + 1) & DIRTY) !== 0) map.mark(at, f64At(status, i));
      at += f64At(status, i);
    }
  }
  return map;
}

/** A stretch of chunks that are all to be read, or all zeroes. */
export interface Stretch {
  readonly offset: number;
  readonly length: number;
  readonly isData: boolean;
}

/** The range, which begins with a chunk, as stretches by what `data` has. */
export function* stretches(data: DirtyMap, offset: number, length: number): Generator<Stretch> {
  const end = offset + length;
  for (let at = offset; at < end;) {
    const run = data.nextRun(at);
    const first = run === null ? end : Math.min(end, run.offset);
    if (first > at) yield { offset: at, length: first - at, isData: false };
    if (run === null || first === end) return;
    at = Math.min(end, first + run.length);
    yield { offset: first, length: at - first, isData: true };
  }
}
