// The ops tables: what the common save and restore algorithms leave to the type of guest. These are libxc's
// xc_sr_save_ops (nine functions) and xc_sr_restore_ops (ten); each guest type implements every one.
//
// The contract stands here, not in save/ and restore/, because the tables stand here and imports point downwards:
// save/ and restore/ know the tables, the tables know only the part of a context that an op may touch.
//
// Differences to libxc: functions that talk to the hypervisor return promises, errors are thrown (so the returns 0
// and -1 are gone, the sentinels stay as values), and a page is transformed in place, in the saver's own slab.

import type { CpuPolicy, DomainInfo, SourceDomain, TargetDomain } from '../hypervisor/port.js';
import type { StreamRecord } from '../stream/record.js';

export type StreamType = 'plain' | 'remus' | 'colo';

/** The part of the save context that ops use. */
export interface SaveOpsContext {
  readonly domain: SourceDomain;
  readonly domainInfo: DomainInfo;
  readonly streamType: StreamType;
  /** True until the first suspend of a live save: pages may change under us. */
  readonly live: boolean;
  /** True while the domain is suspended for the epoch at hand: what cannot be made generic now never can. */
  readonly suspended: boolean;
  /** Size of the p2m in pages; set by `setup`. */
  p2mSize: number;
  /** What the type of guest keeps from `setup` to `cleanup` (libxc's x86.pv), known to its own ops only; else null. */
  guestState: object | null;
  /** Turns on (or off) the device model's own dirty tracking; libxc's switch_qemu_logdirty callback. */
  switchDeviceLogDirty(enable: boolean): Promise<void>;
  /** libxc's write_split_record: appends a record whose body is the parts, one after another, and pads it. */
  writeRecord(type: number, ...parts: readonly Uint8Array[]): Promise<void>;
}

export type NormaliseResult = 'done' | 'again';

export interface SaveOps {
  /** INVALID_FRAME for a pfn that has no frame now (ballooned out). */
  pfnToGfn(context: SaveOpsContext, pfn: number): number;
  /**
   * Rewrites a copied page from what is specific to this host to what is generic for the stream, in place: octets
   * offset … offset + PAGE_SIZE - 1 of `slab`. 'again' (libxc's EAGAIN): not possible now, send it later.
   */
  normalisePage(context: SaveOpsContext, type: number, slab: Uint8Array, offset: number): NormaliseResult;
  setup(context: SaveOpsContext): Promise<void>;
  staticData(context: SaveOpsContext): Promise<void>;
  startOfStream(context: SaveOpsContext): Promise<void>;
  startOfCheckpoint(context: SaveOpsContext): Promise<void>;
  endOfCheckpoint(context: SaveOpsContext): Promise<void>;
  checkVmState(context: SaveOpsContext): Promise<void>;
  /** Called exactly once, after success and after failure alike. */
  cleanup(context: SaveOpsContext): Promise<void>;
}

/** Results of processing a record; failures are thrown. libxc: 0, RECORD_NOT_PROCESSED, BROKEN_CHANNEL. */
export type RecordResult = 'processed' | 'RECORD_NOT_PROCESSED' | 'BROKEN_CHANNEL';

/** What the stream did not bring and a higher level must supply (libxc's XGR_SDD_MISSING_*). */
export interface MissingStaticData {
  readonly cpuid: boolean;
  readonly msr: boolean;
}

/** Xenstore and console: event channel and domain in, frame out (from HVM_PARAMS or start_info). */
export interface RestoreEndpoints {
  xenstoreGfn: number;
  consoleGfn: number;
  readonly xenstoreEvtchn: number;
  readonly consoleEvtchn: number;
  readonly xenstoreDomid: number;
  readonly consoleDomid: number;
}

/** The part of the restore context that ops use. */
export interface RestoreOpsContext {
  readonly domain: TargetDomain;
  readonly domainInfo: DomainInfo;
  readonly streamType: StreamType;
  /** From the image header: 2 or 3. */
  readonly formatVersion: number;
  /** From the domain header. */
  readonly guestType: number;
  readonly guestPageSize: number;
  /** Size of the target's p2m in pages. */
  readonly p2mSize: number;
  readonly seenStaticDataEnd: boolean;
  readonly endpoints: RestoreEndpoints;
  /** CPU policy blobs that have arrived (libxc's x86.restore.cpuid and .msr). */
  cpuPolicy: CpuPolicy;
  /** x86 HVM: the context blob that has arrived last, or null. */
  hvmContext: Uint8Array | null;
  /**
   * The device model's state that has arrived last, or null. Such a domain may do without an HVM context. It is set
   * after streamComplete, by whoever calls that.
   */
  readonly emulatorContext: Uint8Array | null;
  /** What the type of guest keeps from `setup` to `cleanup` (libxc's x86.pv and x86.pv.restore); else null. */
  guestState: object | null;
  /**
   * Gives memory to those of the pfns that have none yet; `types` null: all of them. Here because page tables that
   * arrive before the frames they point to make the ops populate frames (libxc's populate_pfns).
   */
  populatePfns(pfns: Uint32Array, count: number, types: Uint8Array | null): Promise<void>;
  /** The first `count` gfns are about to be written: resolves when they may be; undefined: at once. Page data has it done. */
  beforeWrite(gfns: Uint32Array, count: number): Promise<void> | undefined;
  /** libxc's handle_static_data_end, for ops that infer it (version 2 streams). */
  handleStaticDataEnd(): Promise<void>;
}

export interface RestoreOps {
  /** The record types that processRecord handles: a buffered checkpoint with another is refused before it is acknowledged. */
  readonly recordTypes: ReadonlySet<number>;
  pfnToGfn(context: RestoreOpsContext, pfn: number): number;
  pfnIsValid(context: RestoreOpsContext, pfn: number): boolean;
  setGfn(context: RestoreOpsContext, pfn: number, gfn: number): void;
  setPageType(context: RestoreOpsContext, pfn: number, type: number): void;
  /**
   * Rewrites a page in place, from what is generic in the stream to what is specific to this host. A promise where
   * frames had to be populated first (a page table that came before what it points to), else done at once.
   */
  localisePage(
    context: RestoreOpsContext,
    type: number,
    page: Uint8Array,
    offset: number,
  ): Promise<void> | undefined;
  setup(context: RestoreOpsContext): Promise<void>;
  /**
   * Refuses, by throwing, a well-formed record that this domain could not take, without touching the domain: what
   * passes here is acknowledged. A CHECKPOINT passes if what has come before it makes a domain that can run.
   */
  checkRecord(context: RestoreOpsContext, record: StreamRecord): void;
  processRecord(context: RestoreOpsContext, record: StreamRecord): Promise<RecordResult>;
  staticDataComplete(context: RestoreOpsContext): Promise<MissingStaticData>;
  streamComplete(context: RestoreOpsContext): Promise<void>;
  /** Called exactly once, after success and after failure alike. */
  cleanup(context: RestoreOpsContext): Promise<void>;
}
