// Where the fields stand that hold frame numbers, in the structures that a PV guest shares with Xen, for guests of 32
// and of 64 bits. Source: Xen's public headers xen.h, arch-x86/xen-x86_32.h and arch-x86/xen-x86_64.h; all offsets were
// checked with a compiler against the headers of Xen 4.17, for both widths, and those of 64 bits against its streams.
// Everything is little-endian; a "long" is 4 or 8 octets, the guest's width.

import { INVALID_FRAME } from '../../stream/format.js';
import type { GuestWidth } from '../../stream/records/pv.js';

/** Octet offsets, but `width`, `levels` and the counts. */
export interface PvLayout {
  readonly width: GuestWidth;
  /** Levels of page tables. */
  readonly levels: 3 | 4;
  /** vcpu_guest_context */
  readonly vcpu: {
    readonly flags: number;
    /** user_regs.edx: start_info's frame, in a suspended vCPU 0. */
    readonly edx: number;
    readonly gdtFrames: number;
    readonly gdtEntries: number;
    /** ctrlreg[0 … 7] */
    readonly controlRegisters: number;
  };
  /** shared_info */
  readonly sharedInfo: {
    readonly eventsPending: number;
    readonly eventsMask: number;
    /** Octets of each of the two. */
    readonly eventsBytes: number;
    /** evtchn_pending_sel within a vcpu_info. */
    readonly pendingSelector: number;
    readonly arch: number;
    readonly archEnd: number;
    readonly maxPfn: number;
    readonly frameListList: number;
    readonly p2mCr3: number;
    readonly p2mVaddr: number;
    readonly p2mGeneration: number;
  };
  /** start_info */
  readonly startInfo: {
    readonly pages: number;
    /** Machine address of the shared info page. */
    readonly sharedInfo: number;
    readonly flags: number;
    readonly storeFrame: number;
    readonly storeEventChannel: number;
    readonly consoleFrame: number;
    readonly consoleEventChannel: number;
  };
}

/** XEN_LEGACY_MAX_VCPUS: vcpu_info structures at the beginning of shared_info. */
export const VCPU_INFO_COUNT = 32;
export const VCPU_INFO_BYTES = 64;
/** VGCF_online in a context's flags. */
export const VCPU_ONLINE = 1 << 5;
/** FIRST_RESERVED_GDT_ENTRY: the GDT entries above are Xen's. */
export const GDT_ENTRIES_MAX = 7168;
export const GDT_ENTRIES_PER_FRAME = 512;
/** `connection` in the console's page (io/console.h; 4.17's does not have it yet), and its value for a console that nobody serves yet. */
export const CONSOLE_CONNECTION = 3088;
export const CONSOLE_DISCONNECTED = 1;

const layout64: PvLayout = {
  width: 8,
  levels: 4,
  vcpu: { flags: 512, edx: 616, gdtFrames: 4832, gdtEntries: 4960, controlRegisters: 4984 },
  sharedInfo: {
    eventsPending: 2048,
    eventsMask: 2560,
    eventsBytes: 512,
    pendingSelector: 8,
    arch: 3088,
    archEnd: 3136,
    maxPfn: 3088,
    frameListList: 3096,
    p2mCr3: 3112,
    p2mVaddr: 3120,
    p2mGeneration: 3128,
  },
  startInfo: {
    pages: 32,
    sharedInfo: 40,
    flags: 48,
    storeFrame: 56,
    storeEventChannel: 64,
    consoleFrame: 72,
    consoleEventChannel: 80,
  },
};

const layout32: PvLayout = {
  width: 4,
  levels: 3,
  vcpu: { flags: 512, edx: 524, gdtFrames: 2640, gdtEntries: 2704, controlRegisters: 2716 },
  sharedInfo: {
    eventsPending: 2048,
    eventsMask: 2176,
    eventsBytes: 128,
    pendingSelector: 4,
    arch: 2316,
    archEnd: 2344,
    maxPfn: 2316,
    frameListList: 2320,
    p2mCr3: 2328,
    p2mVaddr: 2332,
    p2mGeneration: 2336,
  },
  startInfo: {
    pages: 32,
    sharedInfo: 36,
    flags: 40,
    storeFrame: 44,
    storeEventChannel: 48,
    consoleFrame: 52,
    consoleEventChannel: 56,
  },
};

export function pvLayout(width: GuestWidth): PvLayout {
  return width === 8 ? layout64 : layout32;
}

export function readLong(view: DataView, at: number, width: GuestWidth): bigint {
  return width === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
}

export function writeLong(view: DataView, at: number, width: GuestWidth, value: bigint): void {
  if (width === 8) view.setBigUint64(at, value, true);
  else view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
}

/** A frame number that stands in a long; one that cannot be held in 32 bits is INVALID_FRAME, as libxc's own is. */
export function readFrame(view: DataView, at: number, width: GuestWidth): number {
  if (width === 8 && view.getUint32(at + 4, true) !== 0) return INVALID_FRAME;
  return view.getUint32(at, true);
}

export function writeFrame(view: DataView, at: number, width: GuestWidth, frame: number): void {
  view.setUint32(at, frame, true);
  if (width === 8) view.setUint32(at + 4, frame === INVALID_FRAME ? INVALID_FRAME : 0, true);
}

/**
 * The frame in a cr3: on a 32-bit guest, Xen's extended form, whose upper 12 bits of the frame stand in the lower 12
 * of the register.
 */
export function cr3ToFrame(cr3: bigint, width: GuestWidth): number {
  if (width === 8) {
    const frame = cr3 >> 12n;
    return frame < BigInt(INVALID_FRAME) ? Number(frame) : INVALID_FRAME;
  }
  const register = Number(BigInt.asUintN(32, cr3));
  return ((register >>> 12) | (register << 20)) >>> 0;
}

export function frameToCr3(frame: number, width: GuestWidth): bigint {
  return width === 8 ? BigInt(frame) << 12n : BigInt(((frame << 12) | (frame >>> 20)) >>> 0);
}
