// The frame numbers in a vCPU's basic context, and one walk over them that serves three masters: the saver makes them
// pfns, the restorer mfns, and the judge of a stream looks whether they can be made mfns.
//
//   user_regs.edx    start_info, in vCPU 0 alone, while the guest is suspended
//   gdt_frames[i]    as many as gdt_ents needs
//   ctrlreg[3]       top page table; of a 32-bit guest in Xen's extended form
//   ctrlreg[1]       64-bit guests: page table of the guest's user space; bit 0 says in the stream that there is one

import { INVALID_FRAME } from '../../stream/format.js';
import { viewOf } from '../../stream/octets.js';
import { GuestError } from '../error.js';
import {
  GDT_ENTRIES_MAX,
  GDT_ENTRIES_PER_FRAME,
  type PvLayout,
  cr3ToFrame,
  frameToCr3,
  readFrame,
  readLong,
  writeFrame,
} from './layout.js';

export type FrameRole = 'start info' | 'GDT frame' | 'cr3' | 'cr1';

/** The frame that shall stand in its place; INVALID_FRAME comes in where 32 bits cannot hold it. @throws if it is bad */
export type TranslateFrame = (frame: number, role: FrameRole) => number;

/**
 * Rewrites the context's frame numbers in place.
 * @param direction of the frame numbers. A cr1 that is not 0 gets bit 0 in the stream; one without it has never been
 *   translated (libxc hands it to Xen as it is, here it is refused)
 * @throws GuestError BAD_VCPU, and what `translate` throws
 */
export function translateVcpu(
  context: Uint8Array,
  layout: PvLayout,
  vcpu: number,
  direction: 'to pfns' | 'to mfns',
  translate: TranslateFrame,
): void {
  const { width } = layout;
  const at = layout.vcpu;
  const view = viewOf(context);

  if (vcpu === 0) {
    writeFrame(view, at.edx, width, translate(readFrame(view, at.edx, width), 'start info'));
  }

  const entries = readLong(view, at.gdtEntries, width);
  if (entries > BigInt(GDT_ENTRIES_MAX)) {
    throw new GuestError('BAD_VCPU', `vCPU ${vcpu} has a GDT of ${entries.toString()} entries`, {
      vcpu,
      entries,
      limit: GDT_ENTRIES_MAX,
    });
  }
  const gdtFrames = Math.ceil(Number(entries) / GDT_ENTRIES_PER_FRAME);
  for (let i = 0; i < gdtFrames; i++) {
    const field = at.gdtFrames + i * width;
    writeFrame(view, field, width, translate(readFrame(view, field, width), 'GDT frame'));
  }

  const cr3 = at.controlRegisters + 3 * width;
  const top = translate(cr3ToFrame(readLong(view, cr3, width), width), 'cr3');
  if (width === 4) {
    view.setUint32(cr3, Number(frameToCr3(top, width)), true);
    return;
  }
  view.setBigUint64(cr3, frameToCr3(top, width), true);

  const cr1 = at.controlRegisters + width;
  const user = view.getBigUint64(cr1, true);
  const toPfns = direction === 'to pfns';
  if (user === 0n) return;
  if (!toPfns && (user & 1n) === 0n) {
    throw new GuestError('BAD_VCPU', `cr1 of vCPU ${vcpu} lacks the mark that says that it holds a pfn`, {
      vcpu,
      cr1: user,
    });
  }
  const frame = translate(cr3ToFrame(user, width), 'cr1');
  view.setBigUint64(cr1, (BigInt(frame) << 12n) | (toPfns ? 1n : 0n), true);
}

/** The page that a suspended vCPU 0 names as its start_info; INVALID_FRAME if 32 bits cannot hold it. */
export function startInfoFrame(context: Uint8Array, layout: PvLayout): number {
  const view = viewOf(context);
  return context.length === 0 ? INVALID_FRAME : readFrame(view, layout.vcpu.edx, layout.width);
}
