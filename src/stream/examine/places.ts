// The places of a stream's records among each other: what must come before what, once, or at all. Nothing is kept but
// which types have come.

import type { StreamHeaders } from '../flow.js';
import { DomainType, RecordType, isOptionalRecord } from '../format.js';
import { EMULATOR_HEADER_BYTES, LibxlRecordType } from '../libxl.js';
import { isDiskRecord } from '../records/disks.js';
import { VCPU_RECORD_TYPES } from '../records/pv.js';
import { recordName } from './names.js';
import type { RuleId } from './rules.js';
import type { WalkedRecord } from './walk.js';

const STATIC_TYPES: ReadonlySet<number> = new Set([
  RecordType.X86_PV_INFO,
  RecordType.X86_CPUID_POLICY,
  RecordType.X86_MSR_POLICY,
]);
/** Memory, registers or disks: what STATIC_DATA_END must have come before. */
const STATE_TYPES: ReadonlySet<number> = new Set([
  RecordType.PAGE_DATA,
  RecordType.X86_PV_P2M_FRAMES,
  RecordType.SHARED_INFO,
  RecordType.HVM_CONTEXT,
  RecordType.HVM_PARAMS,
  RecordType.DISKS,
  RecordType.DISK_WRITES,
  ...VCPU_RECORD_TYPES,
]);
const NEEDED: Readonly<Record<DomainType, readonly number[]>> = {
  [DomainType.X86_PV]: [
    RecordType.X86_PV_INFO,
    RecordType.X86_PV_P2M_FRAMES,
    RecordType.PAGE_DATA,
    RecordType.SHARED_INFO,
    RecordType.X86_PV_VCPU_BASIC,
  ],
  [DomainType.X86_HVM]: [RecordType.PAGE_DATA, RecordType.HVM_CONTEXT],
};

/** Of the record that is looked at. */
type Find = (rule: RuleId, message: string) => void;

export class Places {
  readonly #finding: (rule: RuleId, offset: number, record: string | null, message: string) => void;
  /** libxc's part lies in libxl's. */
  layered = false;
  /** Where libxc's part ended that lacks nothing but what a device model's state may stand for. */
  #awaitsEmulator: { readonly offset: number; readonly name: string } | null = null;
  #seenEmulator = false;
  #staticDataEnded = false;
  #staticDataMissed = false;
  #checkedWhole = false;
  #sinceCheckpoint = 0;
  #checkpoints = 0;
  readonly #seen = new Set<number>();

  /** `finding`: of a record before the one that is looked at. */
  constructor(finding: (rule: RuleId, offset: number, record: string | null, message: string) => void) {
    this.#finding = finding;
  }

  /** Before a record of libxc's is looked at by itself. */
  libxc({ type }: WalkedRecord, { version, domainType }: StreamHeaders, find: Find): void {
    const policy = type === RecordType.X86_CPUID_POLICY || type === RecordType.X86_MSR_POLICY;
    if (version < 3 && (policy || type === RecordType.STATIC_DATA_END)) {
      find('static-data.version', `in a stream of version ${version}`);
    }
    if (type === RecordType.STATIC_DATA_END) {
      if (this.#staticDataEnded) {
        find('static-data.twice', 'it came before');
      }
      this.#staticDataEnded = true;
    } else if (STATIC_TYPES.has(type)) {
      if (type === RecordType.X86_PV_INFO && this.#seen.has(type)) {
        find('pv-info.twice', 'it came before');
      } else if (this.#staticDataEnded) {
        find('static-data.late', 'after STATIC_DATA_END');
      }
    } else if (version >= 3 && !this.#staticDataEnded && !this.#staticDataMissed && STATE_TYPES.has(type)) {
      this.#staticDataMissed = true;
      find('static-data.end', 'before STATIC_DATA_END');
    }
    const before = domainType === DomainType.X86_PV ? predecessor(type) : null;
    if (before !== null && !this.#seen.has(before)) {
      find('order', `before ${recordName('libxc', before)}`);
    }
    const lateParams = type === RecordType.HVM_PARAMS && !this.#seen.has(RecordType.HVM_PARAMS);
    if (lateParams && this.#seen.has(RecordType.HVM_CONTEXT)) find('hvm-params.first', 'after HVM_CONTEXT');
    if (type === RecordType.END && this.#checkpoints > 0 && this.#sinceCheckpoint > 0) {
      find('end-in-checkpoint', `${this.#sinceCheckpoint} records since checkpoint ${this.#checkpoints}`);
    }
  }

  /** After it. */
  passed(record: WalkedRecord, domainType: DomainType, find: Find): void {
    const { type } = record;
    this.#seen.add(type);
    if (type === RecordType.CHECKPOINT || type === RecordType.END) {
      this.#wholeDomain(domainType, record, find);
    }
    if (type === RecordType.CHECKPOINT) {
      this.#sinceCheckpoint = 0;
      this.#checkpoints += 1;
    } else if (!isOptionalRecord(type) || isDiskRecord(type)) {
      this.#sinceCheckpoint += 1;
    }
  }

  libxl({ type, length }: WalkedRecord, find: Find): void {
    switch (type) {
      case LibxlRecordType.EMULATOR_CONTEXT:
        this.#seenEmulator ||= length > EMULATOR_HEADER_BYTES;
        if (this.#checkpoints > 0 && this.#seen.has(RecordType.END)) {
          find('end-in-checkpoint', `a record since checkpoint ${this.#checkpoints}`);
        }
        break;
      case LibxlRecordType.CHECKPOINT_END:
      case LibxlRecordType.END:
        if (this.#awaitsEmulator !== null && !this.#seenEmulator) {
          const { offset, name } = this.#awaitsEmulator;
          const message = 'without HVM_CONTEXT, and without EMULATOR_CONTEXT behind it';
          this.#finding('missing', offset, name, message);
        }
        this.#awaitsEmulator = null;
        break;
      default:
        break;
    }
  }

  #wholeDomain(domainType: DomainType, record: WalkedRecord, find: Find): void {
    if (this.#checkedWhole) return;
    this.#checkedWhole = true;
    const missing = NEEDED[domainType].filter((type) => !this.#seen.has(type));
    if (this.layered && missing.length === 1 && missing[0] === RecordType.HVM_CONTEXT) {
      this.#awaitsEmulator = { offset: record.offset, name: recordName('libxc', record.type) };
    } else if (missing.length > 0) {
      find('missing', `without ${missing.map((type) => recordName('libxc', type)).join(', ')}`);
    }
  }
}

/** What a PV record needs before it. */
function predecessor(type: number): number | null {
  if (type === RecordType.X86_PV_P2M_FRAMES) return RecordType.X86_PV_INFO;
  if (type === RecordType.PAGE_DATA) return RecordType.X86_PV_P2M_FRAMES;
  return VCPU_RECORD_TYPES.includes(type) ? RecordType.PAGE_DATA : null;
}
