// Which way of dirty tracking a launched QEMU gets, and why.

import { CompareTracking } from './compare.js';
import type { QemuConfig } from '../config.js';
import type { DirtyTracking } from './dirty.js';
import { FuseTracking } from './fuse/tracking.js';
import { HypervisorError } from '../../port.js';
import { requireImageMemory } from './image.js';
import { openAnonymousFile } from './ram-file.js';

export interface ChosenTracking {
  readonly tracking: DirtyTracking;
  /** Why it is this way: for people. */
  readonly reason: string;
}

interface Options {
  /** It is not saved before it has taken over. */
  readonly standby: boolean;
  /** Gives up, with FAILED. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * @throws HypervisorError UNSUPPORTED if the way asked for does not work here, OUT_OF_MEMORY if what guest RAM needs
 * cannot be reserved, or FAILED
 */
export async function openTracking(
  { name, dirty = 'auto', memoryBytes, memoryDirectory }: QemuConfig,
  { standby, signal }: Options,
): Promise<ChosenTracking> {
  const place = { memoryDirectory, signal };
  const openFuse = () => FuseTracking.open(memoryBytes, name, place);
  const openCompare = async (): Promise<DirtyTracking> => {
    const ramFd = await openAnonymousFile(memoryBytes, place);
    const tracking = new CompareTracking(ramFd, memoryBytes);
    try {
      if (!standby) requireImageMemory(memoryBytes);
      return tracking;
    } catch (error) {
      await tracking.close();
      throw error;
    }
  };
  if (dirty === 'fuse') return { tracking: await openFuse(), reason: 'configured' };
  if (dirty === 'compare') return { tracking: await openCompare(), reason: 'configured' };
  try {
    return { tracking: await openFuse(), reason: 'the cost grows with dirty pages only' };
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.code !== 'UNSUPPORTED') throw error;
    return { tracking: await openCompare(), reason: error.message };
  }
}
