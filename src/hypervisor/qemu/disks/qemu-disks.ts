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
import { withinAwake } from '../../../flow/awake.js';
import { InOrder } from '../../../flow/in-order.js';
import { HypervisorError, badConfiguration, failed } from '../../port.js';
import type { DiskCopyOrder, DiskEvent, DiskSource, DiskWrites, ReplicatedDisk } from '../../port-disks.js';
import type { QmpClient } from '../monitor/qmp.js';
import { onProcessExit } from '../process/exit-hooks.js';
import type { FoundDisk } from './find.js';
import { Mirror } from './mirror.js';
import { NbdError } from './nbd/error.js';
import { NbdExports, type EpochWrites, type NbdExportEvent } from './nbd/exports.js';
import { DiskReaders } from './reader.js';
import { diskSums } from './sums.js';

const POOL_BYTES = 64 * 1024 * 1024;
const LEAVE_MS = 10_000;

/** Does work while the guest stands still. */
export type InPause = <T>(work: () => Promise<T>) => Promise<T>;

export interface QemuDisksOptions {
  readonly qmp: QmpClient;
  readonly disks: readonly FoundDisk[];
  /** Where a directory of our own is made, for sockets. */
  readonly directory: string;
  readonly inPause: InPause;
  /** Of all data of writes that are kept at once. Default: 64 MiB. */
  readonly poolBytes?: number | undefined;
  /** See NbdExportsOptions. */
  readonly entry?: URL | undefined;
}

/** One disk, as far as it changes. */
interface State {
  readonly mirror: Mirror;
  /** Its writes come here. */
  isAttached: boolean;
  /** Why not; null: it never was, or by our will. */
  reason: string | null;
  /** All writes since attach() or rest() are in the map of its export. */
  isKnown: boolean;
  /** QEMU may have something of its mirror. */
  isBegun: boolean;
  /** Settles when QEMU has left its export; null: it has. */
  left: Promise<void> | null;
  leave: () => void;
  /** Ends what is done with it when it is lost. */
  lost: AbortController;
}

export class QemuDisks implements DiskSource {
  readonly disks: readonly ReplicatedDisk[];
  readonly events$: Observable<DiskEvent>;
  readonly #events = new Subject<DiskEvent>();
  readonly #options: QemuDisksOptions;
  readonly #states: readonly State[];
  readonly #readers: DiskReaders;
  readonly #order = new InOrder();
  #exports: NbdExports | null = null;
  #unhook: () => void = () => undefined;
  #seals = 0;
  #isClosed = false;

  constructor(options: QemuDisksOptions) {
    const { qmp, disks } = (this.#options = options);
    this.events$ = this.#events;
    this.disks = disks.map(({ id, bytes }) => ({ id, bytes }));
    this.#readers = new DiskReaders(qmp, disks);
    this.#states = disks.map((disk, index) => ({
      mirror: new Mirror(qmp, disk, index, (reason) => this.#lose(index, reason)),
      ...{ isAttached: false, reason: null, isKnown: true, isBegun: false },
      ...{ left: null, leave: () => undefined },
      lost: new AbortController(),
    }));
    qmp.events$.subscribe((event) => {
      for (const { mirror } of this.#states) mirror.hear(event);
    });
  }

  attach(): Promise<void> {
    return this.#do(async () => {
      if (this.#isClosed) throw gone();
      const missing = this.#states.filter(({ isAttached }) => !isAttached);
      if (missing.length === 0) return;
      const exports = this.#exports ?? (await this.#open());
      for (const { mirror } of missing) await exports.setMode(mirror.disk.id, 'map');
      await this.#inPause(() => this.#begin(missing, exports));
      try {
        for (const { mirror } of missing) await mirror.whenReady();
        this.#attached();
      } catch (error) {
        await this.#inPause(() => this.#end(missing)).catch(() => undefined); // QEMU ends them when we close
        throw error;
      }
    });
  }

  keep(): Promise<readonly (DirtyMap | null)[]> {
    return this.#do(async () => {
      const exports = this.#attached();
      const asked = await this.#inPause(() =>
        Promise.all(this.disks.map(({ id }) => exports.setMode(id, 'throttle'))),
      );
      this.#attached();
      const maps = asked.map((map, index) => (this.#states[index]?.isKnown === true ? map : null));
      for (const state of this.#states) state.isKnown = true;
      return maps;
    });
  }

  rest(): Promise<void> {
    return this.#do(async () => {
      const exports = this.#exports;
      if (exports === null) return; // attach() does it
      await Promise.all(this.disks.map(({ id }) => exports.setMode(id, 'map')));
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
    this.#exports?.release(slabs);
  }

  /** QEMU is about to be told to stop: see NbdExports. */
  letThrough(): void {
    this.#exports?.letThrough();
  }

  async copy(order: DiskCopyOrder): Promise<{ readonly left: DirtyMap; readonly error: Error | null }> {
    const { bytes } = this.#disk(order.disk);
    try {
      return await this.#copy(order, this.#attached());
    } catch (error) {
      const left = new DirtyMap(bytes, order.todo?.words.slice());
      if (!order.todo) left.markAll();
      return { left, error: translated(error) };
    }
  }

  async sums(disk: number, first: number, count: number): Promise<Uint8Array> {
    const { bytes } = this.#disk(disk);
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
   * @throws HypervisorError; close() leaves nothing that does not end by itself
   */
  detach(inPause: InPause = this.#options.inPause): Promise<void> {
    return this.#do(async () => {
      const begun = this.#states.filter(({ isBegun }) => isBegun);
      if (begun.length === 0) return;
      this.letThrough();
      await inPause(() => this.#end(begun));
    });
  }

  /** What is mirrored still QEMU ends by itself. May be called twice. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const state of this.#states) state.isAttached = false;
    this.#events.complete();
    await this.#closeExports();
  }

  /** In a pause. */
  async #begin(states: readonly State[], exports: NbdExports): Promise<void> {
    try {
      for (const state of states) {
        const { left } = state;
        await state.mirror.end(); // what is left of one that was lost
        if (left !== null) await withinAwake(LEAVE_MS, left, notLeft); // an export has one client
        state.lost = new AbortController();
        state.isBegun = true;
        await state.mirror.begin(exports.path);
        state.left = new Promise((resolve) => (state.leave = resolve));
        state.isAttached = true;
        state.reason = null;
      }
    } catch (error) {
      await this.#end(states).catch(() => undefined); // QEMU ends them when we close
      throw error;
    }
  }

  /** In a pause. */
  async #end(states: readonly State[]): Promise<void> {
    for (const state of states) {
      state.isAttached = false;
      state.isKnown = false;
      await state.mirror.end();
      state.isBegun = false;
    }
  }

  async #copy(order: DiskCopyOrder, exports: NbdExports) {
    const { disk, todo, bytesPerSecond, take } = order;
    const { lost, mirror } = this.#state(disk);
    return this.#readers.using(disk, exports.path, async (readable) => {
      const { left, error } = await exports.copy({
        ...{ disk: mirror.disk.id, ...readable, ...(todo && { todo }) },
        ...(bytesPerSecond !== undefined && { bytesPerSecond }),
        signal: AbortSignal.any([order.signal, lost.signal]),
        take: ({ epoch, extents, slab, progress: { doneBytes, totalBytes } }) => {
          // Of these exports; those before them, if there were any, had epochs, too.
          const seals = this.#seals - ((exports.epoch - epoch) | 0);
          return take({ extents, slab, seals, doneBytes, totalBytes });
        },
      });
      return { left, error: error && translated(lost.signal.aborted ? lost.signal.reason : error) };
    });
  }

  async #sealed(sealing: Promise<readonly EpochWrites[]>): Promise<readonly DiskWrites[]> {
    const all = await sealing.catch((error: unknown) => Promise.reject(translated(error)));
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
    const exports = await NbdExports.open({ directory, disks, poolBytes, ...(entry && { entry }) });
    exports.events$.subscribe((event) => this.#hear(event));
    this.#unhook = onProcessExit(() => rmSync(dirname(exports.path), { recursive: true, force: true }));
    this.#exports = exports;
    return exports;
  }

  async #closeExports(): Promise<void> {
    const exports = this.#exports;
    this.#exports = null;
    for (const state of this.#states) hasLeft(state);
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
        hasLeft(this.#state(index));
        this.#lose(index, `its mirror has gone: ${event.reason ?? 'QEMU has taken its leave'}`);
        return;
      }
      case 'ended':
        for (const index of this.#states.keys()) this.#lose(index, event.error.message);
        this.#closeExports().catch(() => undefined); // a directory that cannot be removed
    }
  }

  #lose(index: number, reason: string): void {
    const state = this.#state(index);
    if (!state.isAttached) return;
    state.isAttached = false;
    state.isKnown = false;
    state.reason = reason;
    state.lost.abort(lostError(state));
    this.#events.next({ kind: 'lost', disk: index, reason });
  }

  /** @throws HypervisorError WRONG_STATE before attach(), FAILED if a disk is lost */
  #attached(): NbdExports {
    if (this.#isClosed) throw gone();
    const lost = this.#states.find(({ isAttached }) => !isAttached);
    if (lost === undefined && this.#exports !== null) return this.#exports;
    if (lost === undefined || lost.reason !== null) throw lostError(lost);
    throw new HypervisorError('WRONG_STATE', 'the disks are not attached', { disk: lost.mirror.disk.id });
  }

  #inPause<T>(work: () => Promise<T>): Promise<T> {
    this.letThrough();
    return this.#options.inPause(work);
  }

  #do<T>(work: () => Promise<T>): Promise<T> {
    return this.#order.do(() => work().catch((error: unknown) => Promise.reject(translated(error))));
  }

  #state(index: number): State {
    const state = this.#states[index];
    if (state) return state;
    throw new HypervisorError('WRONG_STATE', 'there is no such disk', { disk: index });
  }

  #disk(index: number): FoundDisk {
    return this.#state(index).mirror.disk;
  }
}

function lostError(state: State | undefined): HypervisorError {
  const disk = state?.mirror.disk.id;
  const reason = state?.reason ?? 'its exports are closed';
  return failed(`what is written to the disk ${disk ?? ''} is not known: ${reason}`, { disk, reason });
}

function hasLeft(state: State): void {
  state.leave();
  state.left = null;
}

function notLeft(): HypervisorError {
  return new HypervisorError('HUNG', 'QEMU does not leave the export of a disk', { timeoutMs: LEAVE_MS });
}

function gone(): HypervisorError {
  return new HypervisorError('DOMAIN_GONE', 'the domain’s disks are left');
}

/** In the port's words. */
function translated(thrown: unknown): Error {
  const error = asError(thrown);
  if (!(error instanceof NbdError)) return error;
  const { code, message, facts } = error;
  if (code === 'BAD_PATH') return badConfiguration(message, facts, error);
  if (code === 'HUNG') return new HypervisorError('HUNG', message, facts, { cause: error });
  return failed(message, facts, error);
}
