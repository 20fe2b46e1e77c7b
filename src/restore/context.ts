// The state of one restore, what libxc keeps in xc_sr_context.restore, under libxc's names.

import { monotonicMs } from '../flow/clock.js';
import type { RestoreEndpoints, RestoreOps, RestoreOpsContext, StreamType } from '../guest/ops.js';
import { NO_CPU_POLICY } from '../guest/x86.js';
import { Bitmap } from '../hypervisor/bitmap.js';
import type { CpuPolicy, DomainInfo, TargetDomain } from '../hypervisor/port.js';
import { valueAt } from '../stream/bounds.js';
import type { RecordSource, StreamHeaders } from '../stream/flow.js';
import { DomainType, MAX_BATCH_SIZE, isPopulatedPageType } from '../stream/format.js';
import { PageBatch } from '../stream/page-data.js';
import type { StreamRecord } from '../stream/record.js';
import type { ColoRestoreOptions, RestoreStepCallbacks } from './callbacks.js';
import type { DomainCopy } from './copy.js';
import { type DiskRestoreOptions, RestoredDisks } from './disks.js';
import { RestoreError } from './error.js';
import { RecordBuffer } from './record-buffer.js';

const BUFFER_DEFAULT_BYTES = 256 * 1024 * 1024;

export interface RestoreStepOptions {
  /** Created, empty, not started; it is not started here either, but by a callback in COLO. */
  readonly domain: TargetDomain;
  readonly source: RecordSource;
  readonly streamType: StreamType;
  readonly callbacks: RestoreStepCallbacks;
  /** COLO only, and needed there. */
  readonly colo?: ColoRestoreOptions;
  /** The most that the records of an open checkpoint may take. Default: 256 MiB. */
  readonly bufferLimitBytes?: number;
  /** Needed if the domain's disks are replicated, and the stream is Remus'. */
  readonly disks?: DiskRestoreOptions;
  /** Xenstore's and the console's event channels, where there are any; their frames come back in it. */
  readonly endpoints?: RestoreEndpoints;
  /** Milliseconds, monotonic. Default: the services' clock. */
  readonly clock?: () => number;
  /** Default: the table of the domain's type. */
  readonly ops?: RestoreOps;
}

export class RestoreContext implements RestoreOpsContext {
  readonly domain: TargetDomain;
  readonly domainInfo: DomainInfo;
  readonly streamType: StreamType;
  readonly callbacks: RestoreStepCallbacks;
  readonly ops: RestoreOps;
  readonly endpoints: RestoreEndpoints;
  readonly clock: () => number;
  readonly formatVersion: number;
  /** The stream is libxl's: its records end checkpoints and the stream. */
  readonly layered: boolean;
  /** libxc's CHECKPOINT, until libxl's CHECKPOINT_END ends what it began to end. */
  openCheckpoint: StreamRecord | null = null;
  readonly guestType: number;
  readonly guestPageSize: number;
  readonly p2mSize: number;
  /** null: none is replicated in this stream. */
  readonly disks: RestoredDisks | null;

  cpuPolicy: CpuPolicy = NO_CPU_POLICY;
  hvmContext: Uint8Array | null = null;
  emulatorContext: Uint8Array | null = null;
  guestState: object | null = null;

  /** Of a stream that goes on: what the domain has had is passed over, up to the end of the static data. */
  repeating = false;
  /** From the first checkpoint on, records are kept until their checkpoint is whole. */
  bufferAllRecords = false;
  readonly bufferedRecords: RecordBuffer;
  seenStaticDataEnd = false;
  verify = false;
  /** The checkpoint that is open: one more than the last that was applied. */
  epoch = 0;
  /** One that is being made of the domain, as of a checkpoint that was applied. */
  copy: DomainCopy | null = null;

  /** Of the checkpoint being applied. */
  pages = 0;
  records = 0;
  applyMs = 0;

  readonly populatedPfns = new PopulatedPfns();
  /** Decoded entries of the record at hand, and the frames and pfns of those with data. */
  readonly batch = new PageBatch();
  gfns = new Uint32Array(MAX_BATCH_SIZE);
  dataPfns = new Uint32Array(MAX_BATCH_SIZE);
  dataTypes = new Uint8Array(MAX_BATCH_SIZE);
  #newPfns = new Uint32Array(MAX_BATCH_SIZE);
  #newGfns = new Uint32Array(MAX_BATCH_SIZE);

  constructor(options: RestoreStepOptions, domainInfo: DomainInfo, ops: RestoreOps, headers: StreamHeaders) {
    this.domain = options.domain;
    this.domainInfo = domainInfo;
    this.streamType = options.streamType;
    this.callbacks = options.callbacks;
    this.ops = ops;
    this.endpoints = options.endpoints ?? noEndpoints();
    this.clock = options.clock ?? monotonicMs;
    this.formatVersion = headers.version;
    this.layered = headers.layer === 'libxl';
    this.guestType = headers.domainType;
    this.guestPageSize = 2 ** headers.pageShift;
    this.p2mSize = domainInfo.p2mSize;
    const { disks } = options.domain;
    const isReplicated = disks !== undefined && options.streamType === 'remus';
    this.disks = isReplicated && options.disks ? new RestoredDisks(disks, options.disks) : null;
    this.bufferedRecords = new RecordBuffer(options.bufferLimitBytes ?? BUFFER_DEFAULT_BYTES);
  }

  /** Records of the checkpoint that is open have come, since the last. */
  get isOpen(): boolean {
    return this.bufferedRecords.count > 0 || this.disks?.isOpen === true;
  }

  /** Records of more than 1024 pages are legal to read: the arrays follow the largest seen. */
  reserveData(pages: number): void {
    if (this.gfns.length >= pages) return;
    this.gfns = new Uint32Array(pages);
    this.dataPfns = new Uint32Array(pages);
    this.dataTypes = new Uint8Array(pages);
  }

  /** libxc's populate_pfns. A pfn that stands twice in the list is populated once. */
  async populatePfns(pfns: Uint32Array, count: number, types: Uint8Array | null): Promise<void> {
    const populated = this.populatedPfns;
    // However long the list is, no pfn in it is new twice.
    const newAtMost = Math.min(count, this.p2mSize);
    if (this.#newPfns.length < newAtMost) {
      this.#newPfns = new Uint32Array(newAtMost);
      this.#newGfns = new Uint32Array(newAtMost);
    }
    const newPfns = this.#newPfns;
    const newGfns = this.#newGfns;
    let wanted = 0;
    for (let i = 0; i < count; i++) {
      const pfn = valueAt(pfns, i);
      if ((types === null || isPopulatedPageType(valueAt(types, i))) && !populated.has(pfn)) {
        populated.set(pfn);
        newPfns[wanted++] = pfn;
      }
    }
    if (wanted === 0) return;
    await this.domain.populate(newPfns, wanted, newGfns);
    for (let i = 0; i < wanted; i++) this.ops.setGfn(this, valueAt(newPfns, i), valueAt(newGfns, i));
  }

  beforeWrite(gfns: Uint32Array, count: number): Promise<void> | undefined {
    return this.copy?.before(gfns, count);
  }

  /** Makes of what has been applied a domain that can be started. */
  async completeDomain(): Promise<void> {
    await this.ops.streamComplete(this);
    // A domain that cannot take it was not given any: admit() sees to that.
    if (this.emulatorContext !== null) await this.domain.setEmulatorContext?.(this.emulatorContext);
  }

  /** All of a checkpoint is in the domain. `isTrial`: whether it can be started from there is tried. */
  async completeCheckpoint(isTrial = false): Promise<void> {
    if (this.emulatorContext !== null) await this.domain.checkpoint?.(this.emulatorContext, isTrial);
  }

  /**
   * Another stream of the same domain goes on from here.
   * @throws RestoreError BAD_OPTIONS
   */
  goOn(headers: StreamHeaders): void {
    const same =
      headers.version === this.formatVersion &&
      (headers.layer === 'libxl') === this.layered &&
      headers.domainType === this.guestType &&
      2 ** headers.pageShift === this.guestPageSize;
    const canGoOn =
      this.bufferAllRecords && this.streamType === 'remus' && this.domainInfo.type === DomainType.X86_HVM;
    if (!same || !canGoOn) {
      const message = same ? 'no stream can go on in this domain' : 'the stream is not one of this domain';
      throw new RestoreError('BAD_OPTIONS', message, { domainType: headers.domainType, epochs: this.epoch });
    }
    this.bufferedRecords.clear();
    this.openCheckpoint = null;
    this.repeating = this.formatVersion >= 3;
  }

  /** libxc's handle_static_data_end: from the record, or where a version 2 stream implies it. */
  async handleStaticDataEnd(): Promise<void> {
    if (this.seenStaticDataEnd) {
      throw new RestoreError('UNEXPECTED_RECORD', 'the static data of the stream ends twice');
    }
    this.seenStaticDataEnd = true;
    const missing = await this.ops.staticDataComplete(this);
    await this.callbacks.staticDataDone?.(missing);
  }
}

/** What COLO needs, where it is COLO. @throws RestoreError BAD_OPTIONS */
export function requireOptions(options: RestoreStepOptions): ColoRestoreOptions | null {
  const { domain, streamType, bufferLimitBytes, disks } = options;
  const coloOptions = streamType === 'colo' ? options.colo : null;
  if (coloOptions === undefined) {
    throw new RestoreError('BAD_OPTIONS', 'a COLO restore needs the option colo', { streamType });
  }
  if (bufferLimitBytes !== undefined && !(bufferLimitBytes > 0)) {
    const message = `bufferLimitBytes must be positive, not ${bufferLimitBytes}`;
    throw new RestoreError('BAD_OPTIONS', message, { bufferLimitBytes });
  }
  if (domain.disks !== undefined && streamType === 'colo') {
    throw new RestoreError('BAD_OPTIONS', 'disks are not replicated in COLO', { streamType });
  }
  if (domain.disks !== undefined && streamType === 'remus' && disks === undefined) {
    const message = 'the restore of a domain with replicated disks needs the option disks';
    throw new RestoreError('BAD_OPTIONS', message, { streamType });
  }
  return coloOptions;
}

function noEndpoints(): RestoreEndpoints {
  const frames = { xenstoreGfn: 0, consoleGfn: 0 };
  return { ...frames, xenstoreEvtchn: 0, consoleEvtchn: 0, xenstoreDomid: 0, consoleDomid: 0 };
}

/** 32 MiB of guest. */
const INITIAL_PFNS = 8192;

/**
 * Which pfns of the domain have memory. The map grows to the next power of two when a higher pfn comes, so that a small
 * domain with a large address space costs little.
 */
export class PopulatedPfns {
  #bitmap = new Bitmap(INITIAL_PFNS);

  /** Pfns that can be held before the map grows: a power of two. */
  get capacity(): number {
    return this.#bitmap.size;
  }

  has(pfn: number): boolean {
    return this.#bitmap.has(pfn);
  }

  set(pfn: number): void {
    if (pfn >= this.#bitmap.size) this.#grow(pfn);
    this.#bitmap.set(pfn);
  }

  /** Those below `pfns`. */
  below(pfns: number): Bitmap {
    const below = new Bitmap(pfns);
    for (let pfn = this.#bitmap.next(0); pfn >= 0 && pfn < pfns; pfn = this.#bitmap.next(pfn + 1))
      below.set(pfn);
    return below;
  }

  #grow(pfn: number): void {
    const grown = new Bitmap(2 ** (Math.floor(Math.log2(pfn)) + 1));
    grown.words.set(this.#bitmap.words);
    this.#bitmap = grown;
  }
}
