// x86 HVM, restoring: libxc's restore_ops_x86_hvm. Parameters are set as they come; the context is kept and set when
// the stream is complete, so that the parameters are there first whatever the order on the wire.

import { HypervisorError, type HvmParam } from '../../hypervisor/port.js';
import { StreamError } from '../../stream/error.js';
import { DomainType, RecordType } from '../../stream/format.js';
import type { StreamRecord } from '../../stream/record.js';
import { decodeHvmParams } from '../../stream/records/hvm.js';
import { GuestError } from '../error.js';
import type { RestoreOps, RestoreOpsContext } from '../ops.js';
import { X86_RECORD_TYPES, checkFits, processX86Record, x86StaticDataComplete } from '../x86.js';

/** The parameters that a restore must know by name. Source: Xen's public header hvm/params.h. */
export const HvmParamIndex = {
  STORE_PFN: 1n,
  STORE_EVTCHN: 2n,
  PAE_ENABLED: 4n,
  IOREQ_PFN: 5n,
  BUFIOREQ_PFN: 6n,
  CONSOLE_PFN: 17n,
  CONSOLE_EVTCHN: 18n,
} as const;

/** Those whose value is a frame of the domain that a restore uses itself. */
const FRAMES: ReadonlySet<bigint> = new Set([
  HvmParamIndex.STORE_PFN,
  HvmParamIndex.IOREQ_PFN,
  HvmParamIndex.BUFIOREQ_PFN,
  HvmParamIndex.CONSOLE_PFN,
]);

export const restoreOpsX86Hvm: RestoreOps = {
  recordTypes: new Set([RecordType.HVM_CONTEXT, RecordType.HVM_PARAMS, ...X86_RECORD_TYPES]),

  pfnToGfn: (_context, pfn) => pfn,

  // libxc takes any pfn here and fails when it populates it: too late for what was acknowledged.
  pfnIsValid: (context, pfn) => pfn < context.p2mSize,

  setGfn() {
    // The same by definition.
  },

  setPageType() {
    // The guest's page tables are its own business.
  },

  // Nothing in a page is specific to the host.
  localisePage: () => undefined,

  setup(context) {
    return new Promise((resolve) => {
      checkFits(context, DomainType.X86_HVM);
      resolve();
    });
  },

  checkRecord(context, record) {
    if (record.type === RecordType.HVM_PARAMS) {
      for (const param of decodeHvmParams(record)) checkFrame(context, record, param);
    }
    if (record.type === RecordType.CHECKPOINT) needContext(context);
  },

  async processRecord(context, record) {
    switch (record.type) {
      case RecordType.HVM_CONTEXT:
        // A copy: the record may be a small part of a large chunk.
        context.hvmContext = record.body.slice();
        return 'processed';
      case RecordType.HVM_PARAMS:
        for (const param of decodeHvmParams(record)) await setParam(context, param);
        return 'processed';
      default:
        return processX86Record(context, record);
    }
  },

  staticDataComplete: x86StaticDataComplete,

  async streamComplete(context) {
    const { domain, endpoints } = context;
    needContext(context);
    if (endpoints.xenstoreEvtchn !== 0) {
      const value = BigInt(endpoints.xenstoreEvtchn);
      await domain.setHvmParam({ index: HvmParamIndex.STORE_EVTCHN, value });
    }
    if (endpoints.consoleEvtchn !== 0) {
      const value = BigInt(endpoints.consoleEvtchn);
      await domain.setHvmParam({ index: HvmParamIndex.CONSOLE_EVTCHN, value });
    }
    if (context.hvmContext !== null) await domain.setHvmContext(context.hvmContext);
  },

  // What was set stays: another stream may go on in the domain.
  cleanup: () => Promise.resolve(),
};

function needContext(context: RestoreOpsContext): void {
  if (context.hvmContext === null && context.emulatorContext === null) {
    const message = 'the stream has brought no HVM context, and no state of a device model';
    throw new GuestError('INCOMPLETE', message);
  }
}

function checkFrame(context: RestoreOpsContext, record: StreamRecord, { index, value }: HvmParam): void {
  if (FRAMES.has(index) && value >= BigInt(context.p2mSize)) {
    const { offset, type } = record;
    const message = `HVM parameter ${index.toString()} names a frame that is not there`;
    const facts = { offset, type, index, pfn: value, p2mSize: context.p2mSize };
    throw new StreamError('PFN_OUT_OF_RANGE', message, facts);
  }
}

async function setParam(context: RestoreOpsContext, param: HvmParam): Promise<void> {
  const { index, value } = param;
  switch (index) {
    case HvmParamIndex.CONSOLE_PFN:
      context.endpoints.consoleGfn = Number(value);
      break;
    case HvmParamIndex.STORE_PFN:
      context.endpoints.xenstoreGfn = Number(value);
      await clearPage(context, Number(value));
      break;
    case HvmParamIndex.IOREQ_PFN:
    case HvmParamIndex.BUFIOREQ_PFN:
      await clearPage(context, Number(value));
      break;
    case HvmParamIndex.PAE_ENABLED:
      // Carried CPUID settings once, long before the policy records; old streams still have it.
      return;
  }
  await context.domain.setHvmParam(param);
}

/** Rings between the domain and its servants begin empty. */
async function clearPage(context: RestoreOpsContext, gfn: number): Promise<void> {
  await context.beforeWrite(Uint32Array.of(gfn), 1);
  try {
    await context.domain.clearPage(gfn);
  } catch (error) {
    // No memory there: nothing to clear.
    if (!(error instanceof HypervisorError) || error.code !== 'NOT_POPULATED') throw error;
  }
}
