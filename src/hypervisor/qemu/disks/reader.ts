// Reading a guest's disks: QEMU exports their own nodes to us, below the mirror, while somebody reads. QEMU has one NBD
// server; where somebody else uses it, disks cannot be read.
//
//   first reader  nbd-server-start, block-export-add ─▶ reads ─▶ block-export-del, nbd-server-stop  last reader

import { dirname, join } from 'node:path';
import { InOrder } from '../../../flow/in-order.js';
import { HypervisorError } from '../../port.js';
import { QmpError, type QmpClient } from '../monitor/qmp.js';
import { listOf } from './answers.js';
import { removeExport } from './exports-left.js';
import { refused, type FoundDisk } from './find.js';
import { startKeeper, type Keeper } from './keeper.js';
import { readerName } from './names.js';

export interface Readable {
  /** Of the server's socket. */
  readonly path: string;
  readonly exportName: string;
  /** Whoever reads takes no leave: see keeper.ts. */
  readonly isKept: boolean;
}

export class DiskReaders {
  readonly #qmp: QmpClient;
  readonly #disks: readonly FoundDisk[];
  readonly #monitor: string | null;
  readonly #order = new InOrder();
  /** By the number of the disk. */
  readonly #users = new Map<number, number>();
  readonly #work = new Set<Promise<unknown>>();
  #path = '';
  #keeper: Keeper | null = null;
  #servers = 0;

  /** `monitor`: the path of a QEMU's that does not end with us, or null. */
  constructor(qmp: QmpClient, disks: readonly FoundDisk[], monitor: string | null) {
    this.#qmp = qmp;
    this.#disks = disks;
    this.#monitor = monitor;
  }

  /**
   * `beside`: a file of ours, in whose directory the server's socket may stand.
   * @throws HypervisorError BAD_CONFIGURATION if somebody else has QEMU's server; what `work` throws
   */
  using<T>(index: number, beside: string, work: (readable: Readable) => Promise<T>): Promise<T> {
    const done = this.#using(index, beside, work);
    this.#work.add(done);
    return done.finally(() => this.#work.delete(done));
  }

  /** Resolves when nobody reads any more, and QEMU exports nothing. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#work);
  }

  async #using<T>(index: number, beside: string, work: (readable: Readable) => Promise<T>): Promise<T> {
    await this.#order.do(() => this.#open(index, beside));
    try {
      const path = this.#keeper?.path ?? this.#path;
      return await work({ path, exportName: readerName(index), isKept: this.#keeper !== null });
    } finally {
      await this.#order.do(() => this.#close(index));
    }
  }

  async #open(index: number, beside: string): Promise<void> {
    if (this.#users.size === 0) await this.#startServer(index, join(dirname(beside), `r${this.#servers++}`));
    const users = this.#users.get(index) ?? 0;
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
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      const reason = `QEMU’s NBD server is somebody else’s (${error.description}): say nbd-server-stop to it`;
      throw refused(this.#disk(index).id, reason);
    }
    this.#path = path;
    try {
      const iothreads = await listOf(this.#qmp, 'query-iothreads');
      if (iothreads.length > 0) this.#keeper = await startKeeper(path, this.#monitor);
    } catch (error) {
      await this.#stopServer();
      throw error;
    }
  }

  async #close(index: number): Promise<void> {
    const users = (this.#users.get(index) ?? 0) - 1;
    if (users > 0) {
      this.#users.set(index, users);
      return;
    }
    this.#users.delete(index);
    // What cannot be undone any more is gone, with QEMU.
    await removeExport(this.#qmp, readerName(index)).catch(() => undefined);
    if (this.#users.size === 0) await this.#stopServer();
  }

  async #stopServer(): Promise<void> {
    const keeper = this.#keeper;
    this.#keeper = null;
    await this.#qmp.execute('nbd-server-stop').catch(() => undefined);
    await keeper?.end();
  }

  #disk(index: number): FoundDisk {
    const disk = this.#disks[index];
    if (disk) return disk;
    throw new HypervisorError('WRONG_STATE', 'there is no such disk', { index });
  }
}
