// Reading a guest's disks: QEMU exports their own nodes to us, below the mirror, while somebody reads. QEMU has one NBD
// server; where somebody else uses it, disks cannot be read.
//
//   first reader  nbd-server-start, block-export-add ─▶ reads ─▶ block-export-del, nbd-server-stop  last reader

import { dirname, join } from 'node:path';
import { InOrder } from '../../../flow/in-order.js';
import { HypervisorError } from '../../port.js';
import { QmpError, type QmpClient } from '../monitor/qmp.js';
import { ExpectedEvent } from './expected.js';
import { refused, type FoundDisk } from './find.js';
import { isTaken } from './mirror.js';
import { readerName } from './names.js';

export interface Readable {
  /** Of the server's socket. */
  readonly path: string;
  readonly exportName: string;
}

export class DiskReaders {
  readonly #qmp: QmpClient;
  readonly #disks: readonly FoundDisk[];
  readonly #order = new InOrder();
  /** By the number of the disk. */
  readonly #users = new Map<number, number>();
  #path = '';
  #servers = 0;

  constructor(qmp: QmpClient, disks: readonly FoundDisk[]) {
    this.#qmp = qmp;
    this.#disks = disks;
  }

  /**
   * `beside`: a file of ours, in whose directory the server's socket may stand.
   * @throws HypervisorError BAD_CONFIGURATION if somebody else has QEMU's server; what `work` throws
   */
  async using<T>(index: number, beside: string, work: (readable: Readable) => Promise<T>): Promise<T> {
    await this.#order.do(() => this.#open(index, beside));
    try {
      return await work({ path: this.#path, exportName: readerName(index) });
    } finally {
      await this.#order.do(() => this.#close(index));
    }
  }

  async #open(index: number, beside: string): Promise<void> {
    const users = this.#users.get(index) ?? 0;
    if (this.#users.size === 0) await this.#startServer(index, join(dirname(beside), `reader-${this.#servers++}`));
    this.#users.set(index, users + 1);
    if (users > 0) return;
    const name = readerName(index);
    const node = this.#disk(index).node;
    try {
      await this.#qmp.execute('block-export-add', { type: 'nbd', id: name, name, 'node-name': node });
    } catch (error) {
      await this.#close(index);
      throw error;
    }
  }

  async #startServer(index: number, path: string): Promise<void> {
    try {
      await this.#qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path } } });
      this.#path = path;
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      const reason = `QEMU’s NBD server is somebody else’s (${error.description}): say nbd-server-stop to it`;
      throw refused(this.#disk(index).id, reason);
    }
  }

  /** What cannot be undone any more is gone, with QEMU. */
  async #close(index: number): Promise<void> {
    const users = (this.#users.get(index) ?? 0) - 1;
    if (users > 0) {
      this.#users.set(index, users);
      return;
    }
    this.#users.delete(index);
    await removeExport(this.#qmp, readerName(index)).catch(() => undefined);
    if (this.#users.size === 0) await this.#qmp.execute('nbd-server-stop').catch(() => undefined);
  }

  #disk(index: number): FoundDisk {
    const disk = this.#disks[index];
    if (disk) return disk;
    throw new HypervisorError('WRONG_STATE', 'there is no such disk', { index });
  }
}

/** @throws HypervisorError */
export async function removeExport(qmp: QmpClient, id: string): Promise<void> {
  const removed = new ExpectedEvent(
    qmp,
    `its export ${id} is gone`,
    ({ name, data }) => name === 'BLOCK_EXPORT_DELETED' && data['id'] === id,
  );
  try {
    if (await isTaken(qmp.execute('block-export-del', { id, mode: 'hard' }))) await removed.come();
  } finally {
    removed.drop();
  }
}
