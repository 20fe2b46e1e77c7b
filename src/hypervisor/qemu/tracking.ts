// Which way of dirty tracking a launched QEMU gets, and why.

import { CompareTracking } from './compare.js';
import type { QemuConfig } from './config.js';
import type { DirtyTracking } from './dirty.js';
import { FuseTracking } from './fuse/tracking.js';
import { HypervisorError } from '../port.js';
import { openAnonymousFile } from './ram-file.js';

export interface ChosenTracking {
  readonly tracking: DirtyTracking;
  /** Why it is this way: for people. */
  readonly reason: string;
}

/** Fails with UNSUPPORTED if the way asked for does not work here, or FAILED. */
export async function openTracking({
  name,
  dirty = 'auto',
  memoryBytes,
}: QemuConfig): Promise<ChosenTracking> {
  if (dirty === 'fuse') return { tracking: await FuseTracking.open(memoryBytes, name), reason: 'configured' };
  if (dirty === 'compare') return { tracking: await openCompare(memoryBytes), reason: 'configured' };
  try {
    return {
      tracking: await FuseTracking.open(memoryBytes, name),
      reason: 'the cost grows with dirty pages only',
    };
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.code !== 'UNSUPPORTED') throw error;
    return { tracking: await openCompare(memoryBytes), reason: error.message };
  }
}

async function openCompare(bytes: number): Promise<DirtyTracking> {
  return new CompareTracking(await openAnonymousFile(bytes), bytes);
}
