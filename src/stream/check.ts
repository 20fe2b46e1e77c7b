// The structural check of a record: whether a restorer would accept its form, found out without touching the domain.
// A secondary checks every record of a checkpoint with it before it acknowledges the checkpoint, so that what it
// acknowledged can be applied.
//
// What depends on more than one record (STATIC_DATA_END first, a second X86_PV_INFO, a vcpu_id or pfn that the domain
// does not have) is not structure and is left to the restorer. So are records of a type that the specification does
// not name: whether they may be skipped is the optional-record rule's business.

import { DomainType, RecordType, domainTypeName } from './format.js';
import { checkPageData } from './page-data.js';
import type { StreamRecord } from './record.js';
import { checkDirtyPfnList } from './records/dirty-pfns.js';
import { checkDiskWrites, decodeDisks } from './records/disks.js';
import { checkHvmParams, decodeHvmContext } from './records/hvm.js';
import {
  type GuestWidth,
  checkPvP2mFrames,
  decodePvInfo,
  decodePvVcpu,
  decodeSharedInfo,
} from './records/pv.js';
import { badRecord, demandArrayOf, demandExactly } from './records/shape.js';
import { decodeTscInfo } from './records/tsc.js';

/** X86_CPUID_POLICY is an array of xen_cpuid_leaf_t: leaf u32 | subleaf u32 | a u32 | b u32 | c u32 | d u32 */
export const CPUID_LEAF_BYTES = 24;
/** X86_MSR_POLICY is an array of xen_msr_entry_t: idx u32 | flags u32 | val u64 */
export const MSR_ENTRY_BYTES = 16;

interface Form {
  /** The type of domain whose record it is; left out: of both. */
  readonly guest?: DomainType;
  /** @throws StreamError */
  readonly check: (record: StreamRecord, guestWidth: GuestWidth | null) => unknown;
}

const PV = DomainType.X86_PV;
const HVM = DomainType.X86_HVM;
const EMPTY: Form = { check: (record) => demandExactly(record, 0) };
const VCPU: Form = { guest: PV, check: decodePvVcpu };

/** TOOLSTACK is opaque, other types are not known here. */
const forms: Readonly<Record<number, Form>> = {
  [RecordType.PAGE_DATA]: { check: checkPageData },
  [RecordType.END]: EMPTY,
  [RecordType.VERIFY]: EMPTY,
  [RecordType.CHECKPOINT]: EMPTY,
  [RecordType.STATIC_DATA_END]: EMPTY,
  [RecordType.X86_TSC_INFO]: { check: decodeTscInfo },
  [RecordType.X86_CPUID_POLICY]: { check: (record) => demandArrayOf(record, CPUID_LEAF_BYTES) },
  [RecordType.X86_MSR_POLICY]: { check: (record) => demandArrayOf(record, MSR_ENTRY_BYTES) },
  [RecordType.CHECKPOINT_DIRTY_PFN_LIST]: { check: checkDirtyPfnList },
  [RecordType.HVM_CONTEXT]: { guest: HVM, check: decodeHvmContext },
  [RecordType.HVM_PARAMS]: { guest: HVM, check: checkHvmParams },
  [RecordType.X86_PV_INFO]: { guest: PV, check: decodePvInfo },
  [RecordType.X86_PV_P2M_FRAMES]: { guest: PV, check: checkPvP2mFrames },
  [RecordType.X86_PV_VCPU_BASIC]: VCPU,
  [RecordType.X86_PV_VCPU_EXTENDED]: VCPU,
  [RecordType.X86_PV_VCPU_XSAVE]: VCPU,
  [RecordType.X86_PV_VCPU_MSRS]: VCPU,
  [RecordType.SHARED_INFO]: { guest: PV, check: decodeSharedInfo },
  [RecordType.DISKS]: { check: decodeDisks },
  [RecordType.DISK_WRITES]: { check: checkDiskWrites },
};

/**
 * Checks a record's form.
 * @param guestWidth of a PV domain, as its X86_PV_INFO record says; null or left out: not known, either will do
 * @throws StreamError BAD_RECORD, UNKNOWN_PAGE_TYPE, PFN_OUT_OF_RANGE
 */
export function checkRecord(
  record: StreamRecord,
  domainType: DomainType,
  guestWidth: GuestWidth | null = null,
): void {
  if (!isOfGuest(record.type, domainType)) {
    throw badRecord(record, `in the stream of an ${domainTypeName(domainType)} domain`);
  }
  forms[record.type]?.check(record, guestWidth);
}

/** False for a record that only the other type of guest has. */
export function isOfGuest(type: number, domainType: DomainType): boolean {
  const guest = forms[type]?.guest;
  return guest === undefined || guest === domainType;
}
