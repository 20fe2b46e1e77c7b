// x86 PV, saving: libxc's save_ops_x86_pv. The guest knows machine frames; all of them become pfns in the stream.
//
//   setup             what the domain is; m2p, shared info and p2m mapped
//   static data       X86_PV_INFO, CPU policy
//   start of stream   X86_PV_P2M_FRAMES
//   end of checkpoint TSC, SHARED_INFO, the vCPUs that are online

import { valueAt } from '../../stream/bounds.js';
import { INVALID_FRAME, PAGE_SIZE, RecordType } from '../../stream/format.js';
import { viewOf } from '../../stream/octets.js';
import { encodePvInfo, encodePvP2mFrames, encodePvVcpuHeader } from '../../stream/records/pv.js';
import { GuestError } from '../error.js';
import type { NormaliseResult, SaveOps, SaveOpsContext } from '../ops.js';
import { writeX86CpuPolicyRecords, writeX86TscInfo } from '../x86.js';
import { pvLayout } from './layout.js';
import { mapP2m, readGeneration } from './p2m.js';
import { ALL_GOOD, entryFrame, isSuperpage, normaliseTable, tableLevel } from './page-table.js';
import { X86PvSaveState, needPv, saveStateOf } from './state.js';
import { translateVcpu } from './vcpu.js';

export const saveOpsX86Pv: SaveOps = {
  pfnToGfn: (context, pfn) => saveStateOf(context).physmap.pfnToMfn(pfn),

  normalisePage,

  async setup(context) {
    const pv = needPv(context.domain, 'save');
    const { guestWidth, maxVcpuId, sharedInfoFrame } = await pv.info();
    const state = new X86PvSaveState(pv, pvLayout(guestWidth), maxVcpuId);
    context.guestState = state;

    const table = await pv.mapM2p();
    state.mappings.push(table);
    state.physmap.m2p = table.m2p;
    state.physmap.maxMfn = table.maxMfn;
    state.compatM2pMfn0 = table.compatM2pMfn0;

    const shared = await pv.mapFrames(Uint32Array.of(sharedInfoFrame), 1);
    state.mappings.push(shared);
    state.sharedInfo = viewOf(valueAt(shared.frames, 0));

    await mapP2m(state);
    context.p2mSize = state.physmap.maxPfn + 1;
  },

  async staticData(context) {
    const { width, levels } = saveStateOf(context).layout;
    await context.writeRecord(RecordType.X86_PV_INFO, encodePvInfo({ guestWidth: width, levels }));
    await writeX86CpuPolicyRecords(context);
  },

  startOfStream: writeP2mFrames,

  startOfCheckpoint: () => Promise.resolve(),

  async endOfCheckpoint(context) {
    const { sharedInfo, maxVcpuId, pv } = saveStateOf(context);
    await writeX86TscInfo(context);
    await context.writeRecord(
      RecordType.SHARED_INFO,
      new Uint8Array(sharedInfo.buffer, sharedInfo.byteOffset, PAGE_SIZE),
    );
    for (let vcpu = 0; vcpu <= maxVcpuId; vcpu++) {
      if (await pv.vcpuOnline(vcpu)) await writeVcpu(context, vcpu);
    }
  },

  checkVmState,

  cleanup(context) {
    const { guestState } = context;
    context.guestState = null;
    if (guestState instanceof X86PvSaveState) {
      guestState.p2mMapping?.unmap();
      for (const mapping of guestState.mappings) mapping.unmap();
    }
    return Promise.resolve();
  },
};

function normalisePage(
  context: SaveOpsContext,
  type: number,
  slab: Uint8Array,
  offset: number,
): NormaliseResult {
  const level = tableLevel(type);
  if (level === 0) return 'done';
  const state = saveStateOf(context);
  const { physmap, compatM2pMfn0 } = state;
  const { levels } = state.layout;
  if (level > levels) {
    throw new GuestError('BAD_PAGE_TYPE', `a guest of ${levels} levels has an L${level} table`, {
      level,
      levels,
    });
  }
  const view = state.pages.over(slab);
  const at = slab.byteOffset + offset;
  const bad = normaliseTable(view, at, level, levels, physmap, compatM2pMfn0);
  if (bad === ALL_GOOD) return 'done';
  const entry = at + bad * 8;
  const facts = { level, index: bad, entry: view.getBigUint64(entry, true) };
  if (isSuperpage(view, entry, level)) {
    throw new GuestError('SUPERPAGE', `L${level}[${bad}] maps a superpage, which cannot be migrated`, facts);
  }
  // Half an update, a page that changes its type, a foreign frame mapped for a moment: it may pass.
  if (!context.suspended) return 'again';
  const mfn = entryFrame(view, entry);
  throw new GuestError('BAD_FRAME', `L${level}[${bad}] maps a frame that is not the guest's`, {
    ...facts,
    ...physmap.facts(mfn),
  });
}

async function writeP2mFrames(context: SaveOpsContext): Promise<void> {
  const { physmap, p2mPfns } = saveStateOf(context);
  await context.writeRecord(
    RecordType.X86_PV_P2M_FRAMES,
    encodePvP2mFrames({ startPfn: 0, endPfn: physmap.maxPfn, frames: p2mPfns }),
  );
}

/**
 * A guest with a linear p2m counts the moves of its pages. While the save is live, pages have been sent by a p2m that
 * is no more: it is given up, as libxc does. Between checkpoints (which libxc does not look at) the p2m is found
 * again, once the guest is suspended and cannot be in the middle of a move, and before any page of the checkpoint is
 * read.
 */
async function checkVmState(context: SaveOpsContext): Promise<void> {
  const state = saveStateOf(context);
  const { p2mGeneration: before } = state;
  if (before === null || (!context.live && !context.suspended)) return;
  const now = readGeneration(state);
  if (now === before) return;
  if (context.live) {
    throw new GuestError('P2M_CHANGED', 'the guest moved its p2m during the live part of the save', {
      before,
      now,
    });
  }
  await mapP2m(state);
  const maxPfn = state.physmap.maxPfn;
  if (maxPfn + 1 !== context.p2mSize) {
    throw new GuestError('P2M_CHANGED', `the guest had ${context.p2mSize} pfns and has ${maxPfn + 1} now`, {
      before: context.p2mSize,
      now: maxPfn + 1,
    });
  }
  await writeP2mFrames(context);
}

async function writeVcpu(context: SaveOpsContext, vcpu: number): Promise<void> {
  const { pv, layout, physmap } = saveStateOf(context);
  const header = encodePvVcpuHeader(vcpu);
  const basic = await pv.vcpuContext(vcpu);
  translateVcpu(basic, layout, vcpu, 'to pfns', (mfn, role) => {
    const pfn = physmap.ownPfn(mfn);
    if (pfn !== INVALID_FRAME) return pfn;
    throw new GuestError('BAD_FRAME', `the ${role} of vCPU ${vcpu} is not a frame of the guest`, {
      vcpu,
      role,
      ...physmap.facts(mfn),
    });
  });
  await context.writeRecord(RecordType.X86_PV_VCPU_BASIC, header, basic);

  const others = [
    [RecordType.X86_PV_VCPU_EXTENDED, await pv.vcpuExtended(vcpu)],
    [RecordType.X86_PV_VCPU_XSAVE, await pv.vcpuXsave(vcpu)],
    [RecordType.X86_PV_VCPU_MSRS, await pv.vcpuMsrs(vcpu)],
  ] as const;
  for (const [type, blob] of others) {
    // No state of that kind: no record.
    if (blob.length > 0) await context.writeRecord(type, header, blob);
  }
}
