// What the standby has of the domain's memory, over the streams: the domain's dirty log stays on when a stream ends, and
// what was taken out of it since the last acknowledgement is kept. So a stream may go on from where another one broke off.
//
//   stream S   ✓ epoch 7   ┄ epoch 8 ┄ epoch 9 (taken, not acknowledged)  ✕      dirty log …
//   stream T   first checkpoint: pages of 8 and 9 and of the dirty log since; the standby has 7, or 8, or 9
//
// Where they stand is named by a point: stream, epoch, and a digest over all that memory was made of until then.

import type { SharedPoint } from '../channel/contract.js';
import { chained } from '../channel/link/digest.js';
import { codeOf } from '../errors.js';
import { Bitmap } from '../hypervisor/bitmap.js';
import { endDirtyLog, type DirtyLog } from '../hypervisor/log-dirty.js';
import type { DirtyStats } from '../hypervisor/port.js';

/** Points of earlier streams that a standby may have reached, beside the first. Whoever has an older one is sent all memory. */
const POINTS_MAX = 32;

/** One epoch that is captured and not acknowledged. */
interface Taken {
  readonly epoch: number;
  readonly pages: Bitmap;
}

export class Shared implements DirtyLog {
  readonly #log: DirtyLog;
  #logging = false;
  #streamUuid = '';
  /** Over the epochs of this stream that were sent, and what it went on from. */
  #digest = 0n;
  /** Oldest first, beginning with the one that was acknowledged last. */
  #points: SharedPoint[] = [];
  /** Taken out of the log since the last capture, and in each since the last acknowledgement. */
  #open: Bitmap | null = null;
  #taken: Taken[] = [];
  /** Of the streams before: what the first pass of this one sends besides. Null: nothing. */
  #carried: Bitmap | null = null;
  readonly #spare: Bitmap[] = [];

  /** `log`: the domain's. */
  constructor(log: DirtyLog) {
    this.#log = log;
  }

  /** A standby that has reached this point lacks nothing but what is known here. */
  has(point: SharedPoint | null): boolean {
    return point !== null && this.#points.some((each) => samePoint(each, point));
  }

  /** A stream begins: with all memory, or from a point that the standby has reached. False: there is no way from there. */
  begin(streamUuid: string, from: SharedPoint | null): boolean {
    if (from === null) {
      this.#forget();
    } else {
      if (!this.has(from)) return false;
      const pages = [this.#carried, this.#open, ...this.#taken.map((each) => each.pages)];
      this.#open = null;
      this.#taken = [];
      this.#carried = union(pages.filter((each) => each !== null));
      // The first is the one that the standby is known to have.
      const [first, ...others] = this.#points;
      this.#points = [...(first ? [first] : []), ...others.slice(-POINTS_MAX)];
    }
    this.#streamUuid = streamUuid;
    this.#digest = from?.digest ?? 0n;
    return true;
  }

  async enableLogDirty(): Promise<void> {
    try {
      await this.#log.enableLogDirty();
    } catch (error) {
      // It is on, perhaps by an attempt of ours that was not waited for: it can be turned off.
      if (codeOf(error) === 'LOG_DIRTY') this.#logging = true;
      throw error;
    }
    this.#logging = true;
  }

  async cleanLogDirty(into: Bitmap): Promise<DirtyStats> {
    let stats: DirtyStats;
    try {
      stats = await this.#log.cleanLogDirty(into);
    } catch (error) {
      // Nobody knows what was taken.
      this.#forget();
      throw error;
    }
    if (this.#carried) {
      into.or(this.#carried);
      this.#carried = null;
      stats = { ...stats, dirtyCount: into.count() };
    }
    this.#open ??= this.#spare.pop() ?? new Bitmap(into.size);
    this.#open.or(into);
    return stats;
  }

  /** The saver is done with it: the log goes on, if there is a point to go on from. */
  async disableLogDirty(): Promise<void> {
    if (this.#points.length === 0) await this.end();
  }

  /** Nothing goes on from here. */
  async end(): Promise<void> {
    this.#forget();
    if (!this.#logging) return;
    this.#logging = false;
    await endDirtyLog(this.#log);
  }

  captured(epoch: number): void {
    if (this.#open) this.#taken.push({ epoch, pages: this.#open });
    this.#open = null;
  }

  /** All of the epoch is on its way. */
  sent(epoch: number, digest: bigint): void {
    this.#digest = chained(this.#digest, digest);
    this.#points.push({ streamUuid: this.#streamUuid, epoch, digest: this.#digest });
  }

  acknowledged(epoch: number): void {
    const at = this.#points.findIndex((each) => each.streamUuid === this.#streamUuid && each.epoch === epoch);
    // Forgotten meanwhile.
    if (at < 0) return;
    this.#points.splice(0, at);
    while (this.#taken[0] && this.#taken[0].epoch <= epoch) {
      const { pages } = this.#taken[0];
      this.#taken.shift();
      pages.clearAll();
      this.#spare.push(pages);
    }
  }

  #forget(): void {
    this.#points = [];
    this.#taken = [];
    this.#open = this.#carried = null;
  }
}

function union(bitmaps: readonly Bitmap[]): Bitmap | null {
  const [first, ...others] = bitmaps;
  for (const other of others) first?.or(other);
  return first ?? null;
}

function samePoint(one: SharedPoint, other: SharedPoint): boolean {
  return one.streamUuid === other.streamUuid && one.epoch === other.epoch && one.digest === other.digest;
}
