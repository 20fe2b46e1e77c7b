// QEMU guests, unmodified.

import { attachQemu, type AttachConfig } from './process/attach.js';
import type { QemuConfig } from './config.js';
import { replicatedDisks } from './disks/drives.js';
import { forgetRecord } from './disks/standby/record.js';
import { launchQemu } from './process/launch.js';
import { QemuPrimary } from './primary.js';
import { QemuTarget } from './target.js';

export type { AttachConfig } from './process/attach.js';
export type { QemuConfig } from './config.js';
export type { DirtyWay } from './memory/dirty.js';
export type { NetdevGate } from './network/netdev-gate.js';
export { QemuPrimary } from './primary.js';
export type { PauseTimes } from './pause.js';
export { QemuSource } from './source.js';
export { TakenOver } from './taken-over.js';
export { QemuTarget } from './target.js';

/**
 * Launches QEMU; stopped before its first instruction. `signal` gives up.
 * @throws HypervisorError BAD_CONFIGURATION, UNSUPPORTED, OUT_OF_MEMORY or FAILED
 */
export async function openQemuSource(config: QemuConfig, signal?: AbortSignal): Promise<QemuPrimary> {
  const netdevs = (config.network ?? []).map(({ id }) => id);
  const machine = await launchQemu(config, { role: 'primary', signal });
  try {
    // What the guest writes from now on is of no checkpoint that this host held before.
    for (const { file } of replicatedDisks(config)) await forgetRecord(file);
  } catch (error) {
    await machine.close();
    throw error;
  }
  return QemuPrimary.open(machine, netdevs);
}

/**
 * Attaches to a QEMU that is there, its guest running or not; what it sends through its netdevs is held from now on.
 * @throws HypervisorError BAD_CONFIGURATION or FAILED
 */
export async function attachQemuSource(config: AttachConfig): Promise<QemuPrimary> {
  const { machine, status } = await attachQemu(config);
  return QemuPrimary.open(machine, config.netdevs ?? [], status);
}

/** Launches a QEMU that waits to be filled. Its configuration must be the source's. @throws as openQemuSource() */
export async function openQemuTarget(config: QemuConfig, signal?: AbortSignal): Promise<QemuTarget> {
  return QemuTarget.open(config, signal);
}
