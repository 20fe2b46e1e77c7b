// The disks of a domain that stands by: images that checkpoints are written into, one after another.
//
//   begin('in-place') ─▶ write … ─▶ committed(p) ─┬▶ write … ─▶ committed(p + 1) ─▶ …        records: durability.ts
//   begin('staged')   ─▶ write … ─▶ committed(p) ─┘   (aside until then)
//                                        └ taken: closed for good, and the domain runs on them
//
// Of several memories that one QEMU is for (see process/seat.ts) these are the disks of all. A QEMU that is started has
// them to itself until it waits (lent).
//
// What cannot be written is an error, and stays one. If the images are as of a checkpoint all the same, the domain may
// be taken over from it; if not, it is lost.

import { rm } from 'node:fs/promises';
import { ReplaySubject, type Observable } from 'rxjs';
import type { Extents } from '../../../../disk/extents.js';
import { asError } from '../../../../errors.js';
import { withinAwake } from '../../../../flow/awake.js';
import { InOrder } from '../../../../flow/in-order.js';
import { valueAt } from '../../../../stream/bounds.js';
import { HypervisorError, failed } from '../../../port.js';
import type { DiskPoint, DiskTarget, ReplicatedDisk } from '../../../port-disks.js';
import { replicatedDisks, type DrivesConfig, type LocalDisk } from '../drives.js';
import { applyExtents } from './apply.js';
import { readAnew } from './cached.js';
import { createMissing } from './create.js';
import { Durability, syncFile } from './durability.js';
import { openImages, stagedOf, type Images } from './images.js';
import { isBlankImage, sumsIn } from './look.js';
import { TakenDisks } from './taken-disks.js';
import { TrialDisks } from './trial-disks.js';

/** When nobody wants them any more, what is left to be flushed gets this time. */
const LAST_FLUSH_MS = 2000;

/** What a test does otherwise. */
export interface StandbyDisksOptions {
  /** Default: openImages. */
  readonly open?: (disks: readonly LocalDisk[], isStaged: boolean) => Promise<Images>;
  /** How often they are flushed. */
  readonly paceMs?: number;
  /** How often what fails is tried again, when they are taken. */
  readonly againMs?: number;
}

const PACE_MS = 1000;
const AGAIN_MS = 5000;
const WARNINGS_MAX = 8;

export class StandbyDisks implements DiskTarget {
  /** Resolves when the images are not of any checkpoint, and nobody can make them so. */
  readonly lost: Promise<HypervisorError>;
  /** When they are taken: what of them is still to be done, and fails; also what was told before anybody listened. */
  readonly warnings$ = new ReplaySubject<string>(WARNINGS_MAX);
  #tellLost: (error: HypervisorError) => void = () => undefined;
  #taken: TakenDisks | null = null;
  readonly #local: readonly LocalDisk[];
  /** Made by us, just now. */
  readonly #made: readonly LocalDisk[];
  readonly #options: Required<StandbyDisksOptions>;
  readonly #order = new InOrder();
  #users = 1;
  #disks: readonly ReplicatedDisk[] = [];
  #blank: boolean[] = [];
  #images: Images | null = null;
  #durability: Durability | null = null;
  #how: 'not begun' | 'in-place' | 'staged' | 'commits' | 'taken' = 'not begun';
  /** They are as of a checkpoint, or as they were found. */
  #isWhole = true;
  #failure: HypervisorError | null = null;
  /** What is read of them is what is on their disks, or will be. */
  #isAsOnDisk = false;

  /** Null: none of the domain's disks is replicated. @throws as prepare(), and replicatedDisks() */
  static async of(config: DrivesConfig): Promise<StandbyDisks | null> {
    const local = replicatedDisks(config);
    return local.length === 0 ? null : StandbyDisks.prepare(local);
  }

  /**
   * Makes the images that are not there. They are opened by the first lent(), or openNow().
   * @throws HypervisorError BAD_CONFIGURATION, FAILED
   */
  static async prepare(
    local: readonly LocalDisk[],
    options: StandbyDisksOptions = {},
  ): Promise<StandbyDisks> {
    return new StandbyDisks(local, await createMissing(local), options);
  }

  private constructor(local: readonly LocalDisk[], made: readonly LocalDisk[], options: StandbyDisksOptions) {
    this.#local = local;
    this.#made = made;
    this.#options = { open: openImages, paceMs: PACE_MS, againMs: AGAIN_MS, ...options };
    this.lost = new Promise((resolve) => (this.#tellLost = resolve));
  }

  /** Known once they were opened. */
  get disks(): readonly ReplicatedDisk[] {
    return this.#disks;
  }

  get durable$(): Observable<DiskPoint | null> {
    return this.#kept.durable$;
  }

  isBlank(disk: number): boolean {
    return valueAt(this.#blank, disk);
  }

  /** There is one more who leaves. */
  share(): void {
    this.#users++;
  }

  /** The last one who leaves closes them. */
  async leave(): Promise<void> {
    if (--this.#users > 0) return;
    await this.#order.do(() => this.#close());
  }

  /** @throws HypervisorError BAD_CONFIGURATION, FAILED, HUNG */
  openNow(): Promise<void> {
    return this.#order.do(() => this.#reopen());
  }

  /**
   * While the work is done nobody else has the images open. (They are opened again though it fails.)
   * @throws what `work` does; as openNow()
   */
  lent<T>(work: () => Promise<T>): Promise<T> {
    return this.#order.do(async () => {
      await this.#release();
      try {
        return await work();
      } finally {
        if (this.#how !== 'taken') await this.#reopen();
      }
    });
  }

  begin(how: 'in-place' | 'staged'): Promise<void> {
    return this.#order.do(async () => {
      this.#requireNotTaken();
      // What was staged, and not committed, is dropped.
      if (this.#how === 'staged' || this.#failure !== null) {
        await this.#release();
        this.#how = 'not begun';
        this.#failure = null;
        this.#durability?.goOn();
      }
      if (this.#images === null) await this.#reopen();
      await this.#do((images) => this.#begin(how, images));
      this.#how = how;
    });
  }

  write(disk: number, extents: Extents, data: Uint8Array): Promise<void> {
    return this.#order.do(() =>
      this.#do(async (images) => {
        this.#requireBegun();
        if (extents.count === 0) return;
        if (this.#how !== 'staged') this.#isWhole = false;
        this.#blank[disk] = false;
        this.#kept.written();
        await applyExtents(images, disk, extents, data);
      }),
    );
  }

  committed(point: DiskPoint): Promise<void> {
    return this.#order.do(() =>
      this.#do(async (images) => {
        this.#requireBegun();
        if (this.#how === 'staged') {
          await this.#kept.breaks();
          this.#isWhole = false;
          await images.applyStaged();
          this.#kept.written();
        }
        this.#how = 'commits';
        this.#isWhole = true;
        this.#kept.reached(point);
      }),
    );
  }

  async sums(disk: number, first: number, count: number): Promise<Uint8Array> {
    const { bytes } = valueAt(this.#disks, disk);
    return sumsIn(disk, bytes, [first, count], (work) => this.#order.do(() => this.#do(work)));
  }

  /** For a trial of what they hold. @throws HypervisorError WRONG_STATE if that is no checkpoint, FAILED */
  forTrial(): Promise<TrialDisks> {
    return TrialDisks.make({
      ...{ local: this.#local, order: this.#order, isWhole: () => this.#isWhole },
      images: () => (this.#how === 'commits' ? this.#images : null),
      renew: () => this.#release().then(() => this.#reopen()),
    });
  }

  /**
   * From here on the images are closed. Before the domain runs; done already: nothing happens.
   * @throws HypervisorError FAILED if they are in the middle of a checkpoint
   */
  taken(): Promise<void> {
    return this.#order.do(async () => {
      if (this.#how === 'taken') return;
      if (!this.#isWhole) {
        const message = 'the disks are in the middle of a checkpoint, and not as of any';
        throw failed(message, {}, this.#failure ?? undefined);
      }
      this.#kept.end();
      await this.#shut();
      this.#how = 'taken';
      const taken = new TakenDisks(this.#local, this.#kept, this.#options);
      this.#taken = taken;
      taken.warnings$.subscribe(this.warnings$);
      await taken.begin();
    });
  }

  get #kept(): Durability {
    if (this.#durability !== null) return this.#durability;
    throw new HypervisorError('WRONG_STATE', 'the disks are not open yet');
  }

  async #begin(how: 'in-place' | 'staged', images: Images): Promise<void> {
    if (how === 'in-place') {
      this.#isWhole = false;
      await this.#kept.breaks();
      return;
    }
    // A flush of what is staged is none of what lies below.
    await images.flush();
    await images.stage();
  }

  /** @throws HypervisorError, of the present work or of what has failed before */
  async #do<T>(work: (images: Images) => Promise<T>): Promise<T> {
    this.#requireNotTaken();
    if (this.#failure !== null) throw this.#failure;
    const images = this.#images;
    if (images === null) throw new HypervisorError('WRONG_STATE', 'the disks are not open');
    try {
      return await work(images);
    } catch (error) {
      throw this.#fail(asError(error));
    }
  }

  #fail(error: Error): HypervisorError {
    const failure = error instanceof HypervisorError ? error : failed(error.message, {}, error);
    if (failure.code === 'WRONG_STATE') return failure;
    this.#failure ??= failure;
    this.#isAsOnDisk = false;
    if (!this.#isWhole) this.#tellLost(failure);
    return failure;
  }

  /** @throws HypervisorError */
  async #reopen(): Promise<void> {
    if (this.#images !== null) return;
    try {
      if (!this.#isAsOnDisk) await Promise.all(this.#local.map(({ file }) => readAnew(file)));
      this.#isAsOnDisk = true;
      const images = await this.#options.open(this.#local, this.#how === 'staged');
      this.#images = images;
      void images.lost.then((error) => this.#ended(images, error));
      if (this.#durability === null) await this.#look(images);
    } catch (error) {
      throw this.#fail(asError(error));
    }
  }

  /** What they are, once. */
  async #look(images: Images): Promise<void> {
    this.#disks = this.#local.map(({ id }, index) => ({ id, bytes: valueAt(images.bytes, index) }));
    const filed = this.#disks.map((disk, index) => ({ ...disk, file: valueAt(this.#local, index).file }));
    this.#blank = [];
    for (const [index, { bytes }] of this.#disks.entries()) {
      const isNew = this.#made.includes(valueAt(this.#local, index));
      this.#blank.push(isNew || (await isBlankImage(images, index, bytes)));
    }
    this.#durability = await Durability.open(filed, {
      flush: () => this.#flush(),
      tellFailed: (error) => this.#fail(error),
      paceMs: this.#options.paceMs,
    });
  }

  /** By the block layer, which may keep things in memory; and of what was written before that was started. */
  async #flush(): Promise<void> {
    try {
      await this.#images?.flush();
      await Promise.all(this.#local.map(({ file }) => syncFile(file)));
    } catch (error) {
      // Which of what was written is on the disk nobody knows, and nobody will see it elsewhere; see cached.ts.
      if (this.#how !== 'staged') this.#isWhole = false;
      throw this.#fail(asError(error));
    }
  }

  /** Nobody has them open. */
  async #release(): Promise<void> {
    await this.#durability?.settled();
    await this.#shut();
  }

  async #shut(): Promise<void> {
    const images = this.#images;
    this.#images = null;
    try {
      await images?.close();
    } catch (error) {
      this.#isWhole = false;
      throw this.#fail(asError(error));
    }
  }

  /** They were not closed by us. */
  #ended(images: Images, error: HypervisorError): void {
    if (this.#images !== images) return;
    this.#images = null;
    // What a format keeps in memory is lost. (And what is written now fails by itself.)
    if (this.#local.some(({ format }) => format !== 'raw')) this.#isWhole = false;
    this.#fail(error);
  }

  async #close(): Promise<void> {
    if (this.#how !== 'taken' && this.#images !== null && this.#failure === null) {
      const late = () => new HypervisorError('HUNG', 'the disks are slow');
      await withinAwake(LAST_FLUSH_MS, this.#kept.now(), late).catch(() => undefined);
    }
    await this.#shut().catch(() => undefined); // nobody wants them
    this.#taken?.end();
    if (this.#how === 'taken') return;
    this.#durability?.close();
    await Promise.all(this.#local.map(({ file }) => rm(stagedOf(file), { force: true })));
  }

  #requireNotTaken(): void {
    if (this.#how !== 'taken') return;
    throw new HypervisorError('WRONG_STATE', 'the domain runs on these disks');
  }

  #requireBegun(): void {
    if (this.#how !== 'not begun') return;
    throw new HypervisorError('WRONG_STATE', 'no checkpoint was begun');
  }
}
