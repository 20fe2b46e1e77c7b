// A thread that serves exports, and does what a test wants of it: `?delays` in this module's address has replies come late,
// and in the directory that `?directory=` names a file says what is to happen at the next write:
//
//   die: it ends    freeze: it does nothing any more    refuse: it answers with an error, as long as the file is there

import { existsSync } from 'node:fs';
import path from 'node:path';
import { serveThread } from '../../../../src/hypervisor/qemu/disks/nbd/serve-thread.js';
import { DiskExport } from '../../../../src/hypervisor/qemu/disks/nbd/export.js';
import { NbdService } from '../../../../src/hypervisor/qemu/disks/nbd/service.js';
import type { SlabPool } from '../../../../src/disk/slab-pool.js';

const DELAY_MS = 4;
const { searchParams } = new URL(import.meta.url);
const directory = searchParams.get('directory') ?? '';
const delays = searchParams.has('delays');

function isWanted(what: string): boolean {
  return existsSync(path.join(directory, what));
}

class Plantable extends DiskExport {
  #isOpen = false;
  #isDelayed = false;

  constructor(name: string, bytes: number, pool: SlabPool) {
    super(name, bytes, pool);
    // What is beyond the end of a disk is refused.
    Object.defineProperty(this, 'bytes', { get: () => (isWanted('refuse') ? 0 : bytes) });
  }

  override write(offset: number, source: Uint8Array, from: number, length: number): number {
    if (isWanted('die')) process.exit(1); // of this thread
    if (isWanted('freeze')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    if (delays && !this.#isOpen && !this.#isDelayed && Math.random() < 0.2) {
      this.#isDelayed = true;
      setTimeout(() => this.onRoom(), DELAY_MS);
      return 0;
    }
    this.#isDelayed = false;
    return super.write(offset, source, from, length);
  }

  override letThrough(): void {
    this.#isOpen = true;
    super.letThrough();
  }

  override seal(): ReturnType<DiskExport['seal']> {
    this.#isOpen = false;
    return super.seal();
  }
}

class PlantableService extends NbdService {
  protected override makeExport(name: string, bytes: number, pool: SlabPool): DiskExport {
    return new Plantable(name, bytes, pool);
  }
}

await serveThread((start, post) => new PlantableService(start, post));
