// What a file is, by its first eight octets: one of the layers, COLO's back channel, a stream of Xen 4.4 or earlier
// (which has no header), or nothing that has to do with Xen.
//
//   xl            "Xen saved …"            back channel   0f 00 00 00 | length, or 05 00 00 00 | 4 or 8
//   libxl         "LibxlFmt"               legacy, 64 bit pages u32, not 0 | 00 00 00 00
//   libxc         ff ff ff ff ff ff ff ff  legacy, 32 bit pages u32, not 0 | ff ff ff ff, or a small number

import { RECORD_LENGTH_MAX, RecordType } from '../format.js';
import type { Layer } from '../layer-item.js';
import { LibxlRecordType, encodeLibxlHeader } from '../libxl.js';
import { viewOf } from '../octets.js';
import { beginsLikeXl } from '../xl.js';
import type { RuleId } from './rules.js';

export const TELLING_BYTES = 8;
const MARKER = 0xffffffffffffffffn;
const CHECKPOINT_STATE_BYTES_MAX = 8;
/** Pages of the largest guest that a 32-bit toolstack could have saved: 64 GiB. */
const LEGACY_PAGES_MAX = 1 << 24;
/** The legacy format's chunk types are small negative numbers, its batches have at most 1024 pages. */
const LEGACY_CHUNK_MIN = -32;
const LEGACY_BATCH_MAX = 1024;

export type Beginning =
  | { readonly kind: 'layer'; readonly layer: Layer }
  | { readonly kind: 'back-channel' }
  | { readonly kind: 'wrong'; readonly rule: RuleId; readonly message: string };

export function tellBeginning(bytes: Uint8Array): Beginning {
  if (bytes.length < TELLING_BYTES) {
    const message = bytes.length === 0 ? 'the file is empty' : `the file has ${bytes.length} octets`;
    return { kind: 'wrong', rule: 'not-a-stream', message };
  }
  if (beginsLikeXl(bytes)) {
    return { kind: 'layer', layer: 'xl' };
  }
  const view = viewOf(bytes);
  if (view.getBigUint64(0) === viewOf(encodeLibxlHeader()).getBigUint64(0)) {
    return { kind: 'layer', layer: 'libxl' };
  }
  if (view.getBigUint64(0) === MARKER) {
    return { kind: 'layer', layer: 'libxc' };
  }
  const first = view.getUint32(0, true);
  const second = view.getInt32(4, true);
  if (isBackChannel(first, second)) {
    return { kind: 'back-channel' };
  }
  if (first !== 0 && second === 0) {
    return { kind: 'wrong', rule: 'legacy', message: legacy(64, first) };
  }
  if (first !== 0 && first <= LEGACY_PAGES_MAX && second >= LEGACY_CHUNK_MIN && second <= LEGACY_BATCH_MAX) {
    return { kind: 'wrong', rule: 'legacy', message: legacy(32, first) };
  }
  return { kind: 'wrong', rule: 'not-a-stream', message: 'the file begins like none of xl, libxl and libxc' };
}

function isBackChannel(type: number, length: number): boolean {
  switch (type) {
    case RecordType.CHECKPOINT_DIRTY_PFN_LIST:
      return length >= 0 && length % 8 === 0 && length <= RECORD_LENGTH_MAX;
    case LibxlRecordType.CHECKPOINT_STATE:
      return length > 0 && length <= CHECKPOINT_STATE_BYTES_MAX;
    default:
      return false;
  }
}

function legacy(bits: number, pages: number): string {
  return `looks like a version-1 (legacy) stream of Xen 4.4 or earlier, by a ${bits}-bit toolstack, of a guest of ${pages} pages; Xen's convert-legacy-stream makes a version-2 stream of it`;
}
