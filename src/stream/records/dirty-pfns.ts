// CHECKPOINT_DIRTY_PFN_LIST: the pages that a COLO secondary has changed since the last checkpoint, on the back
// channel, in no order. The body is the list and nothing else: pfn u64 × (length / 8); none is possible.

import { valueAt } from '../bounds.js';
import { PFN_MAX } from '../format.js';
import { viewOf } from '../octets.js';
import type { StreamRecord } from '../record.js';
import { badRecord, recordError } from './shape.js';

/** @throws StreamError BAD_RECORD, PFN_OUT_OF_RANGE */
export function checkDirtyPfnList(record: StreamRecord): void {
  const { body } = record;
  if (body.length % 8 !== 0) throw badRecord(record, 'that is not a number of pfns of 8 octets');
  const view = viewOf(body);
  for (let at = 0; at < body.length; at += 8) {
    if (view.getUint32(at + 4, true) !== 0 || view.getUint32(at, true) > PFN_MAX) {
      const pfn = view.getBigUint64(at, true);
      throw recordError('PFN_OUT_OF_RANGE', record, `with the pfn 0x${pfn.toString(16)}`, { pfn });
    }
  }
}

/** @throws StreamError BAD_RECORD, PFN_OUT_OF_RANGE */
export function decodeDirtyPfnList(record: StreamRecord): Uint32Array {
  checkDirtyPfnList(record);
  const view = viewOf(record.body);
  const pfns = new Uint32Array(record.body.length / 8);
  for (let index = 0; index < pfns.length; index += 1) {
    pfns[index] = view.getUint32(index * 8, true);
  }
  return pfns;
}

/** The body of the list's record, with the first `count` of the pfns. */
export function encodeDirtyPfnList(pfns: Uint32Array, count: number = pfns.length): Uint8Array {
  const body = new Uint8Array(count * 8);
  const view = viewOf(body);
  for (let index = 0; index < count; index += 1) {
    view.setUint32(index * 8, valueAt(pfns, index), true);
  }
  return body;
}
