// Finding what a guest changed, from outside QEMU, through one interface with two ways:
//
//   fuse     guest RAM is a file that this process serves: the kernel's write-back says which pages changed, and brings
//            them. The cost grows with the dirty pages.
//   compare  guest RAM is a plain file, compared with the image of it. Works everywhere; the cost grows with RAM.
//
// Either keeps an image of RAM and marks in a bitmap, which a thread or process of its own keeps up to date:
//
//   guest RAM ──▶ (its own thread or process) ──▶ image, marks ──▶ copyPages, cleanLogDirty

import { wordAt, type Bitmap } from '../../bitmap.js';
import type { HypervisorError } from '../../port.js';
import type { RamAccess } from './ram-access.js';

export type DirtyWay = 'fuse' | 'compare';

export interface DirtyTracking {
  readonly way: DirtyWay;
  /** The RAM file, open for reading and writing: QEMU maps it. Nobody of us may wait for it: see `ram`. */
  readonly ramFd: number;
  /** What is in it: a standby's pages are written so. */
  readonly ram: RamAccess;
  /** Pages that changed, as of the last capture; a page is in the image before it is marked. */
  readonly marks: Marks;
  /** From now on pages that change are marked; the image is what RAM holds now, or a mark says otherwise. */
  begin(): Promise<void>;
  /** While the guest runs: whatever makes the next capture shorter. */
  prepare(): Promise<void>;
  /** The image becomes what RAM holds, exactly so if the guest is stopped; pages that changed are marked. */
  capture(): Promise<void>;
  end(): Promise<void>;
  /** QEMU was ended: whoever still waits for its RAM gets an error, so that nobody's end waits for who does not answer. */
  abandon(): void;
  /**
   * Pages of the image, what RAM was at the last capture (fuse: or later).
   * @throws HypervisorError LOG_DIRTY or FAILED
   */
  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): void;
  /** Resolves, and never rejects, when what was written to RAM may be lost: it is not to be trusted any more. */
  readonly lost: Promise<HypervisorError>;
  /**
   * Asks whether all that was written to RAM has arrived, and waits until it has: the kernel tells who asks, and tells
   * him once. For a standby about once a second. A server that hangs is waited for.
   * @throws as `lost` says
   */
  check(): Promise<void>;
  /** Frees everything; nobody but us may hold the RAM file any more. May be called twice. */
  close(): Promise<void>;
}

/** That RAM is lost: once so, for ever. */
export class Loss {
  readonly lost: Promise<HypervisorError>;
  #error: HypervisorError | null = null;
  #tell: (error: HypervisorError) => void = () => undefined;

  constructor() {
    this.lost = new Promise((resolve) => (this.#tell = resolve));
  }

  /** @throws as was reported, if it was */
  requireNone(): void {
    if (this.#error !== null) throw this.#error;
  }

  /** The first counts. */
  report(error: HypervisorError): HypervisorError {
    if (this.#error === null) this.#tell((this.#error = error));
    return this.#error;
  }
}

/** A bitmap that one thread sets bits in while another takes them. */
export class Marks {
  readonly pages: number;
  readonly words: Uint32Array;

  constructor(pages: number, memory?: SharedArrayBuffer) {
    this.pages = pages;
    this.words = new Uint32Array(memory ?? new SharedArrayBuffer(Math.ceil(pages / 32) * 4));
  }

  get memory(): SharedArrayBuffer {
    return this.words.buffer as SharedArrayBuffer; // made in the constructor
  }

  set(page: number): void {
    Atomics.or(this.words, page >>> 5, 1 << (page & 31));
  }

  /** Adds the marks of a bitmap's words. */
  or(words: Uint32Array): void {
    for (let w = 0; w < words.length; w++) {
      const word = wordAt(words, w);
      if (word !== 0) Atomics.or(this.words, w, word);
    }
  }

  /** Copies the marks, and clears them if `clean`. Returns their number. */
  take(into: Bitmap, clean: boolean): number {
    const { words } = this;
    for (let w = 0; w < words.length; w++) {
      into.words[w] = clean ? Atomics.exchange(words, w, 0) : Atomics.load(words, w);
    }
    return into.count();
  }

  clear(): void {
    for (let w = 0; w < this.words.length; w++) Atomics.store(this.words, w, 0);
  }
}
