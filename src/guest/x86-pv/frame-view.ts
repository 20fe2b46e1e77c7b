// Looking into single frames of the machine: mapped for as long as the work takes.

import type { PvDomain } from '../../hypervisor/port-pv.js';
import { valueAt } from '../../stream/bounds.js';

/** Octets 0 … 4095 of a mapped page. */
export function viewOf(page: Uint32Array): DataView {
  return new DataView(page.buffer, page.byteOffset, page.byteLength);
}

/** Maps the frame, works on it, and unmaps it whatever comes of the work. */
export async function withFrame(
  pv: PvDomain,
  mfn: number,
  work: (page: DataView) => Promise<void> | undefined,
): Promise<void> {
  const mapping = await pv.mapFrames(Uint32Array.of(mfn), 1);
  try {
    await work(viewOf(valueAt(mapping.frames, 0)));
  } finally {
    mapping.unmap();
  }
}
