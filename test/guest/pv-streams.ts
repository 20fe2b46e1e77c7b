// Streams of small PV guests, whole and spoiled.

import { RecordType } from '../../src/stream/format.js';
import { encodePvP2mFrames } from '../../src/stream/records/pv.js';
import { pageAt, rewritten, saveTrial, spoiled, type Trial, trialGuest } from './pv-trial.js';

export const SUCCESS = { checkpoint: () => Promise.resolve('success' as const) };

export async function plainStream(
  options: Parameters<typeof trialGuest>[0] = {},
): Promise<{ trial: Trial; octets: Uint8Array }> {
  const trial = trialGuest(options);
  const { octets } = await saveTrial(trial);
  return { trial, octets };
}

export async function remusStream(checkpoints: number): Promise<{ trial: Trial; octets: Uint8Array }> {
  const trial = trialGuest();
  const { domain, guest } = trial;
  const { octets } = await saveTrial(trial, {
    streamType: 'remus',
    checkpoints,
    between: (epoch) => {
      domain.write(guest.dataPfns[epoch] ?? 0, Uint8Array.of(epoch + 1));
    },
  });
  return { trial, octets };
}

/** A PAGE_DATA body of the given pages of another. */
export function pagesOf(body: Uint8Array, wanted: (pfn: number, type: number) => boolean): Uint8Array {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const count = view.getUint32(0, true);
  const entries: Uint8Array[] = [];
  const pages: Uint8Array[] = [];
  let at = 8 + count * 8;
  for (let i = 0; i < count; i++) {
    const entry = view.getBigUint64(8 + i * 8, true);
    const type = Number(entry >> 60n);
    const hasData = type <= 4 || (type >= 9 && type <= 12);
    if (wanted(Number(entry & 0xffffffffn), type)) {
      entries.push(body.subarray(8 + i * 8, 16 + i * 8));
      if (hasData) pages.push(body.subarray(at, at + 4096));
    }
    if (hasData) at += 4096;
  }
  const header = new Uint8Array(8);
  new DataView(header.buffer).setUint32(0, entries.length, true);
  return new Uint8Array(Buffer.concat([header, ...entries, ...pages]));
}

/** The stream with PAGE_DATA taken apart into records, in this order. */
export function paged(octets: Uint8Array, ...parts: ((pfn: number, type: number) => boolean)[]): Uint8Array {
  return rewritten(octets, (records) =>
    records.flatMap((record) =>
      record.type === RecordType.PAGE_DATA
        ? parts.map((part) => ({ type: record.type, body: pagesOf(record.body, part) }))
        : [record],
    ),
  );
}

export const isTable = (type: number): boolean => type !== 0 && type < 13;

export function spoilTable(
  octets: Uint8Array,
  { guest }: Trial,
  level: number,
  index: number,
  entry: bigint,
): Uint8Array {
  const table = [...guest.tables].find(([, is]) => is === level)?.[0] ?? -1;
  return spoiled(octets, RecordType.PAGE_DATA, (body, view) => {
    view.setBigUint64(pageAt(body, table) + index * 8, entry, true);
  });
}

export function spoilStartInfo(octets: Uint8Array, { guest }: Trial, field: number): Uint8Array {
  return spoiled(octets, RecordType.PAGE_DATA, (body, view) => {
    view.setBigUint64(pageAt(body, guest.kernel.plan.startInfoPfn) + field, 80n, true);
  });
}

export function spoilVcpu(octets: Uint8Array, field: number, value: bigint, which = 0): Uint8Array {
  return spoiled(
    octets,
    RecordType.X86_PV_VCPU_BASIC,
    (_body, view) => {
      view.setBigUint64(field, value, true);
    },
    which,
  );
}

/** The page of a pfn is said to be of another type. */
export function retyped(octets: Uint8Array, pfn: number, type: number): Uint8Array {
  return spoiled(octets, RecordType.PAGE_DATA, (_body, view) => {
    for (let at = 8; ; at += 8) {
      if (Number(view.getBigUint64(at, true) & 0xffffffffn) !== pfn) continue;
      view.setBigUint64(at, (BigInt(type) << 60n) | BigInt(pfn), true);
      return;
    }
  });
}

/** In the second checkpoint, the first dirty page is a page table with an entry that is not there. */
export function retypedEntry(octets: Uint8Array, pfn: number): Uint8Array {
  return spoiled(
    octets,
    RecordType.PAGE_DATA,
    (body, view) => {
      view.setBigUint64(pageAt(body, pfn), (1n << 30n) | 1n, true);
      for (let at = 8; ; at += 8) {
        if (Number(view.getBigUint64(at, true) & 0xffffffffn) !== pfn) continue;
        view.setBigUint64(at, (1n << 60n) | BigInt(pfn), true);
        return;
      }
    },
    1,
  );
}

/** Another p2m in the second checkpoint. */
export function addedP2m(octets: Uint8Array, endPfn: number, frames: readonly number[]): Uint8Array {
  return rewritten(octets, (records) => {
    const second = records.findIndex(({ type }) => type === RecordType.CHECKPOINT) + 1;
    const body = encodePvP2mFrames({ startPfn: 0, endPfn, frames: Uint32Array.from(frames) });
    return [
      ...records.slice(0, second),
      { type: RecordType.X86_PV_P2M_FRAMES, body },
      ...records.slice(second),
    ];
  });
}
