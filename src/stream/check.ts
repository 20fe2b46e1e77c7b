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
import { checkHvmParams, decodeHvmContext } from './records/hvm.js';
import { CPUID_LEAF_BYTES, MSR_ENTRY_BYTES } from './records/policy.js';
import {
  type GuestWidth,
  checkPvP2mFrames,
  decodePvInfo,
  decodePvVcpu,
  decodeSharedInfo,
} from './records/pv.js';
import { badRecord, demandArrayOf, demandExactly } from './records/shape.js';
import { decodeTscInfo } from './records/tsc.js';

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
  switch (record.type) {
    case RecordType.PAGE_DATA:
      checkPageData(record);
      break;
    case RecordType.END:
    case RecordType.VERIFY:
    case RecordType.CHECKPOINT:
    case RecordType.STATIC_DATA_END:
      demandExactly(record, 0);
      break;
    case RecordType.X86_TSC_INFO:
      decodeTscInfo(record);
      break;
    case RecordType.X86_CPUID_POLICY:
      demandArrayOf(record, CPUID_LEAF_BYTES);
      break;
    case RecordType.X86_MSR_POLICY:
      demandArrayOf(record, MSR_ENTRY_BYTES);
      break;
    case RecordType.CHECKPOINT_DIRTY_PFN_LIST:
      checkDirtyPfnList(record);
      break;
    case RecordType.HVM_CONTEXT:
      demandDomainType(record, domainType, DomainType.X86_HVM);
      decodeHvmContext(record);
      break;
    case RecordType.HVM_PARAMS:
      demandDomainType(record, domainType, DomainType.X86_HVM);
      checkHvmParams(record);
      break;
    case RecordType.X86_PV_INFO:
      demandDomainType(record, domainType, DomainType.X86_PV);
      decodePvInfo(record);
      break;
    case RecordType.X86_PV_P2M_FRAMES:
      demandDomainType(record, domainType, DomainType.X86_PV);
      checkPvP2mFrames(record, guestWidth);
      break;
    case RecordType.X86_PV_VCPU_BASIC:
    case RecordType.X86_PV_VCPU_EXTENDED:
    case RecordType.X86_PV_VCPU_XSAVE:
    case RecordType.X86_PV_VCPU_MSRS:
      demandDomainType(record, domainType, DomainType.X86_PV);
      decodePvVcpu(record, guestWidth);
      break;
    case RecordType.SHARED_INFO:
      demandDomainType(record, domainType, DomainType.X86_PV);
      decodeSharedInfo(record);
      break;
    default:
      // TOOLSTACK is opaque, other types are not known here.
      break;
  }
}

function demandDomainType(record: StreamRecord, domainType: DomainType, wanted: DomainType): void {
  if (domainType !== wanted) {
    throw badRecord(record, `in the stream of an ${domainTypeName(domainType)} domain`);
  }
}
