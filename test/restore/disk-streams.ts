// What the tests of disks that are restored share: streams put together by hand, and a restore of them taken in steps.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import type { ReplicatedDisk } from '../../src/hypervisor/port-disks.js';
import type { DiskRestoreOptions } from '../../src/restore/disks.js';
import { openRestore, type RestoreSteps } from '../../src/restore/steps.js';
import { DomainType, PageType, RecordType } from '../../src/stream/format.js';
import { viewOf } from '../../src/stream/octets.js';
import {
  WriteKind,
  encodeDisks,
  writeDiskExtent,
  writeDiskWritesHeader,
} from '../../src/stream/records/disks.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { sourceOf } from '../save/support.js';
import { pageDataBody } from '../stream/streams.js';

export const DISKS: readonly ReplicatedDisk[] = [
  { id: 'root', bytes: 4096 },
  { id: 'data', bytes: 1024 },
];
export const begin = concatenate([
  encodeHeaders({ domainType: DomainType.X86_HVM, xenMajor: 4, xenMinor: 17 }),
  encodeRecord(RecordType.STATIC_DATA_END),
]);
export const page = encodeRecord(RecordType.PAGE_DATA, pageDataBody([[0, PageType.NOTAB]], 1));
export const end = encodeRecord(RecordType.END);
export const checkpoint = encodeRecord(RecordType.CHECKPOINT);

export function list(disks: readonly ReplicatedDisk[] = DISKS): Uint8Array {
  return encodeRecord(RecordType.DISKS, encodeDisks(disks));
}

/** One extent, filled. */
export function writes(fill: number, disk = 0, offset = 0, length = 512): Uint8Array {
  const head = new Uint8Array(24);
  writeDiskWritesHeader(head, 0, disk, 1);
  writeDiskExtent(viewOf(head), 8, offset, length, WriteKind.DATA);
  return encodeRecord(RecordType.DISK_WRITES, head, new Uint8Array(length).fill(fill));
}

/** A checkpoint that writes a page, the context, and what is given. */
export function epoch(fill: number, ...disks: readonly Uint8Array[]): Uint8Array {
  const context = encodeRecord(RecordType.HVM_CONTEXT, Uint8Array.of(fill));
  return concatenate([page, context, ...disks, checkpoint]);
}

export interface Trial {
  readonly images: MemoryDisks;
  readonly domain: MemoryDomain;
  readonly steps: RestoreSteps;
  /** What disk 0 and 1 begin with. */
  readonly first: () => (number | undefined)[];
}

export async function trial(
  records: readonly Uint8Array[],
  options: Partial<DiskRestoreOptions> = {},
): Promise<Trial> {
  const images = new MemoryDisks({ disks: DISKS });
  const domain = new MemoryDomain({ pages: 4, empty: true, disks: images });
  const steps = await openRestore({
    ...{ domain, source: sourceOf(concatenate([begin, ...records])), streamType: 'remus', callbacks: {} },
    disks: { streamUuid: 'one', ...options },
  });
  return { images, domain, steps, first: () => images.disks.map((_, disk) => images.image(disk)[0]) };
}

export async function errorOf(work: Promise<unknown>): Promise<RomulusError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof RomulusError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

/** Receives what breaks it. */
export async function causeOf({ steps }: Pick<Trial, 'steps'>): Promise<RomulusError> {
  const received = await steps.receive();
  if (received.kind === 'broken' && received.cause instanceof RomulusError) return received.cause;
  throw new Error(`${received.kind}, and no cause`);
}

export async function commit({ steps }: Pick<Trial, 'steps'>): Promise<void> {
  expect((await steps.receive()).kind).to.equal('checkpoint');
  expect((await steps.commit()).kind).to.equal('applied');
}
