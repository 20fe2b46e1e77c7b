// The records of an x86 PV domain, their form only: what the blobs mean is the guest type's business.
//
//   X86_PV_INFO        | width u8 | levels u8 | reserved 6 |
//   X86_PV_P2M_FRAMES  | start_pfn u32 | end_pfn u32 | pfn u64 × frames of the p2m that hold start … end |
//   X86_PV_VCPU_*      | vcpu_id u32 | reserved u32 | context … |
//   SHARED_INFO        one page
//
// A frame of the p2m holds 4096 / width entries. Xen 4.6 to 4.8 wrote vCPU records with no context; that is no
// error, and says nothing.

import { INVALID_FRAME, PAGE_SIZE, PFN_MAX, RecordType } from '../format.js';
import { viewOf } from '../octets.js';
import type { StreamRecord } from '../record.js';
import { badRecord, demandAtLeast, demandExactly, recordError } from './shape.js';

const PV_INFO_BYTES = 8;
const P2M_FRAMES_HEADER_BYTES = 8;
const VCPU_HEADER_BYTES = 8;

/** What a domain has of each vCPU, in the order in which it is written. */
export const VCPU_RECORD_TYPES: readonly number[] = [
  RecordType.X86_PV_VCPU_BASIC,
  RecordType.X86_PV_VCPU_EXTENDED,
  RecordType.X86_PV_VCPU_XSAVE,
  RecordType.X86_PV_VCPU_MSRS,
];
/** sizeof(vcpu_guest_context) of a 4-octet and of an 8-octet guest. */
export const VCPU_CONTEXT_BYTES = { 4: 2800, 8: 5168 } as const;
/** The most that XEN_DOMCTL_set_ext_vcpucontext takes. */
const VCPU_EXTENDED_BYTES_MAX = 128;
/** xcr0 and xcr0_accum, before the state that they describe. */
const VCPU_XSAVE_BYTES_MIN = 16;
/** sizeof(xen_domctl_vcpu_msr_t). */
const VCPU_MSR_BYTES = 16;

/** Octets of an unsigned long in the guest. */
export type GuestWidth = 4 | 8;

export interface PvInfo {
  readonly guestWidth: GuestWidth;
  /** Levels of page tables: 3 with width 4, 4 with width 8. */
  readonly levels: 3 | 4;
}

export interface PvP2mFrames {
  /** The first and last pfn of the domain that the record covers. */
  readonly startPfn: number;
  readonly endPfn: number;
  /** The pfns of the frames that hold the p2m's entries for them. */
  readonly frames: Uint32Array;
}

export interface PvVcpu {
  readonly vcpuId: number;
  /** A view of the record; empty where an old sender had nothing to say. */
  readonly context: Uint8Array;
}

/** @throws StreamError BAD_RECORD. A longer record than the fields need is taken, as by libxc. */
export function decodePvInfo(record: StreamRecord): PvInfo {
  demandAtLeast(record, PV_INFO_BYTES);
  const view = viewOf(record.body);
  const width = view.getUint8(0);
  const levels = view.getUint8(1);
  if (width === 4 && levels === 3) return { guestWidth: 4, levels: 3 };
  if (width === 8 && levels === 4) return { guestWidth: 8, levels: 4 };
  throw badRecord(record, `with width ${width} and ${levels} levels of page tables`);
}

export function encodePvInfo(info: PvInfo): Uint8Array {
  const body = new Uint8Array(PV_INFO_BYTES);
  body[0] = info.guestWidth;
  body[1] = info.levels;
  return body;
}

/** How many frames hold the p2m entries of startPfn to endPfn. */
export function p2mFrameCount(startPfn: number, endPfn: number, guestWidth: GuestWidth): number {
  const entriesPerFrame = PAGE_SIZE / guestWidth;
  return Math.floor(endPfn / entriesPerFrame) - Math.floor(startPfn / entriesPerFrame) + 1;
}

/** Checks the form; `guestWidth` null: not known yet, either will do. @throws StreamError BAD_RECORD, PFN_OUT_OF_RANGE */
export function checkPvP2mFrames(record: StreamRecord, guestWidth: GuestWidth | null): void {
  demandAtLeast(record, P2M_FRAMES_HEADER_BYTES);
  const view = viewOf(record.body);
  const startPfn = view.getUint32(0, true);
  const endPfn = view.getUint32(4, true);
  if (startPfn > endPfn) throw badRecord(record, `whose first pfn ${startPfn} is above its last ${endPfn}`);
  if (endPfn > PFN_MAX) {
    throw recordError('PFN_OUT_OF_RANGE', record, `with the last pfn ${endPfn}`, { pfn: endPfn });
  }
  const widths: readonly GuestWidth[] = guestWidth === null ? [8, 4] : [guestWidth];
  const frameBytes = record.body.length - P2M_FRAMES_HEADER_BYTES;
  if (!widths.some((width) => frameBytes === p2mFrameCount(startPfn, endPfn, width) * 8)) {
    throw badRecord(record, `of the wrong size for pfns ${startPfn} to ${endPfn}`);
  }
  for (let at = P2M_FRAMES_HEADER_BYTES; at < record.body.length; at += 8) {
    if (view.getUint32(at + 4, true) !== 0 || view.getUint32(at, true) === INVALID_FRAME) {
      const pfn = view.getBigUint64(at, true);
      throw recordError('PFN_OUT_OF_RANGE', record, `with the frame pfn 0x${pfn.toString(16)}`, { pfn });
    }
  }
}

/** @throws StreamError BAD_RECORD, PFN_OUT_OF_RANGE */
export function decodePvP2mFrames(record: StreamRecord, guestWidth: GuestWidth): PvP2mFrames {
  checkPvP2mFrames(record, guestWidth);
  const view = viewOf(record.body);
  const frames = new Uint32Array((record.body.length - P2M_FRAMES_HEADER_BYTES) / 8);
  for (let index = 0; index < frames.length; index += 1) {
    frames[index] = view.getUint32(P2M_FRAMES_HEADER_BYTES + index * 8, true);
  }
  return { startPfn: view.getUint32(0, true), endPfn: view.getUint32(4, true), frames };
}

export function encodePvP2mFrames({ startPfn, endPfn, frames }: PvP2mFrames): Uint8Array {
  const body = new Uint8Array(P2M_FRAMES_HEADER_BYTES + frames.length * 8);
  const view = viewOf(body);
  view.setUint32(0, startPfn, true);
  view.setUint32(4, endPfn, true);
  let at = P2M_FRAMES_HEADER_BYTES;
  for (const frame of frames) {
    view.setUint32(at, frame, true);
    at += 8;
  }
  return body;
}

/**
 * Decodes X86_PV_VCPU_BASIC, _EXTENDED, _XSAVE and _MSRS; `guestWidth` null: not known yet, either will do.
 * @throws StreamError BAD_RECORD if there is no header or the context cannot be one of its type
 */
export function decodePvVcpu(record: StreamRecord, guestWidth: GuestWidth | null): PvVcpu {
  demandAtLeast(record, VCPU_HEADER_BYTES);
  const context = record.body.subarray(VCPU_HEADER_BYTES);
  if (context.length > 0 && !isVcpuContextLength(record.type, context.length, guestWidth)) {
    throw badRecord(record, `with a context of ${context.length} octets`);
  }
  return { vcpuId: viewOf(record.body).getUint32(0, true), context };
}

/** What stands before the context in a vCPU record: a part for recordParts. */
export function encodePvVcpuHeader(vcpuId: number): Uint8Array {
  const header = new Uint8Array(VCPU_HEADER_BYTES);
  viewOf(header).setUint32(0, vcpuId, true);
  return header;
}

/** The shared info page, a view of the record. @throws StreamError BAD_RECORD */
export function decodeSharedInfo(record: StreamRecord): Uint8Array {
  demandExactly(record, PAGE_SIZE);
  return record.body;
}

function isVcpuContextLength(type: number, length: number, guestWidth: GuestWidth | null): boolean {
  switch (type) {
    case RecordType.X86_PV_VCPU_BASIC:
      return guestWidth === null
        ? length === VCPU_CONTEXT_BYTES[8] || length === VCPU_CONTEXT_BYTES[4]
        : length === VCPU_CONTEXT_BYTES[guestWidth];
    case RecordType.X86_PV_VCPU_EXTENDED:
      return length <= VCPU_EXTENDED_BYTES_MAX;
    case RecordType.X86_PV_VCPU_XSAVE:
      return length >= VCPU_XSAVE_BYTES_MIN;
    case RecordType.X86_PV_VCPU_MSRS:
      return length % VCPU_MSR_BYTES === 0;
    default:
      return false;
  }
}
