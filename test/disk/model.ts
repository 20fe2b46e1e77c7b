// A disk as it is: every octet, and of each what has been done to it in this epoch.

import { WriteKind, dataAt } from '../../src/disk/extents.js';
import type { Journal, SealedJournal } from '../../src/disk/journal.js';

export const UNTOUCHED = 9;

export class ModelDisk {
  readonly octets: Uint8Array;
  readonly kinds: Uint8Array;

  constructor(bytes: number) {
    this.octets = new Uint8Array(bytes).fill(0xee);
    this.kinds = new Uint8Array(bytes).fill(UNTOUCHED);
  }

  write(offset: number, data: Uint8Array): void {
    this.octets.set(data, offset);
    this.kinds.fill(WriteKind.DATA, offset, offset + data.length);
  }

  cover(kind: typeof WriteKind.ZERO | typeof WriteKind.DISCARD, offset: number, length: number): void {
    if (kind === WriteKind.ZERO) this.octets.fill(0, offset, offset + length);
    this.kinds.fill(kind, offset, offset + length);
  }
}

/** Writes all of it: what finds no room is spilled. */
export function writeAll(journal: Journal, offset: number, data: Uint8Array): void {
  for (let done = 0; done < data.length;) {
    const taken = journal.put(offset + done, data, done, data.length - done);
    done += taken > 0 ? taken : journal.spillFirst(offset + done, data.length - done);
  }
}

/** Does to `disk` what the epoch says; the content of its dirty chunks is that of `source`. */
export function apply(sealed: SealedJournal, disk: Uint8Array, source: Uint8Array): void {
  const { extents, slabs, dirty } = sealed;
  for (let i = 0; i < extents.count; i++) {
    const offset = extents.offsets[i] ?? NaN;
    const length = extents.lengths[i] ?? NaN;
    if (extents.kinds[i] === WriteKind.DATA) disk.set(dataAt(extents, slabs, i), offset);
    else if (extents.kinds[i] === WriteKind.ZERO) disk.fill(0, offset, offset + length);
  }
  for (const { offset, length } of dirty?.runs() ?? [])
    disk.set(source.subarray(offset, offset + length), offset);
}

/** Of each octet: what the extents say was done to it. Fails where they overlap, are out of order or empty. */
export function kindsOf({ extents }: SealedJournal, bytes: number): Uint8Array {
  const kinds = new Uint8Array(bytes).fill(UNTOUCHED);
  let last = 0;
  for (let i = 0; i < extents.count; i++) {
    const offset = extents.offsets[i] ?? NaN;
    const end = offset + (extents.lengths[i] ?? NaN);
    if (!(offset >= last && end > offset && end <= bytes)) {
      throw new Error(`extent ${i}: ${offset} to ${end} after ${last}`);
    }
    kinds.fill(extents.kinds[i] ?? UNTOUCHED, offset, end);
    last = end;
  }
  return kinds;
}
