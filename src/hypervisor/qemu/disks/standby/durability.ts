// Which point of its images survives a crash of this host: they are flushed about once a second, in nobody's way, and then
// their records say the point that was the last one before the flush began.
//
//   committed(5) ── flush ───────── record 5 ─▶ durable$      what is written meanwhile is of later points: the primary
//                     └ committed(6)                          knows of all that it has written since 5
//   breaks ── no record ─▶ only then is anything written that is not of a point
//
// Records of several disks are written one after another, after all of them were flushed: the oldest is what all have.

import { open } from 'node:fs/promises';
import { BehaviorSubject } from 'rxjs';
import { asError, codeOf } from '../../../../errors.js';
import { withinAwake } from '../../../../flow/awake.js';
import { InOrder } from '../../../../flow/in-order.js';
import { HypervisorError, failed } from '../../../port.js';
import type { DiskPoint, ReplicatedDisk } from '../../../port-disks.js';
import { forgetRecord, readRecord, writeRecord } from './record.js';

const SYNC_MS = 300_000;

/** A disk, and the file that it is in. */
export interface FiledDisk extends ReplicatedDisk {
  readonly file: string;
}

export interface DurabilityOptions {
  /** Flushes all images. */
  readonly flush: () => Promise<void>;
  /** Is told why one of them, or a record, could not be made durable. */
  readonly tellFailed: (error: Error) => void;
  readonly paceMs: number;
}

export class Durability {
  readonly durable$: BehaviorSubject<DiskPoint | null>;
  readonly #disks: readonly FiledDisk[];
  readonly #options: DurabilityOptions;
  /** Of the records. */
  readonly #order = new InOrder();
  /** What the images hold, and perhaps more; null: of no point. */
  #point: DiskPoint | null;
  /** How often they came to be of no point. */
  #breaks = 0;
  /** There may be a record that says a point. */
  #claims: boolean;
  /** Written to since the last flush began. */
  #isDirty = false;
  #timer: NodeJS.Timeout | null = null;
  #round: Promise<void> | null = null;
  #ended = false;

  /** @throws HypervisorError FAILED, HUNG if the records cannot be read */
  static async open(disks: readonly FiledDisk[], options: DurabilityOptions): Promise<Durability> {
    const points = await Promise.all(disks.map((disk) => readRecord(disk.file, disk)));
    return new Durability(disks, points, options);
  }

  private constructor(
    disks: readonly FiledDisk[],
    points: readonly (DiskPoint | null)[],
    options: DurabilityOptions,
  ) {
    const point = commonPoint(points);
    this.#disks = disks;
    this.#point = point;
    this.#claims = points.some((each) => each !== null);
    this.#options = options;
    this.durable$ = new BehaviorSubject(point);
  }

  /** Something was written. */
  written(): void {
    this.#isDirty = true;
    this.#arm();
  }

  /** All that was written is of this point. */
  reached(point: DiskPoint): void {
    this.#point = point;
    this.#arm();
  }

  /** What is written from now on is of no point, until the next is reached. @throws HypervisorError FAILED, HUNG */
  async breaks(): Promise<void> {
    this.#point = null;
    this.#breaks++;
    await this.#order.do(async () => {
      if (!this.#claims) return;
      this.durable$.next(null);
      for (const { file } of this.#disks) await forgetRecord(file);
      this.#claims = false;
    });
  }

  /** What was written is made durable now, and the point. Does not fail; see `failed`. */
  async now(): Promise<void> {
    await this.#round;
    await this.#sync();
  }

  /** Resolves when no flush is under way. */
  async settled(): Promise<void> {
    await this.#round;
  }

  /** Something could not be made durable, and that is over. */
  goOn(): void {
    this.#ended = false;
  }

  /** Nothing more is made durable. */
  end(): void {
    this.#ended = true;
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Nobody is told anything more. */
  close(): void {
    this.end();
    this.durable$.complete();
  }

  #arm(): void {
    if (this.#ended || this.#round !== null) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      void this.#sync();
    }, this.#options.paceMs);
  }

  #sync(): Promise<void> {
    this.#round ??= this.#tried().finally(() => {
      this.#round = null;
      if (this.#isDirty || this.#isBehind) this.#arm();
    });
    return this.#round;
  }

  get #isBehind(): boolean {
    const durable = this.durable$.value;
    const point = this.#point;
    if (point === null) return false;
    return durable?.epoch !== point.epoch || durable.streamUuid !== point.streamUuid;
  }

  async #tried(): Promise<void> {
    const point = this.#point;
    const breaks = this.#breaks;
    if (!this.#isDirty && !this.#isBehind) return;
    this.#isDirty = false;
    try {
      await this.#options.flush();
      if (point !== null) await this.#order.do(() => this.#record(point, breaks));
    } catch (error) {
      this.end();
      this.#options.tellFailed(asError(error));
    }
  }

  async #record(point: DiskPoint, breaks: number): Promise<void> {
    for (const disk of this.#disks) {
      if (breaks !== this.#breaks) return; // it is of no point any more
      this.#claims = true;
      await writeRecord(disk.file, disk, point);
    }
    if (breaks === this.#breaks) this.durable$.next(point);
  }
}

/**
 * What all of them hold. An image that is ahead of another one in the same stream holds that one's point, too, and what
 * was written since.
 */
export function commonPoint(points: readonly (DiskPoint | null)[]): DiskPoint | null {
  let common: DiskPoint | null = null;
  for (const point of points) {
    if (point === null || (common !== null && common.streamUuid !== point.streamUuid)) return null;
    if (common === null || point.epoch < common.epoch) common = point;
  }
  return common;
}

/** Whatever was written to the file by whatever process. @throws HypervisorError FAILED, HUNG */
export async function syncFile(file: string): Promise<void> {
  const late = () => new HypervisorError('HUNG', `the image ${file} is not made durable in time`, { file });
  const sync = async (): Promise<void> => {
    const handle = await open(file, 'r');
    await handle.datasync().finally(() => handle.close());
  };
  try {
    await withinAwake(SYNC_MS, sync(), late);
  } catch (error) {
    if (error instanceof HypervisorError) throw error;
    const code = codeOf(error);
    throw failed(`the image ${file} cannot be made durable: ${code}`, { file, code }, error);
  }
}
