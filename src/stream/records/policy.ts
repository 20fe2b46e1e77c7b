// X86_CPUID_POLICY and X86_MSR_POLICY: what the guest's CPU says that it can do, arrays of Xen's public structures.
//
//   xen_cpuid_leaf_t (24)  leaf u32 | subleaf u32 | a u32 | b u32 | c u32 | d u32
//   xen_msr_entry_t  (16)  idx u32 | flags u32 | val u64

import { viewOf } from '../octets.js';
import type { StreamRecord } from '../record.js';
import { demandArrayOf } from './shape.js';

export const CPUID_LEAF_BYTES = 24;
export const MSR_ENTRY_BYTES = 16;

/** `subleaf` of a leaf that has none (XEN_CPUID_NO_SUBLEAF). */
export const CPUID_NO_SUBLEAF = 0xffffffff;

export interface CpuidLeaf {
  readonly leaf: number;
  readonly subleaf: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
}

export interface MsrEntry {
  readonly index: number;
  /** Reserved by Xen, 0 until now. */
  readonly flags: number;
  readonly value: bigint;
}

/** @throws StreamError BAD_RECORD */
export function decodeCpuidPolicy(record: StreamRecord): CpuidLeaf[] {
  demandArrayOf(record, CPUID_LEAF_BYTES);
  const view = viewOf(record.body);
  const leaves: CpuidLeaf[] = [];
  for (let at = 0; at < view.byteLength; at += CPUID_LEAF_BYTES) {
    leaves.push({
      leaf: view.getUint32(at, true),
      subleaf: view.getUint32(at + 4, true),
      a: view.getUint32(at + 8, true),
      b: view.getUint32(at + 12, true),
      c: view.getUint32(at + 16, true),
      d: view.getUint32(at + 20, true),
    });
  }
  return leaves;
}

export function encodeCpuidPolicy(leaves: readonly CpuidLeaf[]): Uint8Array {
  const body = new Uint8Array(leaves.length * CPUID_LEAF_BYTES);
  const view = viewOf(body);
  let at = 0;
  for (const { leaf, subleaf, a, b, c, d } of leaves) {
    for (const word of [leaf, subleaf, a, b, c, d]) {
      view.setUint32(at, word, true);
      at += 4;
    }
  }
  return body;
}

/** @throws StreamError BAD_RECORD */
export function decodeMsrPolicy(record: StreamRecord): MsrEntry[] {
  demandArrayOf(record, MSR_ENTRY_BYTES);
  const view = viewOf(record.body);
  const entries: MsrEntry[] = [];
  for (let at = 0; at < view.byteLength; at += MSR_ENTRY_BYTES) {
    entries.push({
      index: view.getUint32(at, true),
      flags: view.getUint32(at + 4, true),
      value: view.getBigUint64(at + 8, true),
    });
  }
  return entries;
}

export function encodeMsrPolicy(entries: readonly MsrEntry[]): Uint8Array {
  const body = new Uint8Array(entries.length * MSR_ENTRY_BYTES);
  const view = viewOf(body);
  let at = 0;
  for (const entry of entries) {
    view.setUint32(at, entry.index, true);
    view.setUint32(at + 4, entry.flags, true);
    view.setBigUint64(at + 8, entry.value, true);
    at += MSR_ENTRY_BYTES;
  }
  return body;
}
