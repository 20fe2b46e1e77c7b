// What the tests of a standby's disks share.

import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { until } from '../../../../support/until.js';
import { childrenOf, isAlive } from '../../../../support/processes.js';
import { WriteKind, type Extents } from '../../../../../src/disk/extents.js';
import type { LocalDisk } from '../../../../../src/hypervisor/qemu/disks/drives.js';
import type { DiskTarget } from '../../../../../src/hypervisor/port-disks.js';
import { stamped } from '../writers.js';
import { qemuImg } from '../support.js';

export const STREAM = '01234567-89ab-4cde-8f01-23456789abcd';
export const OTHER_STREAM = 'fedcba98-7654-4321-8fed-cba987654321';

export interface Write {
  readonly kind: WriteKind;
  readonly offset: number;
  readonly length: number;
  /** Of what DATA holds. */
  readonly stamp?: number;
}

export function localDisk(
  file: string,
  format = 'raw',
  options: Partial<LocalDisk['options']> = {},
): LocalDisk {
  const id = 'disk';
  return { id, name: id, file, format, options: { durability: 'strict', preallocate: false, ...options } };
}

/** Writes that do not overlap, in ascending order. */
export function extentsOf(writes: readonly Write[]): { extents: Extents; data: Buffer } {
  const count = writes.length;
  const extents: Extents = {
    count,
    offsets: Float64Array.from(writes, ({ offset }) => offset),
    lengths: Float64Array.from(writes, ({ length }) => length),
    kinds: Uint8Array.from(writes, ({ kind }) => kind),
    places: new Uint32Array(count),
  };
  const parts: Buffer[] = [];
  let place = 0;
  for (const [index, { kind, length, stamp = 0 }] of writes.entries()) {
    if (kind !== WriteKind.DATA) continue;
    extents.places[index] = place;
    parts.push(stamped(length, stamp));
    place += length;
  }
  return { extents, data: Buffer.concat(parts) };
}

/** What a disk would hold. */
export function applyTo(octets: Buffer, writes: readonly Write[]): void {
  for (const { kind, offset, length, stamp = 0 } of writes) {
    if (kind === WriteKind.DATA) octets.set(stamped(length, stamp), offset);
    else octets.fill(0, offset, offset + length);
  }
}

export async function give(disks: DiskTarget, writes: readonly Write[], disk = 0): Promise<void> {
  const { extents, data } = extentsOf(writes);
  await disks.write(disk, extents, data);
}

/** What an image holds that nobody writes to now. */
export async function contentOf(file: string, format: string): Promise<Buffer> {
  if (format === 'raw') return readFile(file);
  const raw = `${file}.converted`;
  // Whoever has it locked has it open for writing.
  await qemuImg('convert', '-U', '-f', format, '-O', 'raw', file, raw);
  const octets = await readFile(raw);
  await rm(raw);
  return octets;
}

/** The process that has it open for us. */
export function daemonOf(file: string): number {
  const pid = childrenOf(process.pid).find(
    (child) =>
      readFileSync(`/proc/${child}/comm`, 'latin1').startsWith('qemu-storage') &&
      readdirSync(`/proc/${child}/fd`).some((fd) => readlinkSync(`/proc/${child}/fd/${fd}`) === file),
  );
  if (pid === undefined) throw new Error(`nobody has ${file} open`);
  return pid;
}

export async function killDaemonOf(file: string): Promise<void> {
  const pid = daemonOf(file);
  process.kill(pid, 'SIGKILL');
  await until('it has ended', () => !isAlive(pid));
}
