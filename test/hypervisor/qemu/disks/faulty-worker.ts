// A thread that serves exports until a disk named "doomed" is written to.

import { serveThread } from '../../../../src/hypervisor/qemu/disks/nbd/serve-thread.js';
import { DiskExport } from '../../../../src/hypervisor/qemu/disks/nbd/export.js';
import { NbdService } from '../../../../src/hypervisor/qemu/disks/nbd/service.js';
import type { SlabPool } from '../../../../src/disk/slab-pool.js';

class Doomed extends DiskExport {
  override write(): number {
    setImmediate(() => {
      throw new Error('it was doomed');
    });
    return 0;
  }
}

class FaultyService extends NbdService {
  protected override makeExport(name: string, bytes: number, pool: SlabPool): DiskExport {
    return name === 'doomed' ? new Doomed(name, bytes, pool) : super.makeExport(name, bytes, pool);
  }
}

await serveThread((start, post) => new FaultyService(start, post));
