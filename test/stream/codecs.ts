// Codecs that only tests need: what Romulus carries without looking inside, taken apart and put together.

import {
  type CheckpointState,
  decodeEmulatorContext,
  encodeEmulatorContext,
} from '../../src/stream/libxl.js';
import { viewOf } from '../../src/stream/octets.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { CPUID_LEAF_BYTES, MSR_ENTRY_BYTES } from '../../src/stream/check.js';

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

export function decodeCpuidPolicy(record: StreamRecord): CpuidLeaf[] {
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

export function decodeMsrPolicy(record: StreamRecord): MsrEntry[] {
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

export interface EmulatorXenstoreData {
  readonly emulatorId: number;
  readonly index: number;
  /** Key, relative to the device model's path in xenstore, and value. One character an octet. */
  readonly entries: readonly (readonly [key: string, value: string])[];
}

/** Of a record that checkLibxlRecord has passed. */
export function decodeEmulatorXenstoreData(record: StreamRecord): EmulatorXenstoreData {
  const { emulatorId, index, context } = decodeEmulatorContext(record);
  const strings = Buffer.from(context).toString('latin1').split('\0');
  const entries: [string, string][] = [];
  for (let at = 0; at + 1 < strings.length; at += 2) entries.push([strings[at] ?? '', strings[at + 1] ?? '']);
  return { emulatorId, index, entries };
}

export function encodeEmulatorXenstoreData({ emulatorId, index, entries }: EmulatorXenstoreData): Uint8Array {
  const text = entries.map(([key, value]) => `${key}\0${value}\0`).join('');
  return encodeEmulatorContext({ emulatorId, index, context: Buffer.from(text, 'latin1') });
}

export function decodeCheckpointState(record: StreamRecord): number {
  return viewOf(record.body).getUint32(0, true);
}

export function encodeCheckpointState(state: CheckpointState): Uint8Array {
  return Uint8Array.of(state, 0, 0, 0);
}
