// What the PV ops keep between calls, libxc's x86.pv and x86.pv.restore, under libxc's names where it has them; and how
// they reach what is the hypervisor's: its calls for PV domains, single frames of the machine.

import type { FrameMapping, PvDomain, PvSource, PvTarget } from '../../hypervisor/port-pv.js';
import { valueAt } from '../../stream/bounds.js';
import { DomainType, INVALID_FRAME } from '../../stream/format.js';
import { viewOf } from '../../stream/octets.js';
import { GuestError } from '../error.js';
import type { RestoreOpsContext, SaveOpsContext } from '../ops.js';
import { StreamJudge } from './judge.js';
import type { PvLayout } from './layout.js';
import { PageView } from './page-table.js';
import { Physmap } from './physmap.js';

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
  readonly mappings: { unmap(): void }[] = [];
  readonly pages = new PageView();

  constructor(pv: PvSource, layout: PvLayout, maxVcpuId: number) {
    this.pv = pv;
    this.layout = layout;
    this.maxVcpuId = maxVcpuId;
    this.physmap = new Physmap(layout.width);
  }
}

/** The blobs of one vCPU, by the type of their records; each is the last that came (libxc's update_blob). */
export type VcpuBlobs = Map<number, Uint8Array>;

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
  readonly mappings: { unmap(): void }[] = [];
  readonly pages = new PageView();
  /** pfns that a page table points to and that have no frame yet. */
  readonly missing = new Uint32Array(512);

  constructor(pv: PvTarget, layout: PvLayout, maxVcpuId: number, sharedInfoFrame: number) {
    this.pv = pv;
    this.layout = layout;
    this.sharedInfoFrame = sharedInfoFrame;
    this.judge = new StreamJudge(maxVcpuId + 1);
    this.physmap = new Physmap(layout.width);
    this.vcpus = Array.from({ length: maxVcpuId + 1 }, () => new Map());
  }
}

/** @throws GuestError UNSUPPORTED_DOMAIN_TYPE: this hypervisor has no PV domains */
export function needPv<Pv>({ pv }: { readonly pv?: Pv }, done: 'save' | 'restore'): Pv {
  if (pv !== undefined) return pv;
  throw new GuestError('UNSUPPORTED_DOMAIN_TYPE', `this hypervisor cannot ${done} PV domains`, {
    type: DomainType.X86_PV,
  });
}

/** Maps a single frame of the machine, works on its octets 0 … 4095, and unmaps it whatever comes of the work. */
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
