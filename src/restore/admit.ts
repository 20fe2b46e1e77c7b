// The gate of the restorer: every record is judged here before it is applied or buffered, without touching the
// domain. What passes can be applied, so a checkpoint of such records may be acknowledged before it is.

import { RecordType, isOptionalRecord, recordTypeName } from '../stream/format.js';
import { checkRecord } from '../stream/check.js';
import { StreamError } from '../stream/error.js';
import { decodePageData } from '../stream/page-data.js';
import type { StreamRecord } from '../stream/record.js';
import type { RestoreContext } from './context.js';
import { RestoreError, type RestoreErrorCode } from './error.js';

/**
 * 'skip': an optional record that nothing here knows.
 * @throws StreamError, GuestError, RestoreError UNKNOWN_RECORD, UNEXPECTED_RECORD
 */
export function admit(context: RestoreContext, record: StreamRecord): 'take' | 'skip' {
  if (!isKnown(context, record.type)) {
    if (!isOptionalRecord(record.type)) {
      throw refused('UNKNOWN_RECORD', record, 'is mandatory and not known here');
    }
    context.callbacks.skippedRecord?.(record.type, record.offset);
    return 'skip';
  }
  checkPlace(context, record);
  if (record.type === RecordType.PAGE_DATA) checkPageData(context, record);
  else checkRecord(record, context.domainInfo.type);
  context.ops.checkRecord(context, record);
  return 'take';
}

function isKnown(context: RestoreContext, type: number): boolean {
  switch (type) {
    case RecordType.END:
    case RecordType.PAGE_DATA:
    case RecordType.VERIFY:
    case RecordType.CHECKPOINT:
    case RecordType.STATIC_DATA_END:
      return true;
    default:
      return context.ops.recordTypes.has(type);
  }
}

function checkPlace(context: RestoreContext, record: StreamRecord): void {
  const checkpointed = context.streamType !== 'plain';
  // Version 2 has no STATIC_DATA_END; it is inferred at the first memory.
  const staticDataEnded = context.seenStaticDataEnd || context.formatVersion < 3;
  switch (record.type) {
    case RecordType.STATIC_DATA_END:
      if (context.seenStaticDataEnd) throw unexpected(record, 'comes a second time');
      break;
    case RecordType.PAGE_DATA:
      if (!staticDataEnded) throw unexpected(record, 'comes before STATIC_DATA_END');
      break;
    case RecordType.CHECKPOINT:
      if (!checkpointed) throw unexpected(record, 'in a stream without checkpoints');
      if (!staticDataEnded) throw unexpected(record, 'comes before STATIC_DATA_END');
      break;
    case RecordType.VERIFY:
      // From then on nothing would be written, so nothing could be acknowledged.
      if (checkpointed) throw unexpected(record, 'in a stream with checkpoints');
      break;
    case RecordType.END:
      if (checkpointed && !context.bufferAllRecords) throw unexpected(record, 'before the first checkpoint');
      if (context.bufferedRecords.count > 0) throw unexpected(record, 'in the middle of a checkpoint');
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
    const pfn = pfns[i] ?? 0;
    if (!ops.pfnIsValid(context, pfn)) {
      throw new StreamError('PFN_OUT_OF_RANGE', `the domain has no pfn ${pfn}`, {
        offset: record.offset,
        type: record.type,
        index: i,
        pfn,
        p2mSize: context.p2mSize,
      });
    }
  }
}

function unexpected(record: StreamRecord, where: string): RestoreError {
  return refused('UNEXPECTED_RECORD', record, where);
}

function refused(code: RestoreErrorCode, record: StreamRecord, what: string): RestoreError {
  const type = record.type.toString(16);
  return new RestoreError(code, `record 0x${type} (${recordTypeName(record.type)}) ${what}`, {
    type: record.type,
    offset: record.offset,
    length: record.body.length,
  });
}
