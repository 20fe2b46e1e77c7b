// Which way of dirty tracking a launched QEMU gets, and why.

import type { QemuConfig } from './config.js';
import { CompareTracking } from './compare.js';
import type { DirtyTracking } from './dirty.js';
import { openAnonymousFile } from './ram-file.js';

/** Fails with BAD_CONFIGURATION if the way asked for does not work here. */
export async function openTracking(config: QemuConfig): Promise<DirtyTracking> {
  return new CompareTracking(await openAnonymousFile(config.memoryBytes), config.memoryBytes);
}
