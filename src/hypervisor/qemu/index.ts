// QEMU guests, unmodified.

import type { QemuConfig } from './config.js';
import { launchQemu } from './launch.js';
import { QemuSource } from './source.js';
import { QemuTarget } from './target.js';

export type { QemuConfig } from './config.js';
export { QemuSource, type PauseTimes } from './source.js';
export { QemuTarget } from './target.js';

/** Launches QEMU; stopped before its first instruction. Fails with BAD_CONFIGURATION or FAILED. */
export async function openQemuSource(config: QemuConfig): Promise<QemuSource> {
  return new QemuSource(await launchQemu(config, { standby: false }));
}

/** Launches a QEMU that waits to be filled. Its configuration must be the source's. Fails as openQemuSource does. */
export async function openQemuTarget(config: QemuConfig): Promise<QemuTarget> {
  return QemuTarget.open(await launchQemu(config, { standby: true }));
}
