// The form of single records: what the restorer's own check (check.ts, libxl.ts) refuses, under the name of the rule
// that it breaks, and what that check lets pass because a restorer ignores it, as it must: reserved fields.

import { StreamError } from '../error.js';
import { type DomainType, RecordType, domainTypeName } from '../format.js';
import { checkRecord, isOfGuest } from '../check.js';
import {
  CheckpointState,
  EMULATOR_HEADER_BYTES,
  LibxlRecordType,
  checkLibxlRecord,
  isPairsOfStrings,
} from '../libxl.js';
import { viewOf } from '../octets.js';
import { type GuestWidth, decodePvInfo } from '../records/pv.js';
import type { RuleId } from './rules.js';
import { type WalkedPages, type WalkedRecord, pageDataLength } from './walk.js';

type Find = (rule: RuleId, message: string) => void;

/** More vCPUs than any Xen gives a domain. */
export const VCPUS_MAX = 8192;

interface Form {
  readonly rule: RuleId;
  /** A field that must be zero: [octet, octets]. */
  readonly reserved?: readonly [rule: RuleId, at: number, bytes: number];
  /** The longest body that has no content: tolerated. */
  readonly empty?: number;
}

const VCPU: Form = { rule: 'vcpu', reserved: ['vcpu.reserved', 4, 4] };
const EMPTY: Form = { rule: 'empty' };

const forms: Readonly<Record<number, Form>> = {
  [RecordType.END]: EMPTY,
  [RecordType.VERIFY]: EMPTY,
  [RecordType.CHECKPOINT]: EMPTY,
  [RecordType.STATIC_DATA_END]: EMPTY,
  [RecordType.X86_PV_INFO]: { rule: 'pv-info', reserved: ['pv-info.reserved', 2, 6] },
  [RecordType.X86_PV_P2M_FRAMES]: { rule: 'p2m-frames' },
  [RecordType.X86_PV_VCPU_BASIC]: VCPU,
  [RecordType.X86_PV_VCPU_EXTENDED]: { ...VCPU, empty: 8 },
  [RecordType.X86_PV_VCPU_XSAVE]: { ...VCPU, empty: 8 },
  [RecordType.X86_PV_VCPU_MSRS]: { ...VCPU, empty: 8 },
  [RecordType.SHARED_INFO]: { rule: 'shared-info' },
  [RecordType.X86_TSC_INFO]: { rule: 'tsc-info', reserved: ['tsc-info.reserved', 20, 4] },
  [RecordType.HVM_CONTEXT]: { rule: 'hvm-context' },
  [RecordType.HVM_PARAMS]: { rule: 'hvm-params', reserved: ['hvm-params.reserved', 4, 4], empty: 8 },
  [RecordType.X86_CPUID_POLICY]: { rule: 'cpuid-policy' },
  [RecordType.X86_MSR_POLICY]: { rule: 'msr-policy' },
  [RecordType.DISKS]: { rule: 'disks' },
  [RecordType.DISK_WRITES]: { rule: 'disk-writes' },
  [RecordType.CHECKPOINT_DIRTY_PFN_LIST]: { rule: 'dirty-pfn-list' },
};

/** Rules of libxl's records that have a body; the others are to be empty. */
const libxlRules: Readonly<Record<number, RuleId>> = {
  [LibxlRecordType.EMULATOR_XENSTORE_DATA]: 'libxl.emulator',
  [LibxlRecordType.EMULATOR_CONTEXT]: 'libxl.emulator',
  [LibxlRecordType.CHECKPOINT_STATE]: 'libxl.checkpoint-state',
};

export interface Meaning {
  readonly width?: GuestWidth;
  /** The last pfn that the domain has. */
  readonly lastPfn?: number;
}

/** Judges a record of libxc other than PAGE_DATA; returns what those after it are judged by. */
export function libxcForm(
  record: WalkedRecord,
  domainType: DomainType,
  width: GuestWidth | null,
  find: Find,
): Meaning {
  const { type, body } = record;
  if (type === RecordType.TOOLSTACK) {
    find('toolstack', `${body.length} octets`);
  }
  const form = forms[type];
  if (form === undefined) return {};
  if (!isOfGuest(type, domainType)) {
    find('guest', `in the stream of an ${domainTypeName(domainType)} domain`);
    return {};
  }
  try {
    checkRecord(record, domainType, width);
  } catch (error) {
    find(form.rule, messageOf(error));
    return {};
  }
  if (form.reserved !== undefined) {
    const [rule, at, bytes] = form.reserved;
    if (body.subarray(at, at + bytes).some((octet) => octet !== 0)) {
      find(rule, `octets ${at} to ${at + bytes - 1} are not zero`);
    }
  }
  if (form.rule === 'vcpu' && viewOf(body).getUint32(0, true) >= VCPUS_MAX) {
    find('vcpu', `vCPU ${viewOf(body).getUint32(0, true)} of at most ${VCPUS_MAX}`);
  }
  if (body.length === form.empty) {
    find('no-content', 'nothing but its header');
  }
  if (type === RecordType.X86_PV_INFO) return { width: decodePvInfo(record).guestWidth };
  return type === RecordType.X86_PV_P2M_FRAMES ? { lastPfn: viewOf(body).getUint32(4, true) } : {};
}

export function pageDataForm(pages: WalkedPages, find: Find): void {
  const { count, length, entries, dataPages } = pages;
  if (count < 0) {
    find('page-data.length', `${length} octets are no PAGE_DATA`);
    return;
  }
  if (pages.reserved !== 0) {
    find('page-data.reserved', `0x${pages.reserved.toString(16)}`);
  }
  if (count === 0) {
    find('page-data.count', 'without a single pfn');
  } else if (entries < count) {
    find('page-data.length', `${length} octets are too few for ${count} pfns`);
  } else if (!hasUnknownTypes(pages) && length !== pageDataLength(count, dataPages)) {
    // A page type that is not known was found already, and leaves open whether its page stands there.
    const expected = pageDataLength(count, dataPages);
    find('page-data.length', `${count} pfns and ${dataPages} pages take ${expected} octets, not ${length}`);
  }
}

export function libxlForm(record: WalkedRecord, backChannel: boolean, find: Find): void {
  const { type, body } = record;
  const isXenstore = type === LibxlRecordType.EMULATOR_XENSTORE_DATA;
  try {
    // Of xenstore data its header only: what follows has a rule of its own.
    checkLibxlRecord(isXenstore ? { ...record, body: body.subarray(0, EMULATOR_HEADER_BYTES) } : record);
  } catch (error) {
    find(libxlRules[type] ?? 'libxl.empty', messageOf(error));
    return;
  }
  if (isXenstore && !isPairsOfStrings(body.subarray(EMULATOR_HEADER_BYTES))) {
    find('libxl.xenstore-data', 'that is not pairs of key and value');
  }
  if (type === LibxlRecordType.CHECKPOINT_STATE) {
    const state = viewOf(body).getUint32(0, true);
    if ((state !== CheckpointState.NEW) !== backChannel) {
      find('libxl.direction', `state ${state} ${backChannel ? 'from the secondary' : 'from the primary'}`);
    }
  }
}

function hasUnknownTypes({ types }: WalkedPages): boolean {
  return types.subarray(5, 9).some((count) => count > 0);
}

function messageOf(error: unknown): string {
  if (error instanceof StreamError) return error.message;
  throw error;
}
