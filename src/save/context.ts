// The state of one save, what libxc keeps in xc_sr_context.save, under libxc's names. The algorithms (batch.ts,
// memory.ts, steps.ts) work on it; the ops tables see the part that SaveOpsContext names.

import { monotonicMs } from '../flow/clock.js';
import type { SaveOps, SaveOpsContext, StreamType } from '../guest/ops.js';
import { saveOpsFor } from '../guest/tables.js';
import { Bitmap } from '../hypervisor/bitmap.js';
import type { DirtyLog } from '../hypervisor/log-dirty.js';
import type { DomainInfo, SourceDomain } from '../hypervisor/port.js';
import type { StreamPiece, StreamSink } from '../stream/flow.js';
import { MAX_BATCH_SIZE } from '../stream/format.js';
import { DISK_ROOM_MIN } from './disk-records.js';
import { DiskSaver, type DiskSaveOptions } from './disks.js';
import { pieceOf, recordParts } from '../stream/writer.js';
import type { PrecopyStats, SaveStepCallbacks } from './callbacks.js';
import type { BackSource } from './colo.js';
import type { Boundary, Posting } from './posting.js';
import type { Slab } from './slab.js';

export interface SaveStepOptions {
  readonly domain: SourceDomain;
  readonly sink: StreamSink;
  readonly streamType: StreamType;
  /** Send memory while the domain runs before suspending it. */
  readonly live: boolean;
  /** After a live plain save, send everything again for comparison (VERIFY). Default: false. */
  readonly debug?: boolean;
  readonly callbacks: SaveStepCallbacks;
  /** COLO only, and needed there: where the secondary says which pages it has changed. */
  readonly back?: BackSource;
  /** Octets of one slab: a checkpoint that fits is sent while the domain runs. Default: 32 MiB. */
  readonly slabBytes?: number;
  /** One more than the checkpoints that may be on their way while the next is captured. Default: 2. */
  readonly slabCount?: number;
  /**
   * Instead of new ones, whose memory is free again only when the garbage collector has come to it: those of a stream
   * that is over, when neither its sink nor its domain touches them any more.
   */
  readonly slabs?: readonly Slab[];
  /** Milliseconds, monotonic. Default: the services' clock. */
  readonly clock?: () => number;
  /** Default: the table of the domain's type. */
  readonly ops?: SaveOps;
  /** Default: the domain's own. Ended with the save. */
  readonly dirtyLog?: DirtyLog;
  /**
   * The other side has all of the domain but what `dirtyLog` says, which is on: the first checkpoint holds that, and what
   * a stream begins with. Default: false.
   */
  readonly resumes?: boolean;
  /** Of a domain whose disks are replicated; a plain save is without them. */
  readonly disks?: DiskSaveOptions;
}

export class SaveContext implements SaveOpsContext {
  readonly domain: SourceDomain;
  readonly domainInfo: DomainInfo;
  readonly dirtyLog: DirtyLog;
  readonly resumes: boolean;
  readonly streamType: StreamType;
  readonly debug: boolean;
  readonly callbacks: SaveStepCallbacks;
  /** null but for COLO. */
  readonly back: BackSource | null;
  readonly ops: SaveOps;
  readonly clock: () => number;
  /** The stream is libxl's, for the state of the domain's device model (libxl.ts). */
  readonly layered: boolean;
  /** null: none is replicated in this stream. */
  readonly disks: DiskSaver | null;

  live: boolean;
  p2mSize = 0;
  stats: PrecopyStats = { iteration: 0, totalWritten: 0, dirtyCount: 0 };
  epoch = 0;
  /** True between the suspend and the postcopy of an epoch (of a plain save: to its end). */
  suspended = false;
  guestState: object | null = null;
  /** The device model's state, as of the pause, until it is written. */
  emulatorState: Uint8Array | null = null;
  logDirtyEnabled = false;

  /** The batch under construction: libxc's save.buffers. */
  readonly batchPfns = new Uint32Array(MAX_BATCH_SIZE);
  readonly gfns = new Uint32Array(MAX_BATCH_SIZE);
  readonly types = new Uint8Array(MAX_BATCH_SIZE);

  /** Pages that could not be sent while the domain ran; they are sent in the suspended pass. */
  deferredPages = new Bitmap(0);
  nrDeferredPages = 0;
  dirtyBitmap = new Bitmap(0);

  /** Pages of the current suspended pass. */
  dirtyPages = 0;
  /** Readings of the clock along one checkpoint. */
  readonly marks = { suspending: 0, suspended: 0, copied: 0, captured: 0, resumed: 0 };
  /** Octets since the last boundary, and before it. */
  bytes = 0;
  bytesBefore = 0;
  /** How often a suspended domain had to wait because its dirty pages did not fit the slab. */
  suspendedFlushes = 0;
  /** True while pieces are kept back until the domain runs again. */
  holding = false;

  readonly #posting: Posting;
  #slab: Slab | null = null;
  #pieces: StreamPiece[] = [];

  constructor(options: SaveStepOptions, domainInfo: DomainInfo, posting: Posting) {
    this.domain = options.domain;
    this.domainInfo = domainInfo;
    this.dirtyLog = options.dirtyLog ?? options.domain;
    this.resumes = options.resumes ?? false;
    this.streamType = options.streamType;
    this.live = options.live;
    this.debug = options.debug ?? false;
    this.callbacks = options.callbacks;
    this.back = (options.streamType === 'colo' && options.back) || null;
    this.ops = options.ops ?? saveOpsFor(domainInfo.type);
    this.clock = options.clock ?? monotonicMs;
    this.layered = options.domain.emulatorContext !== undefined;
    this.#posting = posting;
    const { disks } = options.domain;
    const isSaved = disks !== undefined && options.streamType !== 'plain';
    this.disks = isSaved ? new DiskSaver(disks, this, options.disks ?? {}) : null;
  }

  /** Once p2mSize is known. Shared, so that a domain in a worker can fill them. */
  allocateBitmaps(): void {
    this.dirtyBitmap = new Bitmap(this.p2mSize, { shared: true });
    this.deferredPages = new Bitmap(this.p2mSize);
  }

  async switchDeviceLogDirty(enable: boolean): Promise<void> {
    await this.callbacks.switchDeviceLogDirty?.(enable);
  }

  defer(pfn: number): void {
    this.deferredPages.set(pfn);
    this.nrDeferredPages++;
  }

  /** The slab being filled; waits until one is free if there is none. */
  async slab(): Promise<Slab> {
    this.#slab ??= await this.#posting.acquire();
    return this.#slab;
  }

  /** The slab with room for at least one page: a full one is sent off, even while the domain is suspended. */
  async slabWithRoom(): Promise<Slab> {
    const slab = await this.slab();
    if (slab.batchRoom() > 0) return slab;
    if (this.holding) this.suspendedFlushes++;
    this.flushSlab();
    return this.slab();
  }

  addPiece(piece: StreamPiece): void {
    this.#pieces.push(piece);
    this.bytes += piece.end - piece.start;
  }

  /** Small records: into the slab, next to one another, or into memory of their own if they do not fit. */
  async writeRecord(type: number, ...parts: readonly Uint8Array[]): Promise<void> {
    await this.writeOctets(recordParts(type, ...parts));
  }

  /** Whole records (or the headers), a multiple of 8 octets. */
  async writeOctets(parts: readonly Uint8Array[]): Promise<void> {
    let bytes = 0;
    for (const part of parts) bytes += part.length;
    const slab = await this.slab();
    const piece = slab.append(parts, bytes);
    if (piece === null) {
      this.bytes += bytes;
    } else if (piece !== false) {
      this.addPiece(piece);
    } else {
      slab.closePiece();
      this.addPiece(pieceOf(parts));
    }
  }

  /** A record that is a piece by itself: `lay` puts its body into the slab, where there is room for some of it. */
  async layRecord(
    type: number,
    lay: (memory: Uint8Array, at: number, room: number) => number,
  ): Promise<void> {
    let slab = await this.slab();
    if (slab.bodyRoom() < DISK_ROOM_MIN) {
      this.flushSlab();
      slab = await this.slab();
    }
    this.addPiece(slab.closeBody(type, lay(slab.memory, slab.bodyOffset(), slab.bodyRoom())));
    this.sendReady();
  }

  /** While the domain runs: what is ready leaves, the slab goes on being filled. */
  sendReady(): void {
    if (this.holding || this.#pieces.length === 0) return;
    this.#slab?.closePiece();
    void this.#posting.post(this.#take(), null, null);
  }

  /** What is ready leaves, and the slab with it. */
  flushSlab(): void {
    if (this.#slab === null || (this.#slab.isEmpty && this.#pieces.length === 0)) return;
    void this.#posting.post(this.#take(), this.#slab, null);
    this.#slab = null;
  }

  /** The epoch is whole: its rest leaves, the boundary behind it. Resolves when all has left. */
  closeEpoch(boundary: Boundary): Promise<void> {
    const left = this.#posting.post(this.#take(), this.#slab, boundary);
    this.#slab = null;
    this.bytesBefore += this.bytes;
    this.bytes = 0;
    return left;
  }

  /** Forgets what was written since the last boundary and has not left. */
  dropReady(): void {
    this.#pieces = [];
    this.#slab?.reset();
    this.bytes = 0;
  }

  #take(): StreamPiece[] {
    const pieces = this.#pieces;
    this.#pieces = [];
    return pieces;
  }
}
