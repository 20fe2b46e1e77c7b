// The disks of a QEMU guest that are replicated, as the port knows them: each is mirrored into our exports, and read
// through an export of QEMU's (see mirror.ts, reader.ts). A disk is one of
//
//   not attached ── attach ──▶ attached ── lost ──▶ not attached, and what was written meanwhile is not known
//                                  │                     (attach, keep: null, once)
//                                  └── detach, close ──▶ not attached
//
// A guest's write waits for the thread of the exports, and so does QEMU's monitor. A thread that hangs is ended within a
// second (exports.ts), so nothing here waits for longer: every disk is lost then, and the guest goes on.

import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { Subject, type Observable } from 'rxjs';
import { DirtyMap } from '../../../disk/dirty-map.js';
import type { Slab } from '../../../disk/extents.js';
import { asError } from '../../../errors.js';
import { InOrder } from '../../../flow/in-order.js';
import { HypervisorError } from '../../port.js';
import type { DiskCopyOrder, DiskEvent, DiskFigures, DiskSource, DiskWrites } from '../../port-disks.js';
import type { ReplicatedDisk } from '../../port-disks.js';
import type { QmpClient } from '../monitor/qmp.js';
import { onProcessExit } from '../process/exit-hooks.js';
import { Attachment, endAll, lostError, translated } from './attachment.js';
import { Flushes } from './durability.js';
import { WrittenFigures } from './figures.js';
import type { FoundDisk } from './find.js';
import { NbdExports, type EpochWrites, type NbdExportEvent } from './nbd/exports.js';
import type { InPause } from './mirror.js';
import { DiskReaders } from './reader.js';
import { diskSums } from './sums.js';

const POOL_BYTES = 64 * 1024 * 1024;

export interface QemuDisksOptions {
  readonly qmp: QmpClient;
  readonly disks: readonly FoundDisk[];
  /** Where a directory of our own is made, for sockets. */
  readonly directory: string;
  readonly inPause: InPause;
  /** The path of the monitor of a QEMU that does not end with us. */
  readonly monitor?: string | null;
  /** Of all data of writes that are kept at once. Default: 64 MiB. */
  readonly poolBytes?: number | undefined;
  /** The ids of those whose durability is relaxed. */
  readonly relaxed?: readonly string[] | undefined;
  /** See NbdExportsOptions. */
  readonly entry?: URL | undefined;
}

export class QemuDisks implements DiskSource {
  readonly disks: readonly ReplicatedDisk[];
  readonly events$: Observable<DiskEvent>;
  readonly #events = new Subject<DiskEvent>();
  readonly #options: QemuDisksOptions;
  readonly #attachments: readonly Attachment[];
  readonly #readers: DiskReaders;
  readonly #flushes: Flushes;
  readonly #figures = new WrittenFigures();
  readonly #order = new InOrder();
  #exports: NbdExports | null = null;
  /** The memory of slabs that these exports want back; those before them have ended, with theirs. */
  #wanted = new WeakSet<ArrayBuffer>();
  #unhook: () => void = () => undefined;
  #seals = 0;
  #isClosed = false;

  constructor(options: QemuDisksOptions) {
    const { qmp, disks } = (this.#options = options);
    this.events$ = this.#events;
    this.disks = disks.map(({ id, bytes }) => ({ id, bytes }));
    this.#flushes = new Flushes(options);
    this.#readers = new DiskReaders(qmp, disks, options.monitor ?? null);
    this.#attachments = disks.map(
      (disk, index) => new Attachment(qmp, disk, index, (reason) => this.#lose(index, reason)),
    );
    qmp.events$.subscribe((event) => {
      for (const { mirror } of this.#attachments) mirror.hear(event);
    });
  }

  get figures(): readonly DiskFigures[] {
    const now = this.#exports?.figures ?? [];
    return this.#attachments.map(({ disk, reason }) => ({ ...this.#figures.of(disk.id, now), lost: reason }));
  }

  attach(): Promise<void> {
    return this.#do(async () => {
      this.#requireOpen();
      try {
        await this.#attach(this.#exports ?? (await this.#open()));
      } catch (error) {
        // Their thread has ended meanwhile, or before, which a disk that was lost may have told first.
        if (this.#exports !== null) throw error;
        await this.#attach(await this.#open());
      }
    });
  }

  keep(): Promise<readonly (DirtyMap | null)[]> {
    return this.#do(async () => {
      const exports = this.#attached();
      const asked = await this.#inPause(async () => {
        await this.#flushes.switchOff();
        return Promise.all(this.disks.map(({ id }) => exports.setMode(id, 'throttle')));
      });
      this.#attached();
      const maps = asked.map((map, index) => (this.#attachments[index]?.isKnown === true ? map : null));
      for (const attachment of this.#attachments) attachment.isKnown = true;
      return maps;
    });
  }

  rest(): Promise<void> {
    return this.#do(async () => {
      try {
        await this.#clear();
      } finally {
        await this.#mark();
      }
    });
  }

  seal(): Promise<readonly DiskWrites[]> {
    this.#seals++;
    try {
      return this.#sealed(this.#attached().seal());
    } catch (error) {
      return Promise.reject(asError(error));
    }
  }

  release(slabs: readonly Slab[]): void {
    this.#exports?.release(slabs.filter(({ buffer }) => this.#wanted.delete(buffer)));
  }

  /** QEMU is about to be told to stop: see NbdExports. */
  letThrough(): void {
    this.#exports?.letThrough();
  }

  async copy(order: DiskCopyOrder): Promise<{ readonly left: DirtyMap; readonly error: Error | null }> {
    const { bytes } = this.#attachment(order.disk).disk;
    try {
      return await this.#copy(order, this.#attached());
    } catch (error) {
      const left = new DirtyMap(bytes, order.todo?.words.slice());
      if (!order.todo) left.markAll();
      return { left, error: translated(error) };
    }
  }

  async sums(disk: number, first: number, count: number): Promise<Uint8Array> {
    const { bytes } = this.#attachment(disk).disk;
    if (!(first >= 0 && count > 0 && first + count <= new DirtyMap(bytes).chunks)) {
      throw new HypervisorError('WRONG_STATE', 'the disk has no such chunks', { disk, first, count });
    }
    try {
      const beside = this.#attached().path;
      return await this.#readers.using(disk, beside, (readable) => diskSums(readable, first, count));
    } catch (error) {
      throw translated(error);
    }
  }

  /**
   * QEMU has nothing of ours any more. `inPause`: instead of that of the options. May be called twice.
   * @throws HypervisorError: something of ours may be left there, which is of no use, and in nobody's way
   */
  detach(inPause: InPause = this.#options.inPause): Promise<void> {
    return this.#do(async () => {
      for (const attachment of this.#attachments) attachment.leave();
      await this.#readers.settled();
      const begun = this.#attachments.filter(({ isBegun }) => isBegun);
      if (begun.length === 0 && !this.#flushes.areOff) return;
      this.letThrough();
      await inPause(() => endAll(begun, this.#flushes));
    });
  }

  /** What is mirrored still fails in QEMU from here on. May be called twice. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const attachment of this.#attachments) attachment.leave();
    this.#events.complete();
    await this.#closeExports();
    await this.#readers.settled();
  }

  async #attach(exports: NbdExports): Promise<void> {
    const missing = this.#attachments.filter(({ isAttached }) => !isAttached);
    if (missing.length === 0) return;
    for (const { disk } of missing) await exports.setMode(disk.id, 'map');
    await this.#inPause(() => this.#begin(missing, exports));
    try {
      for (const { mirror } of missing) await mirror.whenReady();
      this.#attached();
    } catch (error) {
      await this.#inPause(() => endAll(missing)).catch(() => undefined); // detach() tries it again
      throw error;
    }
  }

  /** In a pause. */
  async #begin(attachments: readonly Attachment[], exports: NbdExports): Promise<void> {
    try {
      for (const attachment of attachments) await attachment.begin(exports.path);
    } catch (error) {
      await endAll(attachments).catch(() => undefined); // detach() tries it again
      throw error;
    }
  }

  async #copy(order: DiskCopyOrder, exports: NbdExports) {
    const { disk, todo, bytesPerSecond, take } = order;
    const { lost, disk: found } = this.#attachment(disk);
    return this.#readers.using(disk, exports.path, async (readable) => {
      const { left, error } = await exports.copy({
        ...{ disk: found.id, ...readable, ...(todo && { todo }) },
        ...(bytesPerSecond !== undefined && { bytesPerSecond }),
        signal: AbortSignal.any([order.signal, lost]),
        take: ({ epoch, extents, slab, progress: { doneBytes, totalBytes } }) => {
          // Of these exports; those before them, if there were any, had epochs, too.
          const seals = this.#seals - ((exports.epoch - epoch) | 0);
          return take({ extents, slab, seals, doneBytes, totalBytes });
        },
      });
      return { left, error: error && translated(lost.aborted ? lost.reason : error) };
    });
  }

  async #sealed(sealing: Promise<readonly EpochWrites[]>): Promise<readonly DiskWrites[]> {
    const all = await sealing.catch((error: unknown) => Promise.reject(translated(error)));
    for (const { slabs } of all) for (const { buffer } of slabs) this.#wanted.add(buffer);
    try {
      this.#attached();
    } catch (error) {
      this.release(all.flatMap(({ slabs }) => slabs));
      throw error;
    }
    return all
      .map(({ extents, slabs, dirty }, disk) => ({ disk, extents, slabs, dirty }))
      .filter(({ extents, dirty }) => extents.count > 0 || dirty !== null);
  }

  async #open(): Promise<NbdExports> {
    await this.#closeExports();
    const { directory, poolBytes = POOL_BYTES, entry } = this.#options;
    const disks = this.disks.map(({ id, bytes }) => ({ name: id, bytes }));
    this.#requireOpen();
    const exports = await NbdExports.open({ directory, disks, poolBytes, ...(entry && { entry }) });
    if (this.#isClosed) {
      await exports.close();
      throw gone();
    }
    exports.events$.subscribe((event) => this.#hear(event));
    this.#unhook = onProcessExit(() => rmSync(dirname(exports.path), { recursive: true, force: true }));
    this.#exports = exports;
    this.#wanted = new WeakSet();
    return exports;
  }

  async #closeExports(): Promise<void> {
    const exports = this.#exports;
    this.#exports = null;
    this.#figures.ended(exports?.figures ?? []);
    for (const attachment of this.#attachments) attachment.hasLeft();
    await exports?.close();
    this.#unhook();
    this.#unhook = () => undefined;
  }

  #hear(event: NbdExportEvent): void {
    switch (event.kind) {
      case 'connected':
        return;
      case 'pressure':
        this.#events.next(event);
        return;
      case 'lost': {
        const index = this.disks.findIndex(({ id }) => id === event.disk);
        this.#attachment(index).hasLeft();
        this.#lose(index, `its mirror has gone: ${event.reason ?? 'QEMU has taken its leave'}`);
        return;
      }
      case 'ended':
        for (const index of this.#attachments.keys()) this.#lose(index, event.error.message);
        this.#closeExports().catch(() => undefined); // a directory that cannot be removed
    }
  }

  #lose(index: number, reason: string): void {
    if (!this.#attachment(index).lose(reason)) return;
    this.#events.next({ kind: 'lost', disk: index, reason });
    this.#do(() => this.#clear()).catch(() => undefined); // QEMU has ended, or rest() tries it again
  }

  /** Of what is written only the places are kept. */
  async #mark(): Promise<void> {
    const exports = this.#exports;
    if (exports === null) return; // attach() does it
    try {
      await Promise.all(this.disks.map(({ id }) => exports.setMode(id, 'map')));
    } catch (error) {
      if (this.#exports !== null) throw error; // else they have ended
    }
  }

  /** @throws HypervisorError WRONG_STATE before attach(), FAILED if a disk is lost, DOMAIN_GONE after close() */
  #attached(): NbdExports {
    this.#requireOpen();
    const lost = this.#attachments.find(({ isAttached }) => !isAttached);
    if (lost === undefined && this.#exports !== null) return this.#exports;
    if (lost !== undefined && lost.reason !== null) throw lostError(lost);
    throw new HypervisorError('WRONG_STATE', 'the disks are not attached');
  }

  /** Nobody else has what is written from here on, and of mirrors that are lost nothing is left. @throws HypervisorError */
  async #clear(): Promise<void> {
    const lost = this.#attachments.filter(({ isBegun, isAttached }) => isBegun && !isAttached);
    if (lost.length === 0 && !this.#flushes.areOff) return;
    await this.#inPause(() => endAll(lost, this.#flushes));
  }

  #inPause<T>(work: () => Promise<T>): Promise<T> {
    this.letThrough();
    return this.#options.inPause(work);
  }

  #do<T>(work: () => Promise<T>): Promise<T> {
    return this.#order.do(() => work().catch((error: unknown) => Promise.reject(translated(error))));
  }

  /** @throws HypervisorError DOMAIN_GONE */
  #requireOpen(): void {
    if (this.#isClosed) throw gone();
  }

  /** @throws HypervisorError WRONG_STATE */
  #attachment(index: number): Attachment {
    const attachment = this.#attachments[index];
    if (attachment) return attachment;
    throw new HypervisorError('WRONG_STATE', 'there is no such disk', { disk: index });
  }
}

function gone(): HypervisorError {
  return new HypervisorError('DOMAIN_GONE', 'the domain’s disks are left');
}
