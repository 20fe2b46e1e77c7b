// A small PV guest, saved and restored, with a chance to spoil something at every step.

import { RomulusError } from '../../src/errors.js';
import type { SaveOps, StreamType } from '../../src/guest/ops.js';
import { saveOpsX86Pv } from '../../src/guest/x86-pv/save.js';
import { MemoryMachine, shuffledFrames } from '../memory/machine.js';
import { type BuiltPvGuest, type PvGuestOptions, buildPvGuest } from '../memory/pv-builder.js';
import { MemoryPvDomain } from '../memory/pv-domain.js';
import { type RestoreOutcome, restoreDomain } from '../../src/restore/restore.js';
import { type SaveResult, saveDomain } from '../../src/save/save.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { driver, RecordingSink } from '../save/support.js';
import { readAll } from '../stream/streams.js';
import { endpointsOfTests, privateSource } from './pv-support.js';

export const PFNS = 80;

export interface Trial {
  readonly machine: MemoryMachine;
  readonly domain: MemoryPvDomain;
  readonly guest: BuiltPvGuest;
}

export function trialGuest(
  options: Partial<PvGuestOptions> & { readonly width?: 4 | 8; readonly vcpus?: number } = {},
): Trial {
  const { width = 8, vcpus = 2, pfns = PFNS, p2m = 'tree', ...rest } = options;
  const machine = new MemoryMachine({ frames: pfns + 40, order: shuffledFrames(pfns + 40, 3) });
  const domain = new MemoryPvDomain({ machine, pages: pfns, width, vcpus });
  const guest = buildPvGuest(domain, { pfns, p2m, ...rest });
  domain.guest = guest.kernel;
  return { machine, domain, guest };
}

export interface SaveTrial {
  readonly streamType?: StreamType;
  readonly live?: boolean;
  readonly checkpoints?: number;
  readonly between?: (epoch: number) => void;
  readonly suspended?: (epoch: number) => void;
  readonly cleanedUp?: () => void;
}

/** Starts the domain if it does not run, and saves it. */
export async function saveTrial(
  { domain }: Trial,
  options: SaveTrial = {},
): Promise<{ readonly octets: Uint8Array; readonly result: SaveResult }> {
  if (domain.state === 'created') await domain.start();
  const sink = new RecordingSink();
  const ops: SaveOps = {
    ...saveOpsX86Pv,
    async cleanup(context) {
      options.cleanedUp?.();
      await saveOpsX86Pv.cleanup(context);
    },
  };
  const { streamType = 'plain', live = false, checkpoints = 0, between, suspended } = options;
  const result = await saveDomain({
    domain,
    sink,
    streamType,
    live,
    ops,
    callbacks: driver({
      domain,
      checkpoints,
      ...(between === undefined ? {} : { between }),
      ...(suspended === undefined ? {} : { suspended }),
    }),
  });
  return { octets: sink.octets(), result };
}

export function emptyDomain(
  options: { readonly pages?: number; readonly vcpus?: number } = {},
): MemoryPvDomain {
  const pages = options.pages ?? PFNS;
  const machine = new MemoryMachine({ frames: pages + 50, order: shuffledFrames(pages + 50, 11) });
  return new MemoryPvDomain({ machine, pages, vcpus: options.vcpus ?? 2 });
}

export function restoreTrial(
  octets: Uint8Array,
  domain: MemoryPvDomain,
  streamType: StreamType = 'plain',
): Promise<RestoreOutcome> {
  return restoreDomain({
    domain,
    source: privateSource(octets),
    streamType,
    endpoints: endpointsOfTests(),
    callbacks: { checkpoint: () => Promise.resolve('success') },
  });
}

/** The stream with its records changed. */
export function rewritten(
  octets: Uint8Array,
  change: (records: StreamRecord[]) => readonly Pick<StreamRecord, 'type' | 'body'>[],
  version = 3,
): Uint8Array {
  const records = readAll(octets).map((record) => ({ ...record, body: record.body.slice() }));
  const headers = encodeHeaders({ domainType: 1, xenMajor: 4, xenMinor: 17 });
  headers[15] = version;
  return concatenate([headers, ...change(records).map(({ type, body }) => encodeRecord(type, body))]);
}

/** The stream without the records of a type. */
export function without(octets: Uint8Array, type: number): Uint8Array {
  return rewritten(octets, (records) => records.filter((record) => record.type !== type));
}

/** The stream with the body of the n-th record of a type changed in place. */
export function spoiled(
  octets: Uint8Array,
  type: number,
  spoil: (body: Uint8Array, view: DataView) => void,
  which = 0,
): Uint8Array {
  return rewritten(octets, (records) => {
    const record = records.filter((candidate) => candidate.type === type)[which];
    if (record === undefined) throw new Error(`no record of type ${type}`);
    spoil(record.body, new DataView(record.body.buffer, record.body.byteOffset, record.body.byteLength));
    return records;
  });
}

/** Where the page of a pfn stands in the body of a PAGE_DATA record whose pages all have data up to it. */
export function pageAt(body: Uint8Array, pfn: number): number {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const count = view.getUint32(0, true);
  let at = 8 + count * 8;
  for (let i = 0; i < count; i++) {
    const entry = view.getBigUint64(8 + i * 8, true);
    if (Number(entry & 0xffffffffn) === pfn) return at;
    const type = Number(entry >> 60n);
    if (type <= 4 || (type >= 9 && type <= 12)) at += 4096;
  }
  throw new Error(`no page ${pfn}`);
}

export async function failureOf(work: Promise<unknown>): Promise<RomulusError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof RomulusError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}
