// What all record bodies share: the errors of a body that does not have the form of its type.

import { StreamError, type StreamErrorCode } from '../error.js';
import { recordTypeName } from '../format.js';
import type { StreamRecord } from '../record.js';

/** An error about a record, with the facts that say which one; `what` completes "a(n) … record …". */
export function recordError(
  code: StreamErrorCode,
  record: StreamRecord,
  what: string,
  facts: Readonly<Record<string, number | bigint>> = {},
): StreamError {
  const { type, offset, body } = record;
  return new StreamError(code, `${recordTypeName(type)} record ${what}`, {
    offset,
    type,
    length: body.length,
    ...facts,
  });
}

/** BAD_RECORD. */
export function badRecord(record: StreamRecord, what: string): StreamError {
  return recordError('BAD_RECORD', record, `${what} (it has ${record.body.length} octets)`);
}

/** @throws StreamError BAD_RECORD */
export function demandAtLeast(record: StreamRecord, bytes: number): void {
  if (record.body.length < bytes) throw badRecord(record, `shorter than ${bytes} octets`);
}

/** @throws StreamError BAD_RECORD */
export function demandExactly(record: StreamRecord, bytes: number): void {
  if (record.body.length !== bytes) throw badRecord(record, `of another length than ${bytes} octets`);
}

/** An array of at least one element of `bytes` octets. @throws StreamError BAD_RECORD */
export function demandArrayOf(record: StreamRecord, bytes: number): void {
  if (record.body.length === 0 || record.body.length % bytes !== 0) {
    throw badRecord(record, `that is not a number of elements of ${bytes} octets`);
  }
}
