// What is in a stream, counted while it is walked: layers, guest, records, pages by type, checkpoints. Records are
// handed on as they come; what is kept does not grow with the stream, but for a bit a page of the guest.

import { valueAt } from '../bounds.js';
import type { StreamHeaders } from '../flow.js';
import { DomainType, PAGE_SIZE, RecordType, domainTypeName, isPopulatedPageType } from '../format.js';
import type { Layer } from '../record-reader.js';
import type { LibxlHeader } from '../libxl.js';
import { viewOf } from '../octets.js';
import { type GuestWidth, decodePvInfo } from '../records/pv.js';
import { StreamError } from '../error.js';
import { type XlHeader, xlConfigText } from '../xl.js';
import { DiskCounts, type SurveyedDisk, type SurveyedWrites } from './disks.js';
import { VCPUS_MAX } from './form.js';
import { pageTypeName, recordName } from './names.js';
import { PfnSet } from './pfn-set.js';
import { type Finding, RULES, type RuleId } from './rules.js';
import {
  type Checkpoint,
  type StreamVisitor,
  type WalkEnd,
  type WalkedPages,
  type WalkedRecord,
  type WrapperKind,
  type WrapperPart,
  recordSpan,
} from './walk.js';

/** A record, or a header where type is null, or a part of what wraps the stream. */
export interface SurveyedRecord {
  readonly layer: Layer | WrapperKind;
  readonly name: string;
  readonly type: number | null;
  readonly offset: number;
  /** In the stream, header and padding included. */
  readonly length: number;
  /** Of PAGE_DATA. */
  readonly pages?: {
    readonly count: number;
    readonly first: number;
    /** By name of the page type; what does not occur is left out. */
    readonly types: Readonly<Record<string, number>>;
  };
  /** Of DISK_WRITES. */
  readonly writes?: SurveyedWrites;
  /** Number of the checkpoint that CHECKPOINT ends. */
  readonly checkpoint?: number;
}

export interface SurveyedCheckpoint extends Checkpoint {
  readonly offset: number;
  readonly records: number;
  /** Pages of data. */
  readonly pages: number;
}

export interface Survey {
  readonly bytes: number;
  /** Whose file the stream lies in. */
  readonly wrapper: WrapperKind | null;
  readonly layers: readonly Layer[];
  readonly backChannel: boolean;
  /** xl's header. */
  readonly xl: { readonly configuration: unknown; readonly name: string | null } | null;
  readonly libxl: { readonly version: number; readonly legacy: boolean } | null;
  readonly libxc: { readonly version: number } | null;
  readonly guest: string | null;
  /** Of a PV guest, in octets. */
  readonly width: GuestWidth | null;
  readonly levels: 3 | 4 | null;
  readonly xen: string | null;
  readonly vcpus: number | null;
  readonly memory: {
    /** Pages that the guest has at the end; null if they are too scattered to be counted. */
    readonly pages: number | null;
    readonly bytes: number | null;
    readonly highestPfn: number | null;
  };
  /** Entries and pages of all PAGE_DATA records. */
  readonly pageData: {
    readonly entries: number;
    readonly pages: number;
    readonly types: Readonly<Record<string, number>>;
  };
  /** Those that are replicated. */
  readonly disks: readonly SurveyedDisk[];
  /** How many of each record: "libxc PAGE_DATA". */
  readonly recordCounts: Readonly<Record<string, number>>;
  readonly checkpoints: number;
  readonly lastCheckpoint: Checkpoint | null;
  /** ended: with END. open: without, at a boundary. cut: inside `where`. stopped: see findings. */
  readonly end: WalkEnd['kind'];
  readonly where: string | null;
  readonly trailingBytes: number;
  /** What kept the survey from going on. */
  readonly findings: readonly Finding[];
}

export interface SurveyListener {
  record?(record: SurveyedRecord): void;
  checkpoint?(checkpoint: SurveyedCheckpoint): void;
}

/** Findings that are kept. */
const FINDINGS_MAX = 100;
/** Record types that are counted apart: a stream may have as many unknown ones as it likes. */
const TYPES_MAX = 256;
/** Type of a vCPU's registers in Xen's HVM context. */
const HVM_SAVE_CPU = 2;
const HVM_SAVE_HEADER = 1;
const HVM_DESCRIPTOR_BYTES = 8;

export class Surveyor implements StreamVisitor {
  readonly #listener: SurveyListener;
  readonly #populated = new PfnSet();
  readonly #types = new Float64Array(16);
  readonly #counts = new Map<string, number>();
  readonly #vcpus = new Set<number>();
  readonly #findings: Finding[] = [];
  readonly #disks = new DiskCounts();
  #xl: Survey['xl'] = null;
  #libxl: Survey['libxl'] = null;
  #headers: StreamHeaders | null = null;
  #width: GuestWidth | null = null;
  #levels: 3 | 4 | null = null;
  #hvmVcpus: number | null = null;
  #highestPfn = -1;
  #entries = 0;
  #pages = 0;
  #checkpoint = { offset: 0, records: 0, pages: 0 };
  #checkpoints = 0;

  constructor(listener: SurveyListener = {}) {
    this.#listener = listener;
  }

  finding(rule: RuleId, offset: number, record: string | null, message: string): void {
    if (this.#findings.length < FINDINGS_MAX) {
      this.#findings.push({ rule, severity: RULES[rule].severity, offset, record, message });
    }
  }

  xl(header: XlHeader, end: number): void {
    const text = xlConfigText(header);
    const configuration = parsed(text) ?? text;
    this.#xl = { configuration, name: nameOf(configuration) };
    this.#header('xl', 'header', 0, end);
  }

  libxl(header: LibxlHeader, offset: number): void {
    this.#libxl = { version: 2, legacy: header.legacy };
    this.#header('libxl', 'header', offset, 16);
  }

  libxc(headers: StreamHeaders, offset: number): void {
    this.#headers = headers;
    this.#header('libxc', 'image header', offset, 24);
    this.#header('libxc', 'domain header', offset + 24, 16);
  }

  wrapper({ kind, name, offset, length }: WrapperPart): void {
    this.#header(kind, name, offset, length);
  }

  pageEntries(entries: DataView): void {
    for (let at = 0; at < entries.byteLength; at += 8) {
      const pfn = entries.getUint32(at, true);
      if (isPopulatedPageType(entries.getUint32(at + 4, true) >>> 28)) {
        this.#populated.add(pfn);
        if (pfn > this.#highestPfn) {
          this.#highestPfn = pfn;
        }
      } else {
        this.#populated.delete(pfn);
      }
    }
  }

  record(record: WalkedRecord): void {
    const { layer, type, offset, length, pages } = record;
    const name = recordName(layer, type);
    const key = `${layer} ${name}`;
    const counted = this.#counts.has(key) || this.#counts.size < TYPES_MAX ? key : 'others';
    this.#counts.set(counted, (this.#counts.get(counted) ?? 0) + 1);
    this.#checkpoint.records += 1;
    let writes: SurveyedWrites | null = null;
    if (pages !== null) {
      this.#countPages(pages);
    } else if (layer === 'libxc') {
      this.#meaning(record);
      writes = this.#disks.record(record);
    }
    const isCheckpoint = layer === 'libxc' && type === RecordType.CHECKPOINT;
    this.#listener.record?.({
      layer,
      name,
      type,
      offset,
      length: recordSpan(length),
      ...(pages === null
        ? {}
        : { pages: { count: pages.entries, first: pages.firstPfn, types: namedTypes(pages.types) } }),
      ...(writes === null ? {} : { writes }),
      ...(isCheckpoint ? { checkpoint: this.#checkpoints + 1 } : {}),
    });
  }

  checkpoint(number: number, end: number): void {
    this.#checkpoints = number;
    this.#listener.checkpoint?.({ number, end, ...this.#checkpoint });
    this.#checkpoint = { offset: end, records: 0, pages: 0 };
  }

  result(end: WalkEnd, streamLength: number): Survey {
    const headers = this.#headers;
    const pages = this.#populated.size;
    const all: readonly Layer[] = ['xl', 'libxl', 'libxc'];
    return {
      bytes: streamLength,
      wrapper: end.wrapper,
      layers: end.outermost === null ? [] : all.slice(all.indexOf(end.outermost)),
      backChannel: end.backChannel,
      xl: this.#xl,
      libxl: this.#libxl,
      libxc: headers === null ? null : { version: headers.version },
      guest: headers === null ? null : domainTypeName(headers.domainType),
      width: this.#width,
      levels: this.#levels,
      xen: headers === null ? null : `${headers.xenMajor}.${headers.xenMinor}`,
      vcpus: headers?.domainType === DomainType.X86_PV ? this.#vcpus.size : this.#hvmVcpus,
      memory: {
        pages,
        bytes: pages === null ? null : pages * PAGE_SIZE,
        highestPfn: this.#highestPfn < 0 ? null : this.#highestPfn,
      },
      pageData: { entries: this.#entries, pages: this.#pages, types: namedTypes(this.#types) },
      disks: this.#disks.disks,
      recordCounts: Object.fromEntries(this.#counts),
      checkpoints: end.checkpoint?.number ?? 0,
      lastCheckpoint: end.checkpoint,
      end: end.kind,
      where: end.where,
      trailingBytes: end.kind === 'ended' ? streamLength - end.offset : 0,
      findings: this.#findings,
    };
  }

  #header(layer: SurveyedRecord['layer'], name: string, offset: number, length: number): void {
    this.#listener.record?.({ layer, name, type: null, offset, length });
  }

  #countPages(pages: WalkedPages): void {
    this.#entries += pages.entries;
    this.#pages += pages.dataPages;
    this.#checkpoint.pages += pages.dataPages;
    for (let type = 0; type < 16; type += 1) {
      this.#types[type] = valueAt(this.#types, type) + valueAt(pages.types, type);
    }
  }

  #meaning(record: WalkedRecord): void {
    const { body, type } = record;
    if (type === RecordType.X86_PV_VCPU_BASIC && body.length >= 8 && this.#vcpus.size < VCPUS_MAX) {
      this.#vcpus.add(viewOf(body).getUint32(0, true));
    } else if (type === RecordType.HVM_CONTEXT) {
      this.#hvmVcpus = hvmVcpus(body);
    } else if (type === RecordType.X86_PV_INFO) {
      try {
        ({ guestWidth: this.#width, levels: this.#levels } = decodePvInfo(record));
      } catch (error) {
        // What is wrong with it is verify's business; here it is not known.
        if (!(error instanceof StreamError)) throw error;
      }
    }
  }
}

/**
 * The vCPUs in Xen's HVM context, a list of (typecode u16, instance u16, length u32, body); null for a context that
 * is not Xen's.
 */
function hvmVcpus(context: Uint8Array): number | null {
  const view = viewOf(context);
  let count = 0;
  for (let at = 0; at + HVM_DESCRIPTOR_BYTES <= context.length;) {
    const type = view.getUint16(at, true);
    if (at === 0 && type !== HVM_SAVE_HEADER) return null;
    count += type === HVM_SAVE_CPU ? 1 : 0;
    at += HVM_DESCRIPTOR_BYTES + view.getUint32(at + 4, true);
    if (at > context.length) return null;
  }
  return count;
}

function namedTypes(types: Uint32Array | Float64Array): Record<string, number> {
  const named: Record<string, number> = {};
  types.forEach((count, type) => {
    if (count > 0) {
      named[pageTypeName(type)] = count;
    }
  });
  return named;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function nameOf(configuration: unknown): string | null {
  const { name } = (configuration as { c_info?: { name?: unknown } | null } | null)?.c_info ?? {};
  return typeof name === 'string' ? name : null;
}
