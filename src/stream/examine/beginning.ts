// What a file is, by its first eight octets: one of the layers, COLO's back channel, a wrapper that holds one of the
// layers, or something else, which other-files.ts names.
//
//   xl            "Xen saved …"            back channel   0f 00 00 00 | length, or 05 00 00 00 | 4 or 8
//   libxl         "LibxlFmt"               libvirt        "libvirt-xml …"
//   libxc         ff ff ff ff ff ff ff ff  xenopsd        "XenSavedDom…" (XenServer, XCP-ng)

import { RECORD_LENGTH_MAX, RecordType } from '../format.js';
import type { Layer } from '../layer-item.js';
import { LibxlRecordType, encodeLibxlHeader } from '../libxl.js';
import { viewOf } from '../octets.js';
import { beginsLikeXl } from '../xl.js';
import type { WrapperKind } from './visitor.js';
import { beginsLikeLibvirt, beginsLikeXenopsd } from './wrapper.js';

export const TELLING_BYTES = 8;
/** As many tell what else it is. */
export const SAMPLE_BYTES = 512;
const MARKER = 0xffffffffffffffffn;
const CHECKPOINT_STATE_BYTES_MAX = 8;

export type Beginning =
  | { readonly kind: 'layer'; readonly layer: Layer }
  | { readonly kind: 'back-channel' | WrapperKind | 'other' };

export function tellBeginning(bytes: Uint8Array): Beginning {
  if (bytes.length < TELLING_BYTES) {
    return { kind: 'other' };
  }
  if (beginsLikeXl(bytes)) {
    return { kind: 'layer', layer: 'xl' };
  }
  if (beginsLikeLibvirt(bytes)) {
    return { kind: 'libvirt' };
  }
  if (beginsLikeXenopsd(bytes)) {
    return { kind: 'xenopsd' };
  }
  const view = viewOf(bytes);
  if (view.getBigUint64(0) === viewOf(encodeLibxlHeader()).getBigUint64(0)) {
    return { kind: 'layer', layer: 'libxl' };
  }
  if (view.getBigUint64(0) === MARKER) {
    return { kind: 'layer', layer: 'libxc' };
  }
  return { kind: isBackChannel(view.getUint32(0, true), view.getInt32(4, true)) ? 'back-channel' : 'other' };
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
