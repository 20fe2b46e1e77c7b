// The records of an x86 HVM domain: its parameters and its context.
//
//   HVM_PARAMS   | count u32 | reserved u32 | (index u64, value u64) × count |
//   HVM_CONTEXT  the hypervisor's blob, as it is
//
// Xen 4.6 to 4.8 wrote HVM_PARAMS with no parameters; that is no error.

import { viewOf } from '../octets.js';
import type { StreamRecord } from '../record.js';
import { badRecord, demandAtLeast } from './shape.js';

const PARAMS_HEADER_BYTES = 8;
const PARAM_BYTES = 16;

export interface HvmParam {
  readonly index: bigint;
  readonly value: bigint;
}

/** @throws StreamError BAD_RECORD */
export function decodeHvmParams(record: StreamRecord): HvmParam[] {
  const count = checkHvmParams(record);
  const view = viewOf(record.body);
  const params: HvmParam[] = [];
  for (let at = PARAMS_HEADER_BYTES; params.length < count; at += PARAM_BYTES) {
    params.push({ index: view.getBigUint64(at, true), value: view.getBigUint64(at + 8, true) });
  }
  return params;
}

/** The number of parameters of a well-formed record. @throws StreamError BAD_RECORD */
export function checkHvmParams(record: StreamRecord): number {
  demandAtLeast(record, PARAMS_HEADER_BYTES);
  const count = viewOf(record.body).getUint32(0, true);
  if (record.body.length !== PARAMS_HEADER_BYTES + count * PARAM_BYTES) {
    throw badRecord(record, `of the wrong size for ${count} parameters`);
  }
  return count;
}

export function encodeHvmParams(params: readonly HvmParam[]): Uint8Array {
  const body = new Uint8Array(PARAMS_HEADER_BYTES + params.length * PARAM_BYTES);
  const view = viewOf(body);
  view.setUint32(0, params.length, true);
  let at = PARAMS_HEADER_BYTES;
  for (const param of params) {
    view.setBigUint64(at, param.index, true);
    view.setBigUint64(at + 8, param.value, true);
    at += PARAM_BYTES;
  }
  return body;
}

/** The context blob, a view of the record. @throws StreamError BAD_RECORD if it is empty */
export function decodeHvmContext(record: StreamRecord): Uint8Array {
  demandAtLeast(record, 1);
  return record.body;
}
