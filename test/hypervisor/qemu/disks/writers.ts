// Whoever writes to a disk behind QEMU's block layer, at several places at once, and knows what it has written.

import type { NbdClient } from '../../../../src/hypervisor/qemu/disks/nbd/client.js';
import { seeded } from '../../../support/random.js';
import { MIB } from './support.js';

/** Of each lane: two writes to one place are never under way at once, since their order would be anybody's guess. */
const REGION_BYTES = 8 * MIB;

export class Writers {
  writes = 0;
  readonly #lanes: readonly Promise<void>[];
  #isOver = false;

  /** Lane n writes to the n-th 8 MiB of the disk, until stop(). */
  constructor(client: NbdClient, lanes: number, seed: number) {
    this.#lanes = Array.from({ length: lanes }, (_, lane) => this.#write(client, lane, seeded(seed + lane)));
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#lanes);
  }

  async #write(client: NbdClient, lane: number, random: () => number): Promise<void> {
    while (!this.#isOver) {
      const sectors = 1 + Math.floor(random() ** 3 * 500);
      const place = Math.floor(random() ** 2 * (REGION_BYTES / 512 - sectors));
      const [offset, length] = [lane * REGION_BYTES + place * 512, sectors * 512];
      if (random() < 0.1) await client.writeZeroes(offset, length);
      else await client.write(offset, stamped(length, Math.floor(random() * 2 ** 32)));
      this.writes++;
    }
  }
}

/** No two sectors alike. */
export function stamped(length: number, stamp: number): Buffer {
  const data = Buffer.alloc(length, stamp & 0xff);
  for (let at = 0; at < length; at += 512) data.writeUInt32LE((stamp + at) >>> 0, at);
  return data;
}
