// A disk image for QEMU that holds one device state, where we put it: QEMU loads the snapshot "checkpoint" of it into
// itself, as often as we like (snapshot-load). It is a qcow2 file made by hand, whose clusters for the state lie one
// after another at the end:
//
//   0 header   1 refcount table   2 refcounts   3 active L1   4 snapshot table   5 snapshot's L1   6 L2   7 … state
//
// The disk itself is one empty cluster; behind it, at L1 index 1, is where a snapshot keeps the state of a machine.
// Source: QEMU, docs/interop/qcow2.txt. All numbers are big-endian.

import { closeSync, ftruncateSync } from 'node:fs';
import { HypervisorError, failed } from '../../port.js';
import { DEVICE_STATE_BYTES_MAX } from './device-state.js';
import type { JsonObject } from '../monitor/qmp-parser.js';
import { writeAt } from '../memory/positioned.js';
import { openAnonymousFile } from '../memory/ram-file.js';

export const SNAPSHOT = 'checkpoint';
/** The name of its node in QEMU. */
export const STATE_NODE = 'romulus-state';

/** For -blockdev, or blockdev-add. @param path of the image, for QEMU */
export function stateNode(path: string): JsonObject {
  return {
    ...{ driver: 'qcow2', 'node-name': STATE_NODE, cache: { 'no-flush': true } },
    file: { driver: 'file', locking: 'off', filename: path },
  };
}

const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 2 ** CLUSTER_BITS;
const Cluster = {
  REFCOUNT_TABLE: 1,
  REFCOUNTS: 2,
  ACTIVE_L1: 3,
  SNAPSHOTS: 4,
  SNAPSHOT_L1: 5,
  L2: 6,
  STATE: 7,
} as const;
const STATE_CLUSTERS = Math.ceil(DEVICE_STATE_BYTES_MAX / CLUSTER_BYTES);
const STATE_AT = Cluster.STATE * CLUSTER_BYTES;
const HEADER_BYTES = 104;
const L1_ENTRIES = 2;

export class StateImage {
  /** For QEMU to inherit. */
  readonly fd: number;
  #closed = false;

  /** @throws HypervisorError FAILED */
  static async open(): Promise<StateImage> {
    // As long as the longest state, of which no more than what is put in takes memory: it is not reserved.
    const image = new StateImage(await openAnonymousFile(0));
    try {
      ftruncateSync(image.fd, (Cluster.STATE + STATE_CLUSTERS) * CLUSTER_BYTES);
      image.#write(layOut(), 0);
      return image;
    } catch (error) {
      image.close();
      throw error;
    }
  }

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** What the next load loads, in pieces. @throws HypervisorError BAD_CONTEXT, FAILED */
  put(parts: readonly Uint8Array[]): void {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (length > DEVICE_STATE_BYTES_MAX) {
      const facts = { length, limit: DEVICE_STATE_BYTES_MAX };
      throw new HypervisorError('BAD_CONTEXT', 'the device state is too large', facts);
    }
    let at = STATE_AT;
    for (const part of parts) {
      this.#write(part, at);
      at += part.length;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.fd);
  }

  #write(octets: Uint8Array, at: number): void {
    try {
      writeAt(this.fd, octets, 0, octets.length, at);
    } catch (error) {
      throw failed('the device state cannot be handed to QEMU', {}, error);
    }
  }
}

/** The clusters before the state. */
function layOut(): Buffer {
  const image = Buffer.alloc(Cluster.STATE * CLUSTER_BYTES);
  const place = (cluster: number): bigint => BigInt(cluster * CLUSTER_BYTES);
  image.write('QFI\xfb', 0, 'latin1');
  image.writeUInt32BE(3, 4); // version
  image.writeUInt32BE(CLUSTER_BITS, 20);
  image.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 24); // size of the disk
  image.writeUInt32BE(L1_ENTRIES, 36);
  image.writeBigUInt64BE(place(Cluster.ACTIVE_L1), 40);
  image.writeBigUInt64BE(place(Cluster.REFCOUNT_TABLE), 48);
  image.writeUInt32BE(1, 56); // clusters of it
  image.writeUInt32BE(1, 60); // snapshots
  image.writeBigUInt64BE(place(Cluster.SNAPSHOTS), 64);
  image.writeUInt32BE(4, 96); // refcounts of 2^4 bits
  image.writeUInt32BE(HEADER_BYTES, 100);
  image.writeBigUInt64BE(place(Cluster.REFCOUNTS), Cluster.REFCOUNT_TABLE * CLUSTER_BYTES);
  for (let cluster = 0; cluster < Cluster.STATE + STATE_CLUSTERS; cluster++) {
    image.writeUInt16BE(1, Cluster.REFCOUNTS * CLUSTER_BYTES + 2 * cluster);
  }
  snapshotEntry().copy(image, Cluster.SNAPSHOTS * CLUSTER_BYTES);
  image.writeBigUInt64BE(place(Cluster.L2), Cluster.SNAPSHOT_L1 * CLUSTER_BYTES + 8);
  for (let k = 0; k < STATE_CLUSTERS; k++) {
    image.writeBigUInt64BE(place(Cluster.STATE + k), Cluster.L2 * CLUSTER_BYTES + 8 * k);
  }
  return image;
}

function snapshotEntry(): Buffer {
  const id = '1';
  const extraBytes = 24;
  const entry = Buffer.alloc(40 + extraBytes);
  entry.writeBigUInt64BE(BigInt(Cluster.SNAPSHOT_L1 * CLUSTER_BYTES), 0);
  entry.writeUInt32BE(L1_ENTRIES, 8);
  entry.writeUInt16BE(id.length, 12);
  entry.writeUInt16BE(SNAPSHOT.length, 14);
  entry.writeUInt32BE(extraBytes, 36);
  entry.writeBigUInt64BE(BigInt(STATE_CLUSTERS * CLUSTER_BYTES), 40); // size of the machine's state
  entry.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 48); // size of the disk then
  entry.writeBigUInt64BE(2n ** 64n - 1n, 56); // no instruction count
  return Buffer.concat([entry, Buffer.from(id + SNAPSHOT, 'latin1')]);
}
