// The gate of the restorer: every record is judged here before it is applied or buffered, without touching the
// domain. What passes can be applied, so a checkpoint of such records may be acknowledged before it is.

import type { Facts } from '../errors.js';
import { valueAt } from '../stream/bounds.js';
import { RecordType, isOptionalRecord, recordTypeName } from '../stream/format.js';
import { checkRecord } from '../stream/check.js';
import { StreamError } from '../stream/error.js';
import {
  EmulatorId,
  LibxlRecordType,
  checkLibxlRecord,
  decodeEmulatorContext,
  libxlRecordTypeName,
} from '../stream/libxl.js';
import { decodePageData } from '../stream/page-data.js';
import type { StreamRecord } from '../stream/record.js';
import { decodeDisks, isDiskRecord } from '../stream/records/disks.js';
import type { RestoreContext } from './context.js';
import { requireSame } from './disks.js';
import { RestoreError, type RestoreErrorCode } from './error.js';

export type Admission =
  /** To be applied, now or with its checkpoint. */
  | 'take'
  /** Nothing to apply: an optional record that nothing here knows, or libxc's word where libxl has the last one. */
  | 'skip'
  /** With it the checkpoint is whole. */
  | 'checkpoint'
  /** With it the stream is. */
  | 'end';

/** @throws StreamError, GuestError, RestoreError UNKNOWN_RECORD, UNEXPECTED_RECORD, NO_EMULATOR, DISKS_DIFFER */
export function admit(context: RestoreContext, record: StreamRecord): Admission {
  if (record.layer === 'libxl') return admitLibxl(context, record);
  if (context.repeating) return admitRepeated(context, record);
  const known = COMMON_RECORDS.has(record.type) || context.ops.recordTypes.has(record.type);
  if (!known) return admitUnknown(context, record);
  checkPlace(context, record);
  if (isDiskRecord(record.type)) return admitDisks(context, record);
  if (record.type === RecordType.PAGE_DATA) checkPageData(context, record);
  else checkRecord(record, context.domainInfo.type);
  if (record.type === RecordType.CHECKPOINT && context.layered) {
    // Whether it is a whole domain shows only when libxl has said its part.
    context.openCheckpoint = record;
    return 'skip';
  }
  context.ops.checkRecord(context, record);
  if (record.type === RecordType.CHECKPOINT) return 'checkpoint';
  if (record.type !== RecordType.END) return 'take';
  return context.layered ? 'skip' : 'end';
}

/** Where libxl's records may stand is the reader's to see to. Xenstore and COLO's control records have no place here. */
function admitLibxl(context: RestoreContext, record: StreamRecord): Admission {
  checkLibxlRecord(record);
  switch (record.type) {
    case LibxlRecordType.EMULATOR_CONTEXT:
      checkEmulatorContext(context, record);
      return 'take';
    case LibxlRecordType.CHECKPOINT_END:
      if (context.openCheckpoint === null) throw unexpected(record, 'without CHECKPOINT before it');
      context.ops.checkRecord(context, context.openCheckpoint);
      context.openCheckpoint = null;
      return 'checkpoint';
    case LibxlRecordType.END:
      // After libxc's END: the state of a device model that belongs to no checkpoint.
      if (context.isOpen) throw unexpected(record, 'in the middle of a checkpoint');
      return 'end';
    default:
      return admitUnknown(context, record);
  }
}

/** The domain has had them, and keeps them. */
const STATIC_RECORDS: ReadonlySet<number> = new Set([RecordType.X86_CPUID_POLICY, RecordType.X86_MSR_POLICY]);

function admitRepeated(context: RestoreContext, record: StreamRecord): Admission {
  if (record.type === RecordType.STATIC_DATA_END) context.repeating = false;
  else if (!STATIC_RECORDS.has(record.type))
    throw unexpected(record, 'before the end of the static data of a stream that goes on');
  checkRecord(record, context.domainInfo.type);
  return 'skip';
}

function admitDisks({ disks }: RestoreContext, record: StreamRecord): 'take' {
  if (disks === null) {
    if (record.type === RecordType.DISKS) requireSame(decodeDisks(record), []);
    throw unexpected(record, 'for a domain without replicated disks');
  }
  disks.admit(record);
  return 'take';
}

/** @throws RestoreError UNKNOWN_RECORD */
function admitUnknown(context: RestoreContext, record: StreamRecord): 'skip' {
  if (!isOptionalRecord(record.type)) {
    throw refused('UNKNOWN_RECORD', record, 'is mandatory and not known here');
  }
  context.callbacks.skippedRecord?.(record.type, record.offset);
  return 'skip';
}

function checkEmulatorContext({ domain }: RestoreContext, record: StreamRecord): void {
  const { emulatorId, index, context } = decodeEmulatorContext(record);
  if (domain.setEmulatorContext === undefined || emulatorId !== EmulatorId.QEMU_UPSTREAM || index !== 0) {
    const message = `the domain has no emulator ${emulatorId} (number ${index})`;
    throw new RestoreError('NO_EMULATOR', message, { emulatorId, index, offset: record.offset });
  }
  if (context.length === 0) {
    throw new StreamError('BAD_RECORD', 'the state of the device model is empty', factsOf(record));
  }
}

/** Those of every guest; its ops know the others. */
const COMMON_RECORDS: ReadonlySet<number> = new Set([
  ...[RecordType.END, RecordType.PAGE_DATA, RecordType.VERIFY],
  ...[RecordType.CHECKPOINT, RecordType.STATIC_DATA_END],
  ...[RecordType.DISKS, RecordType.DISK_WRITES],
]);

function checkPlace(context: RestoreContext, record: StreamRecord): void {
  const checkpointed = context.streamType !== 'plain';
  // Version 2 has no STATIC_DATA_END; it is inferred at the first memory.
  const staticDataEnded = context.seenStaticDataEnd || context.formatVersion < 3;
  switch (record.type) {
    case RecordType.STATIC_DATA_END:
      if (context.seenStaticDataEnd) throw unexpected(record, 'comes a second time');
      break;
    case RecordType.DISKS:
    case RecordType.DISK_WRITES:
      if (!staticDataEnded) throw unexpected(record, 'comes before STATIC_DATA_END');
      break;
    case RecordType.PAGE_DATA:
      if (!staticDataEnded) throw unexpected(record, 'comes before STATIC_DATA_END');
      context.disks?.requireListed();
      break;
    case RecordType.CHECKPOINT:
      if (!checkpointed) throw unexpected(record, 'in a stream without checkpoints');
      if (!staticDataEnded) throw unexpected(record, 'comes before STATIC_DATA_END');
      context.disks?.requireListed();
      break;
    case RecordType.VERIFY:
      // From then on nothing would be written, so nothing could be acknowledged.
      if (checkpointed) throw unexpected(record, 'in a stream with checkpoints');
      break;
    case RecordType.END:
      if (checkpointed && !context.bufferAllRecords) throw unexpected(record, 'before the first checkpoint');
      if (context.isOpen) throw unexpected(record, 'in the middle of a checkpoint');
      break;
    default:
      break;
  }
}

/** Its form, which decoding checks, and that the domain has the pfns. */
function checkPageData(context: RestoreContext, record: StreamRecord): void {
  const { batch, ops } = context;
  decodePageData(record, batch);
  const { pfns, count } = batch;
  for (let i = 0; i < count; i++) {
    const pfn = valueAt(pfns, i);
    if (!ops.pfnIsValid(context, pfn)) {
      const { offset, type } = record;
      const facts = { offset, type, index: i, pfn, p2mSize: context.p2mSize };
      throw new StreamError('PFN_OUT_OF_RANGE', `the domain has no pfn ${pfn}`, facts);
    }
  }
}

function unexpected(record: StreamRecord, where: string): RestoreError {
  return refused('UNEXPECTED_RECORD', record, where);
}

function refused(code: RestoreErrorCode, record: StreamRecord, what: string): RestoreError {
  const type = record.type.toString(16);
  const name = record.layer === 'libxl' ? libxlRecordTypeName(record.type) : recordTypeName(record.type);
  return new RestoreError(code, `record 0x${type} (${name}) ${what}`, factsOf(record));
}

function factsOf({ type, offset, body }: StreamRecord): Facts {
  return { type, offset, length: body.length };
}
