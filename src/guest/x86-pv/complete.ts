// The end of a PV restore: everything that names frames of other pages is put right once all pages are there.
//
//   vCPUs (0: with start_info, store and console)  ─▶  pin page tables  ─▶  p2m over the guest's  ─▶  seed grants
//
// The order is libxc's; Xen looks through page tables when a vCPU is given them and when they are pinned.

import { PIN_BATCH_MAX } from '../../hypervisor/port-pv.js';
import { valueAt } from '../../stream/bounds.js';
import { INVALID_FRAME, PageType, RecordType } from '../../stream/format.js';
import { viewOf } from '../../stream/octets.js';
import { GuestError, type GuestErrorCode } from '../error.js';
import type { RestoreOpsContext } from '../ops.js';
import { fitsRole } from './judge.js';
import {
  CONSOLE_CONNECTION,
  CONSOLE_DISCONNECTED,
  VCPU_ONLINE,
  readFrame,
  writeFrame,
  writeLong,
} from './layout.js';
import { tableLevel } from './page-table.js';
import { type X86PvRestoreState, restoreStateOf, withFrame } from './state.js';
import { type FrameRole, startInfoFrame, translateVcpu } from './vcpu.js';

/** @throws GuestError INCOMPLETE, BAD_FRAME, BAD_PAGE_TYPE, BAD_P2M, BAD_VCPU; HypervisorError */
export async function completeStream(context: RestoreOpsContext): Promise<void> {
  const state = restoreStateOf(context);
  await updateVcpus(context, state);
  await pinPageTables(state);
  await updateGuestP2m(state);
  const { consoleGfn, xenstoreGfn, consoleDomid, xenstoreDomid } = context.endpoints;
  await state.pv.seedGrantTable(consoleGfn, xenstoreGfn, consoleDomid, xenstoreDomid);
}

async function updateVcpus(context: RestoreOpsContext, state: X86PvRestoreState): Promise<void> {
  const { pv, vcpus } = state;
  for (const [id, blobs] of vcpus.entries()) {
    const basic = blobs.get(RecordType.X86_PV_VCPU_BASIC);
    const extended = blobs.get(RecordType.X86_PV_VCPU_EXTENDED);
    const xsave = blobs.get(RecordType.X86_PV_VCPU_XSAVE);
    const msrs = blobs.get(RecordType.X86_PV_VCPU_MSRS);
    if (basic) await setBasic(context, state, id, basic);
    else if (id === 0) throw new GuestError('INCOMPLETE', 'the stream has not brought the state of vCPU 0');
    if (extended) await pv.setVcpuExtended(id, extended);
    if (xsave) await pv.setVcpuXsave(id, xsave);
    if (msrs) await pv.setVcpuMsrs(id, msrs);
  }
}

async function setBasic(
  context: RestoreOpsContext,
  state: X86PvRestoreState,
  id: number,
  basic: Uint8Array,
): Promise<void> {
  const { layout, pv } = state;
  const local = basic.slice();
  translateVcpu(local, layout, id, 'to mfns', (pfn, role) =>
    ownFrame(state, pfn, `${role} of vCPU ${id}`, role),
  );
  if (id === 0) await updateStartInfo(context, state, startInfoFrame(local, layout));
  const view = viewOf(local);
  view.setUint32(layout.vcpu.flags, view.getUint32(layout.vcpu.flags, true) | VCPU_ONLINE, true);
  await pv.setVcpuContext(id, local);
}

/** start_info: the rings' frames and event channels, the domain's size, where shared info is. */
async function updateStartInfo(
  context: RestoreOpsContext,
  state: X86PvRestoreState,
  startInfoMfn: number,
): Promise<void> {
  const { pv, layout, physmap, sharedInfoFrame } = state;
  const { width, startInfo: at } = layout;
  const { endpoints } = context;
  await withFrame(pv, startInfoMfn, async (view) => {
    const storeMfn = ownFrame(state, readFrame(view, at.storeFrame, width), 'xenstore ring');
    const consoleMfn = ownFrame(state, readFrame(view, at.consoleFrame, width), 'console ring');

    endpoints.xenstoreGfn = storeMfn;
    writeFrame(view, at.storeFrame, width, storeMfn);
    view.setUint32(at.storeEventChannel, endpoints.xenstoreEvtchn, true);

    await withFrame(pv, consoleMfn, (ring) => {
      ring.setUint8(CONSOLE_CONNECTION, CONSOLE_DISCONNECTED);
      return undefined;
    });
    endpoints.consoleGfn = consoleMfn;
    writeFrame(view, at.consoleFrame, width, consoleMfn);
    view.setUint32(at.consoleEventChannel, endpoints.consoleEvtchn, true);

    writeLong(view, at.pages, width, BigInt(physmap.maxPfn + 1));
    writeLong(view, at.sharedInfo, width, BigInt(sharedInfoFrame) << 12n);
    view.setUint32(at.flags, 0, true);
  });
}

/** In batches, as many as Xen takes in one call. */
async function pinPageTables(state: X86PvRestoreState): Promise<void> {
  const { pv, physmap, pfnTypes } = state;
  const levels = new Uint8Array(PIN_BATCH_MAX);
  const mfns = new Uint32Array(PIN_BATCH_MAX);
  let count = 0;
  for (let pfn = 0; pfn <= physmap.maxPfn; pfn++) {
    const type = valueAt(pfnTypes, pfn);
    if (type < PageType.L1TAB_PIN || type > PageType.L4TAB_PIN) continue;
    levels[count] = tableLevel(type);
    mfns[count] = physmap.pfnToMfn(pfn);
    count++;
    if (count === PIN_BATCH_MAX) {
      await pv.pinTables(levels, mfns, count);
      count = 0;
    }
  }
  if (count > 0) await pv.pinTables(levels, mfns, count);
}

/** The guest finds its memory where its own p2m says: ours is put over it. */
async function updateGuestP2m(state: X86PvRestoreState): Promise<void> {
  const { pv, physmap, p2mPfns } = state;
  const mfns = new Uint32Array(p2mPfns.length);
  for (let i = 0; i < mfns.length; i++) {
    const pfn = valueAt(p2mPfns, i);
    mfns[i] = ownFrame(state, pfn, `page ${i} of the p2m`, null, 'BAD_P2M');
    if (state.pfnTypes[pfn] !== PageType.NOTAB) {
      throw new GuestError('BAD_P2M', `page ${i} of the p2m, pfn ${pfn}, is no plain page`, {
        index: i,
        pfn,
        pageType: state.pfnTypes[pfn],
      });
    }
  }
  const mapping = await pv.mapFrames(mfns, mfns.length);
  const words = ((physmap.maxPfn + 1) * physmap.width) / 4;
  try {
    for (const [i, page] of mapping.frames.entries()) {
      const ours = valueAt(physmap.p2m, i);
      page.set(ours.subarray(0, Math.min(page.length, words - i * page.length)));
    }
  } finally {
    mapping.unmap();
  }
}

/** The mfn of a pfn that the stream names: it must be there, of the right type if it plays a role, and Xen must agree. */
function ownFrame(
  state: X86PvRestoreState,
  pfn: number,
  what: string,
  role: FrameRole | null = null,
  code: GuestErrorCode = 'BAD_FRAME',
): number {
  const { physmap, pfnTypes, layout } = state;
  const { maxPfn } = physmap;
  if (pfn > maxPfn) {
    throw new GuestError(code, `the ${what} is pfn ${pfn}, which is not there`, { pfn, maxPfn });
  }
  const type = valueAt(pfnTypes, pfn);
  if (role !== null && !fitsRole(type, role, layout)) {
    throw new GuestError('BAD_PAGE_TYPE', `the ${what}, pfn ${pfn}, is a page of another type`, {
      pfn,
      role,
      pageType: type,
    });
  }
  const mfn = physmap.pfnToMfn(pfn);
  if (mfn === INVALID_FRAME || physmap.mfnToPfn(mfn) !== pfn) {
    const message = `the ${what}, pfn ${pfn}, has no frame that Xen knows as its`;
    throw new GuestError(code, message, physmap.facts(mfn));
  }
  return mfn;
}
