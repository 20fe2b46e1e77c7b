// x86 PV, restoring: libxc's restore_ops_x86_pv. Memory comes with page tables whose pfns become the mfns that this
// machine gave; vCPUs are kept until the stream is complete (complete.ts), since what they point to comes and changes
// until then.

import { valueAt } from '../../stream/bounds.js';
import { DomainType, PAGE_SIZE, PageType, RecordType } from '../../stream/format.js';
import type { StreamRecord } from '../../stream/record.js';
import {
  VCPU_RECORD_TYPES,
  decodePvInfo,
  decodePvP2mFrames,
  decodePvVcpu,
  decodeSharedInfo,
} from '../../stream/records/pv.js';
import { GuestError } from '../error.js';
import type { RestoreOps, RestoreOpsContext } from '../ops.js';
import { X86_RECORD_TYPES, checkFits, processX86Record, x86StaticDataComplete } from '../x86.js';
import { completeStream } from './complete.js';
import { grownP2mPfns, grownTypes } from './judge.js';
import { VCPU_INFO_BYTES, VCPU_INFO_COUNT, pvLayout, writeLong } from './layout.js';
import { ALL_GOOD, collectMissing, entryFrame, localiseTable, tableLevel } from './page-table.js';
import { Physmap } from './physmap.js';
import { X86PvRestoreState, needPv, restoreStateOf, withFrame } from './state.js';

export const restoreOpsX86Pv: RestoreOps = {
  recordTypes: new Set([
    RecordType.X86_PV_INFO,
    RecordType.X86_PV_P2M_FRAMES,
    ...VCPU_RECORD_TYPES,
    RecordType.SHARED_INFO,
    ...X86_RECORD_TYPES,
  ]),

  pfnToGfn: (context, pfn) => restoreStateOf(context).physmap.pfnToMfn(pfn),

  pfnIsValid: (context, pfn) => pfn <= restoreStateOf(context).judge.maxPfn,

  setGfn(context, pfn, gfn) {
    restoreStateOf(context).physmap.setPfnToMfn(pfn, gfn);
  },

  setPageType(context, pfn, type) {
    restoreStateOf(context).pfnTypes[pfn] = type;
  },

  localisePage,

  async setup(context) {
    checkFits(context, DomainType.X86_PV);
    const pv = needPv(context.domain, 'restore');
    const { guestWidth, maxVcpuId, sharedInfoFrame } = await pv.info();
    const state = new X86PvRestoreState(pv, pvLayout(guestWidth), maxVcpuId, sharedInfoFrame);
    context.guestState = state;
    const table = await pv.mapM2p();
    state.mappings.push(table);
    state.physmap.m2p = table.m2p;
    state.physmap.maxMfn = table.maxMfn;
  },

  checkRecord(context, record) {
    restoreStateOf(context).judge.judge(context, record);
  },

  async processRecord(context, record) {
    switch (record.type) {
      case RecordType.X86_PV_INFO:
        await handlePvInfo(context, record);
        return 'processed';
      case RecordType.X86_PV_P2M_FRAMES:
        await handleP2mFrames(context, record);
        return 'processed';
      case RecordType.X86_PV_VCPU_BASIC:
      case RecordType.X86_PV_VCPU_EXTENDED:
      case RecordType.X86_PV_VCPU_XSAVE:
      case RecordType.X86_PV_VCPU_MSRS:
        handleVcpu(context, record);
        return 'processed';
      case RecordType.SHARED_INFO:
        await handleSharedInfo(context, record);
        return 'processed';
      default:
        return processX86Record(context, record);
    }
  },

  staticDataComplete: x86StaticDataComplete,

  streamComplete: completeStream,

  cleanup(context) {
    const { guestState } = context;
    context.guestState = null;
    if (guestState instanceof X86PvRestoreState) {
      for (const mapping of guestState.mappings) mapping.unmap();
    }
    return Promise.resolve();
  },
};

/** The page tables of an admitted record: superpages and pfns beyond the guest have been refused. */
function localisePage(
  context: RestoreOpsContext,
  type: number,
  page: Uint8Array,
  offset: number,
): Promise<void> | undefined {
  const level = tableLevel(type);
  if (level === 0) return undefined;
  const state = restoreStateOf(context);
  const at = page.byteOffset + offset;
  const missing = collectMissing(state.pages.over(page), at, state.physmap, state.missing);
  if (missing === 0) {
    localise(state, level, page, at);
    return undefined;
  }
  return populateAndLocalise(context, state, level, page, at, missing);
}

async function populateAndLocalise(
  context: RestoreOpsContext,
  state: X86PvRestoreState,
  level: number,
  page: Uint8Array,
  at: number,
  missing: number,
): Promise<void> {
  await context.populatePfns(state.missing, missing, null);
  localise(state, level, page, at);
}

function localise(state: X86PvRestoreState, level: number, page: Uint8Array, at: number): void {
  const { physmap } = state;
  const view = state.pages.over(page);
  const bad = localiseTable(view, at, physmap);
  if (bad === ALL_GOOD) return;
  const entry = at + bad * 8;
  const pfn = entryFrame(view, entry);
  throw new GuestError(
    'BAD_FRAME',
    `L${level}[${bad}] maps pfn ${pfn}, whose frame Xen does not know as its`,
    {
      level,
      index: bad,
      entry: view.getBigUint64(entry, true),
      ...physmap.facts(physmap.pfnToMfn(pfn)),
    },
  );
}

async function handlePvInfo(context: RestoreOpsContext, record: StreamRecord): Promise<void> {
  const state = restoreStateOf(context);
  const { guestWidth } = decodePvInfo(record);
  if (guestWidth === state.layout.width) return;
  // A domain is made with the machine's width; we may be the first to tell Xen.
  await state.pv.setGuestWidth(guestWidth);
  const { guestWidth: domainWidth } = await state.pv.info();
  if (domainWidth !== guestWidth) {
    const message = `the guest is ${guestWidth * 8}-bit, the domain is not`;
    throw new GuestError('BAD_GUEST_WIDTH', message, { guestWidth, domainWidth });
  }
  const { m2p, maxMfn } = state.physmap;
  state.layout = pvLayout(guestWidth);
  state.physmap = new Physmap(guestWidth);
  state.physmap.m2p = m2p;
  state.physmap.maxMfn = maxMfn;
}

async function handleP2mFrames(context: RestoreOpsContext, record: StreamRecord): Promise<void> {
  const state = restoreStateOf(context);
  // Version 2 streams have no STATIC_DATA_END: it is here.
  if (!context.seenStaticDataEnd && context.formatVersion < 3) await context.handleStaticDataEnd();
  const { startPfn, endPfn, frames } = decodePvP2mFrames(record, state.layout.width);
  if (endPfn > state.physmap.maxPfn) {
    state.physmap.expand(endPfn);
    state.pfnTypes = grownTypes(state.pfnTypes, endPfn, PageType.NOTAB);
    state.p2mPfns = grownP2mPfns(state.p2mPfns, endPfn, state.layout);
  }
  state.p2mPfns.set(frames, startPfn >>> state.physmap.entryShift);
}

function handleVcpu(context: RestoreOpsContext, record: StreamRecord): void {
  const state = restoreStateOf(context);
  const { vcpuId, context: blob } = decodePvVcpu(record, state.layout.width);
  // Xen 4.6 to 4.8 wrote empty records, which say nothing.
  if (blob.length === 0) return;
  valueAt(state.vcpus, vcpuId).set(record.type, blob.slice());
}

/** What the vCPUs and the architecture own of shared info is taken over; events begin masked, with none pending. */
async function handleSharedInfo(context: RestoreOpsContext, record: StreamRecord): Promise<void> {
  const { pv, layout, sharedInfoFrame } = restoreStateOf(context);
  const { sharedInfo: at, width } = layout;
  const old = decodeSharedInfo(record);
  await withFrame(pv, sharedInfoFrame, (view) => {
    const page = new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE);
    page.set(old.subarray(0, VCPU_INFO_COUNT * VCPU_INFO_BYTES));
    page.set(old.subarray(at.arch, at.archEnd), at.arch);
    writeLong(view, at.frameListList, width, 0n);
    page.fill(0, at.eventsPending, at.eventsPending + at.eventsBytes);
    for (let i = 0; i < VCPU_INFO_COUNT; i++) {
      writeLong(view, i * VCPU_INFO_BYTES + at.pendingSelector, width, 0n);
    }
    page.fill(0xff, at.eventsMask, at.eventsMask + at.eventsBytes);
    return undefined;
  });
}
