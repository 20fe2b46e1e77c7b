// The state that a stream, walked to the end of a checkpoint, leaves a domain in, as places in the file: of each pfn
// the latest page, of each other record the latest of its kind, in the order in which a plain image has them.
//
//   PV_INFO, policies, STATIC_DATA_END │ P2M_FRAMES │ pages │ TSC_INFO, SHARED_INFO, HVM_*, vCPU by vCPU │ END
//   libxl behind it:  EMULATOR_XENSTORE_DATA, EMULATOR_CONTEXT of each emulator │ END
//
// Records that say something about the stream and nothing about the domain are left out: CHECKPOINT, VERIFY,
// CHECKPOINT_STATE, optional records of unknown type; what was written to disks, which an image does not have; records without content (Xen 4.6 to 4.8 wrote some).

import { StreamError } from '../error.js';
import { PAGE_SIZE, RecordType, hasPageData } from '../format.js';
import { LibxlRecordType } from '../libxl.js';
import { viewOf } from '../octets.js';
import { VCPU_RECORD_TYPES } from '../records/pv.js';
import { VCPUS_MAX } from './form.js';
import { PageIndex } from './page-index.js';
import { type StreamVisitor, type WalkedPages, type WalkedRecord, recordSpan } from './walk.js';

/** A run of octets in the file. */
export interface Span {
  readonly offset: number;
  readonly length: number;
}

/** Records of libxc before and after the pages, in order. HVM_PARAMS precedes HVM_CONTEXT, as it should. */
const BEFORE_PAGES: readonly number[] = [
  RecordType.X86_PV_INFO,
  RecordType.X86_CPUID_POLICY,
  RecordType.X86_MSR_POLICY,
  RecordType.STATIC_DATA_END,
  RecordType.X86_PV_P2M_FRAMES,
];
const AFTER_PAGES: readonly number[] = [
  RecordType.X86_TSC_INFO,
  RecordType.SHARED_INFO,
  RecordType.HVM_PARAMS,
  RecordType.HVM_CONTEXT,
  RecordType.TOOLSTACK,
];
const OF_EMULATOR: readonly number[] = [
  LibxlRecordType.EMULATOR_XENSTORE_DATA,
  LibxlRecordType.EMULATOR_CONTEXT,
];
/** Records of emulators that are kept apart; a domain has one or two. */
const EMULATORS_MAX = 1024;
const HEADER_BYTES = 8;
const ENTRY_BYTES = 8;

export class MergedState implements StreamVisitor {
  readonly pages = new PageIndex();
  /** xl's and libxl's headers, as they are in the file; nothing if the stream is bare. */
  outerHeaders: Span[] = [];
  libxcHeaders: Span = { offset: 0, length: 0 };
  readonly #records = new Map<number, Span>();
  readonly #vcpus = new Map<number, Map<number, Span>>();
  readonly #emulators = new Map<string, Span>();

  xl(_header: unknown, end: number): void {
    this.outerHeaders.push({ offset: 0, length: end });
  }

  libxl(_header: unknown, offset: number): void {
    this.outerHeaders.push({ offset, length: 16 });
  }

  libxc(_headers: unknown, offset: number): void {
    this.libxcHeaders = { offset, length: 40 };
  }

  pageEntries(entries: DataView, { dataOffset, dataPages }: WalkedPages): void {
    let offset = dataOffset + dataPages * PAGE_SIZE;
    for (let at = 0; at < entries.byteLength; at += ENTRY_BYTES) {
      const type = entries.getUint32(at + 4, true) >>> 28;
      this.pages.set(entries.getUint32(at, true), type, offset);
      if (hasPageData(type)) {
        offset += PAGE_SIZE;
      }
    }
  }

  /** @throws StreamError BAD_RECORD for more emulators' records than are kept */
  record({ layer, type, offset, length, body }: WalkedRecord): void {
    const span = { offset, length: recordSpan(length) };
    if (layer === 'libxl') {
      const kind = OF_EMULATOR.indexOf(type);
      if (kind >= 0 && length >= HEADER_BYTES) {
        const view = viewOf(body);
        const emulator = `${view.getUint32(0, true)}/${view.getUint32(4, true)}`;
        this.#emulators.set(`${kind} ${emulator}`, span);
        if (this.#emulators.size > EMULATORS_MAX) {
          throw new StreamError('BAD_RECORD', `records of more than ${EMULATORS_MAX} emulators`, {
            offset,
            type,
          });
        }
      }
    } else if (VCPU_RECORD_TYPES.includes(type)) {
      const id = length > HEADER_BYTES ? viewOf(body).getUint32(0, true) : VCPUS_MAX;
      // A vCPU that no domain has is the judge's to refuse.
      if (id < VCPUS_MAX) {
        const vcpu = this.#vcpus.get(id) ?? new Map<number, Span>();
        this.#vcpus.set(id, vcpu.set(type, span));
      }
    } else if (BEFORE_PAGES.includes(type) || AFTER_PAGES.includes(type)) {
      if (type !== RecordType.HVM_PARAMS || length > HEADER_BYTES) {
        this.#records.set(type, span);
      }
    }
  }

  recordsBeforePages(): Span[] {
    return this.#of(BEFORE_PAGES);
  }

  recordsAfterPages(): Span[] {
    const spans = this.#of(AFTER_PAGES);
    for (const [, vcpu] of [...this.#vcpus].sort(([one], [other]) => one - other)) {
      spans.push(...VCPU_RECORD_TYPES.flatMap((type) => vcpu.get(type) ?? []));
    }
    return spans;
  }

  /** libxl's records behind libxc's END. */
  emulatorRecords(): Span[] {
    return [...this.#emulators].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, span]) => span);
  }

  #of(types: readonly number[]): Span[] {
    return types.flatMap((type) => this.#records.get(type) ?? []);
  }
}
