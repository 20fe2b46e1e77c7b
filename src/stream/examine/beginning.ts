// What a file is, by its first eight octets: one of the layers, COLO's back channel, a wrapper that holds one of the
// layers, or something else, which other-files.ts names.
//
//   xl            "Xen saved …"            back channel   0f 00 00 00 | length, or 05 00 00 00 | 4 or 8
//   libxl         "LibxlFmt"               libvirt        "libvirt-xml …"
//   libxc         ff ff ff ff ff ff ff ff  xenopsd        "XenSavedDom…" (XenServer, XCP-ng)

import { RECORD_LENGTH_MAX, RecordType } from '../format.js';
import { isCheckpointState } from '../libxl.js';
import { viewOf } from '../octets.js';
import { type Layer, TELLING_BYTES, layerOf } from '../record-reader.js';
import type { WrapperKind } from './visitor.js';
import { beginsLikeLibvirt, beginsLikeXenopsd } from './wrapper.js';

/** As many tell what else it is. */
export const SAMPLE_BYTES = 512;

export type Beginning =
  | { readonly kind: 'layer'; readonly layer: Layer }
  | { readonly kind: 'back-channel' | WrapperKind | 'other' };

export function tellBeginning(bytes: Uint8Array): Beginning {
  if (bytes.length < TELLING_BYTES) return { kind: 'other' };
  const layer = layerOf(bytes);
  if (layer !== null) return { kind: 'layer', layer };
  if (beginsLikeLibvirt(bytes)) return { kind: 'libvirt' };
  if (beginsLikeXenopsd(bytes)) return { kind: 'xenopsd' };
  const view = viewOf(bytes);
  return { kind: isBackChannel(view.getUint32(0, true), view.getUint32(4, true)) ? 'back-channel' : 'other' };
}

function isBackChannel(type: number, length: number): boolean {
  return type === RecordType.CHECKPOINT_DIRTY_PFN_LIST
    ? length % 8 === 0 && length <= RECORD_LENGTH_MAX
    : length > 0 && isCheckpointState(type, length);
}
