// What can be wrong with what is said of a disk.

import { RomulusError } from '../errors.js';

export type DiskErrorCode =
  | 'BAD_MAP' // a dirty map on the wire that is not one of this disk; facts `at` (octet in it), `bytes` (of the disk)
  | 'BAD_SLAB' // memory is handed back that is no slab, or that nobody had
  | 'OUT_OF_DISK'; // a range that the disk does not have; facts `offset`, `length`, `bytes`

export class DiskError extends RomulusError<DiskErrorCode> {}

/** @throws DiskError OUT_OF_DISK */
export function demandOnDisk(offset: number, length: number, bytes: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= bytes) return;
  const message = `octets ${offset} to ${offset + length} of a disk of ${bytes}`;
  throw new DiskError('OUT_OF_DISK', message, { offset, length, bytes });
}
