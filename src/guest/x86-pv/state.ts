// What the PV ops keep between calls: libxc's x86.pv and x86.pv.restore, under libxc's names where it has them.

import type { FrameMapping, PvSource, PvTarget } from '../../hypervisor/port-pv.js';
import { INVALID_FRAME } from '../../stream/format.js';
import { GuestError } from '../error.js';
import type { RestoreOpsContext, SaveOpsContext } from '../ops.js';
import type { StreamJudge } from './judge.js';
import type { PvLayout } from './layout.js';
import { PageView } from './page-table.js';
import { Physmap } from './physmap.js';

/** A mapping that must be given back. */
export interface Unmappable {
  unmap(): void;
}

export class X86PvSaveState {
  readonly pv: PvSource;
  readonly layout: PvLayout;
  readonly maxVcpuId: number;
  readonly physmap: Physmap;
  compatM2pMfn0 = INVALID_FRAME;
  /** The shared info page, live. */
  sharedInfo: DataView = new DataView(new ArrayBuffer(0));
  /** The pfns of the p2m's pages. */
  p2mPfns = new Uint32Array(0);
  /** Of a linear p2m: the guest counts here each time it moves one of its pages. null: the p2m is a tree. */
  p2mGeneration: bigint | null = null;
  p2mMapping: FrameMapping | null = null;
  /** The other mappings. */
  readonly mappings: Unmappable[] = [];
  readonly pages = new PageView();

  constructor(pv: PvSource, layout: PvLayout, maxVcpuId: number) {
    this.pv = pv;
    this.layout = layout;
    this.maxVcpuId = maxVcpuId;
    this.physmap = new Physmap(layout.width);
  }
}

/** The blobs of one vCPU; each is the last that came (libxc's update_blob). */
export interface VcpuBlobs {
  basic: Uint8Array | null;
  extended: Uint8Array | null;
  xsave: Uint8Array | null;
  msrs: Uint8Array | null;
}

export class X86PvRestoreState {
  readonly pv: PvTarget;
  layout: PvLayout;
  readonly sharedInfoFrame: number;
  physmap: Physmap;
  /** The pfns of the p2m's pages, INVALID_FRAME where the stream has not said. */
  p2mPfns = new Uint32Array(0);
  /** PageType of each pfn up to physmap.maxPfn. */
  pfnTypes = new Uint8Array(0);
  readonly vcpus: readonly VcpuBlobs[];
  /** What the domain will look like once all that was admitted is applied. */
  readonly judge: StreamJudge;
  readonly mappings: Unmappable[] = [];
  readonly pages = new PageView();
  /** pfns that a page table points to and that have no frame yet. */
  readonly missing = new Uint32Array(512);

  constructor(
    pv: PvTarget,
    facts: {
      readonly layout: PvLayout;
      readonly sharedInfoFrame: number;
      readonly maxVcpuId: number;
      readonly judge: StreamJudge;
    },
  ) {
    this.pv = pv;
    this.layout = facts.layout;
    this.sharedInfoFrame = facts.sharedInfoFrame;
    this.judge = facts.judge;
    this.physmap = new Physmap(facts.layout.width);
    this.vcpus = Array.from({ length: facts.maxVcpuId + 1 }, () => ({
      basic: null,
      extended: null,
      xsave: null,
      msrs: null,
    }));
  }
}

/** Asked for every page: comparing the constructor is a third of what instanceof costs. @throws GuestError INCOMPLETE */
export function saveStateOf(context: SaveOpsContext): X86PvSaveState {
  const { guestState } = context;
  if (guestState?.constructor === X86PvSaveState) return guestState;
  throw new GuestError('INCOMPLETE', 'the save of the PV domain was not set up');
}

/** @throws GuestError INCOMPLETE */
export function restoreStateOf(context: RestoreOpsContext): X86PvRestoreState {
  const { guestState } = context;
  if (guestState?.constructor === X86PvRestoreState) return guestState;
  throw new GuestError('INCOMPLETE', 'the restore of the PV domain was not set up');
}
