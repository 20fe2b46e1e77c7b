// RAM of a guest that is saved: which pages changed, and what is in them. While its changes are logged, what is dirty is
// told by the image, and pages are as the image has them, or a later mark would be missed; else they are read from the
// RAM file.

import { PAGE_SIZE } from '../../../stream/format.js';
import type { Bitmap } from '../../bitmap.js';
import { FlatFrames } from '../../frames.js';
import { HypervisorError, type DirtyStats } from '../../port.js';
import type { DirtyTracking } from './dirty.js';

/** Of the pause that the guest is in, if it is in one: its capture of RAM. */
type Capture = Promise<void> | undefined;

export class GuestRam {
  readonly frames: FlatFrames;
  readonly #tracking: DirtyTracking;
  #logged = false;

  constructor(tracking: DirtyTracking, bytes: number) {
    this.#tracking = tracking;
    this.frames = new FlatFrames(bytes / PAGE_SIZE, { empty: false });
  }

  get isLogged(): boolean {
    return this.#logged;
  }

  /**
   * `first`: what has to be done before pages are marked.
   * @throws HypervisorError LOG_DIRTY, or as it does, or as tracking does
   */
  async log(first: () => Promise<void>): Promise<void> {
    if (this.#logged) throw new HypervisorError('LOG_DIRTY', 'log-dirty is enabled already');
    this.#logged = true;
    try {
      await first();
      await this.#tracking.begin();
    } catch (error) {
      this.#logged = false;
      throw error;
    }
  }

  /** `pause`: of the guest, settled when nothing of it is under way any more. @throws HypervisorError LOG_DIRTY */
  async endLog(pause: Promise<void> | undefined): Promise<void> {
    this.#requireLog();
    this.#logged = false;
    await pause;
    await this.#tracking.end();
  }

  /** @throws HypervisorError LOG_DIRTY, or FAILED for a bitmap of another size */
  async readLog(into: Bitmap, clean: boolean, capture: Capture): Promise<DirtyStats> {
    this.#requireLog();
    this.frames.checkBitmap(into);
    await (capture ?? this.#tracking.capture());
    return { dirtyCount: this.#tracking.marks.take(into, clean), faultCount: 0 };
  }

  /** As the port's copyPages(). */
  async copy(
    gfns: Uint32Array,
    count: number,
    slab: Uint8Array,
    offset: number,
    capture: Capture,
  ): Promise<void> {
    this.frames.checkRead(gfns, count, slab, offset);
    if (!this.#logged) {
      await this.#tracking.ram.read(gfns, count, slab, offset);
      return;
    }
    await capture;
    this.#tracking.copyPages(gfns, count, slab, offset);
  }

  #requireLog(): void {
    if (!this.#logged) throw new HypervisorError('LOG_DIRTY', 'log-dirty is not enabled');
  }
}
