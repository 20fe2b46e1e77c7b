// A running QEMU as the domain's side sees it, however it came to us: launched or attached to.

import type { Duplex } from 'node:stream';
import type { Inventory } from '../inventory.js';
import type { FoundDisks } from './disks/find.js';
import type { QemuDisksOptions } from './disks/qemu-disks.js';
import type { DeviceStateFile } from './state/device-state.js';
import type { DirtyTracking } from './memory/dirty.js';
import type { Guard } from './process/guard.js';
import type { QmpClient } from './monitor/qmp.js';
import type { StateImage } from './state/state-image.js';

/** How disks are replicated. */
export type ReplicationOptions = Pick<QemuDisksOptions, 'poolBytes' | 'relaxed' | 'entry'>;

export interface QemuMachine {
  readonly name: string;
  readonly memoryBytes: number;
  readonly qmp: QmpClient;
  readonly tracking: DirtyTracking;
  /** Why changed pages are found this way. */
  readonly trackingReason: string;
  readonly deviceState: DeviceStateFile;
  /** The guest's first serial port, if it is ours. */
  readonly serial: Duplex | null;
  /** As it was when the machine came to us. */
  readonly inventory: Inventory;
  /** Its disks that are replicated, and how that is done. */
  readonly disks: FoundDisks;
  readonly replication: ReplicationOptions;
  /** The name of the block of guest RAM. */
  readonly ramBlock: string;
  /** A directory of ours, which is removed whatever becomes of us. */
  readonly directory: string | null;
  /** A standby has an image that device states are loaded from. */
  readonly stateImage: StateImage | null;
  /** The path of the monitor of somebody else's QEMU. */
  readonly monitor: string | null;
  /** Somebody else's QEMU has a guard, which is told when the guest is about to be stopped, and when it runs again. */
  readonly guard: Guard | null;
  /**
   * There: it writes to disks that the other host sees, and does not end with us. `exposed`: it was found with its mark
   * (and is stopped): an agent before us has left it while a secondary may take it over.
   */
  readonly shared?: { readonly exposed: boolean } | undefined;
  /** Resolves with the reason when QEMU is gone; never rejects. */
  readonly gone: Promise<string>;
  /** The last that QEMU said on its standard error; nothing of one that is not ours. */
  readonly said: string;
  /**
   * Ends QEMU if it is ours (there is no guard), else lets go of it; frees everything. May be called twice. `isClean`:
   * nothing of ours is left in it, or else its guard is to remove it; default true.
   */
  close(isClean?: boolean): Promise<void>;
}
