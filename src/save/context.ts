// The state of one save, what libxc keeps in xc_sr_context.save, under libxc's names. The algorithms (batch.ts,
// memory.ts, steps.ts) work on it; the ops tables see the part that SaveOpsContext names.

import type { SaveOps, SaveOpsContext, StreamType } from '../guest/ops.js';
import { Bitmap } from '../hypervisor/bitmap.js';
import type { DomainInfo, SourceDomain } from '../hypervisor/port.js';
import { HEADROOM, type StreamPiece } from '../stream/flow.js';
import { MAX_BATCH_SIZE } from '../stream/format.js';
import { recordParts } from '../stream/writer.js';
import type { PrecopyStats, SaveStepCallbacks } from './callbacks.js';
import type { BackSource } from './colo.js';
import type { Boundary, Posting } from './posting.js';
import type { Slab } from './slab.js';

export interface SaveContextFacts {
  readonly domain: SourceDomain;
  readonly domainInfo: DomainInfo;
  readonly streamType: StreamType;
  readonly live: boolean;
  readonly debug: boolean;
  readonly callbacks: SaveStepCallbacks;
  /** null but for COLO. */
  readonly back: BackSource | null;
  readonly ops: SaveOps;
  readonly posting: Posting;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
}

/** Readings of the clock along one checkpoint. */
export interface CheckpointMarks {
  suspending: number;
  suspended: number;
  copied: number;
  captured: number;
  resumed: number;
}

export class SaveContext implements SaveOpsContext {
  readonly domain: SourceDomain;
  readonly domainInfo: DomainInfo;
  readonly streamType: StreamType;
  readonly debug: boolean;
  readonly callbacks: SaveStepCallbacks;
  readonly back: BackSource | null;
  readonly ops: SaveOps;
  readonly clock: () => number;
  /** The stream is libxl's, for the state of the domain's device model (libxl.ts). */
  readonly layered: boolean;

  live: boolean;
  p2mSize = 0;
  stats: PrecopyStats = { iteration: 0, totalWritten: 0, dirtyCount: 0 };
  epoch = 0;
  /** True between the suspend and the postcopy of an epoch (of a plain save: to its end). */
  suspended = false;
  guestState: object | null = null;
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
  readonly marks: CheckpointMarks = { suspending: 0, suspended: 0, copied: 0, captured: 0, resumed: 0 };
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

  constructor(facts: SaveContextFacts) {
    this.domain = facts.domain;
    this.domainInfo = facts.domainInfo;
    this.streamType = facts.streamType;
    this.live = facts.live;
    this.debug = facts.debug;
    this.callbacks = facts.callbacks;
    this.back = facts.back;
    this.ops = facts.ops;
    this.clock = facts.clock;
    this.layered = facts.domain.emulatorContext !== undefined;
    this.#posting = facts.posting;
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
      return;
    }
    if (piece !== false) {
      this.addPiece(piece);
      return;
    }
    slab.closePiece();
    const memory = new Uint8Array(HEADROOM + bytes);
    let at = HEADROOM;
    for (const part of parts) {
      memory.set(part, at);
      at += part.length;
    }
    this.addPiece({ memory, start: HEADROOM, end: at });
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
