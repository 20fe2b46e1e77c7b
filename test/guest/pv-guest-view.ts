// What a test reads and writes of a PV guest of 64 bits behind its back.

import type { Trial } from './pv-trial.js';

/** Offsets in shared_info. */
export const SHARED = { maxPfn: 3088, frameListList: 3096, p2mCr3: 3112, p2mVaddr: 3120 };

export function sharedView({ domain }: Trial): DataView {
  const page = domain.pv.sharedInfo;
  return new DataView(page.buffer, page.byteOffset, page.byteLength);
}

export function contextView({ domain }: Trial, vcpu = 0): DataView {
  const context = domain.pv.vcpus[vcpu]?.context ?? new Uint8Array(0);
  return new DataView(context.buffer, context.byteOffset, context.byteLength);
}

export function tableOf({ guest }: Trial, level: number): number {
  return [...guest.tables].find(([, is]) => is === level)?.[0] ?? -1;
}

/** The guest writes an entry of one of its tables. */
export function setEntry(trial: Trial, table: number, index: number, entry: bigint): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, entry, true);
  trial.domain.write(table, bytes, index * 8);
}
