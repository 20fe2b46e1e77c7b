// The memory of a machine that runs PV domains, for tests: frames in one shared array, who owns each, of what type Xen
// holds it to be, and the machine-to-physical table. Frames are allotted in the order that the test wants, so that
// the same domain lies differently on every machine.
//
//   mfn 0 … XEN_FRAMES - 1   Xen's own        the rest, in the scripted order: domains

import { INVALID_FRAME, PAGE_SIZE } from '../../src/stream/format.js';
import { HypervisorError } from '../../src/hypervisor/port.js';

/** Frames at the bottom that are Xen's: no domain ever gets them. */
export const XEN_FRAMES = 16;
/** Of those: what a 64-bit guest's top table maps in Xen's slots, and the compat m2p of 32-bit guests. */
export const XEN_M2P_MFN = 2;
export const XEN_COMPAT_M2P_MFN = 4;

const NOBODY = 0;
const XEN = 1;
const FIRST_DOMAIN = 2;

export interface MemoryMachineOptions {
  readonly frames: number;
  /** mfns in the order in which they are allotted; all free ones, each once. Default: ascending. */
  readonly order?: Iterable<number>;
}

export class MemoryMachine {
  readonly frames: number;
  /** Two words an entry, as Xen's own: the pfn, all ones where there is none. */
  readonly m2p: Uint32Array;
  /** PageType that Xen holds each frame to be of. */
  readonly types: Uint8Array;
  /** How many writable mappings each frame has in page tables that Xen has looked through. */
  readonly writable: Uint32Array;
  /** Mappings that were given out and not given back. */
  openMappings = 0;

  readonly #memory: SharedArrayBuffer;
  readonly #owners: Uint16Array;
  /** Free frames, the next one last. */
  readonly #free: number[];
  #domains = FIRST_DOMAIN;

  constructor(options: MemoryMachineOptions) {
    const { frames } = options;
    if (!Number.isInteger(frames) || frames <= XEN_FRAMES) {
      throw new HypervisorError('BAD_CONFIGURATION', `a machine has more than ${XEN_FRAMES} frames`, {
        frames,
      });
    }
    this.frames = frames;
    this.m2p = new Uint32Array(frames * 2).fill(INVALID_FRAME);
    this.types = new Uint8Array(frames);
    this.writable = new Uint32Array(frames);
    this.#memory = new SharedArrayBuffer(frames * PAGE_SIZE);
    this.#owners = new Uint16Array(frames).fill(XEN, 0, XEN_FRAMES);
    const order = [...(options.order ?? ascending(frames))];
    const named = new Set(order);
    if (named.size !== frames - XEN_FRAMES || order.some((mfn) => !(mfn >= XEN_FRAMES && mfn < frames))) {
      throw new HypervisorError('BAD_CONFIGURATION', 'the order does not name each free frame once', {
        frames,
      });
    }
    this.#free = order.reverse();
  }

  /** A number for a new domain. */
  newDomain(): number {
    return this.#domains++;
  }

  get freeFrames(): number {
    return this.#free.length;
  }

  /** The next frame, zeroed; INVALID_FRAME if there is none. */
  allot(domain: number): number {
    const mfn = this.#free.pop();
    if (mfn === undefined) return INVALID_FRAME;
    this.#owners[mfn] = domain;
    this.words(mfn).fill(0);
    return mfn;
  }

  free(mfn: number): void {
    this.#owners[mfn] = NOBODY;
    this.types[mfn] = 0;
    this.writable[mfn] = 0;
    this.setM2p(mfn, INVALID_FRAME);
    this.#free.push(mfn);
  }

  /** Frees all that a domain has. */
  freeAll(domain: number): void {
    for (let mfn = 0; mfn < this.frames; mfn++) if (this.#owners[mfn] === domain) this.free(mfn);
  }

  isOwnedBy(mfn: number, domain: number): boolean {
    return mfn < this.frames && this.#owners[mfn] === domain;
  }

  setM2p(mfn: number, pfn: number): void {
    this.m2p[mfn * 2] = pfn;
    this.m2p[mfn * 2 + 1] = pfn === INVALID_FRAME ? INVALID_FRAME : 0;
  }

  pfnOf(mfn: number): number {
    return this.m2p[mfn * 2] ?? INVALID_FRAME;
  }

  /** A frame's live content. */
  words(mfn: number): Uint32Array {
    return new Uint32Array(this.#memory, mfn * PAGE_SIZE, PAGE_SIZE / 4);
  }

  octets(mfn: number): Uint8Array {
    return new Uint8Array(this.#memory, mfn * PAGE_SIZE, PAGE_SIZE);
  }
}

/** All free frames of such a machine, in an order that the seed decides. */
export function shuffledFrames(frames: number, seed: number): number[] {
  const order = ascending(frames);
  let state = seed | 0;
  for (let i = order.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    const j = (state >>> 4) % (i + 1);
    const moved = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = moved;
  }
  return order;
}

function ascending(frames: number): number[] {
  return Array.from({ length: frames - XEN_FRAMES }, (_, i) => XEN_FRAMES + i);
}
