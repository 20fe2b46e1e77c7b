// x86 HVM, saving: libxc's save_ops_x86_hvm. The guest is auto-translated: pfn and gfn are the same, and pages hold
// nothing that is specific to the host.

import { RecordType } from '../../stream/format.js';
import { encodeHvmParams } from '../../stream/records/hvm.js';
import type { SaveOps, SaveOpsContext } from '../ops.js';
import { writeX86CpuPolicyRecords, writeX86TscInfo } from '../x86.js';

/** Saves under way whose device model was told to log dirty pages, and is to be told to stop. */
const deviceLogDirty = new WeakSet<SaveOpsContext>();

export const saveOpsX86Hvm: SaveOps = {
  pfnToGfn: (_context, pfn) => pfn,

  normalisePage: () => 'done',

  async setup(context) {
    context.p2mSize = context.domainInfo.p2mSize;
    await context.switchDeviceLogDirty(true);
    deviceLogDirty.add(context);
  },

  staticData: writeX86CpuPolicyRecords,

  startOfStream: nothing,

  startOfCheckpoint: nothing,

  async endOfCheckpoint(context) {
    await writeX86TscInfo(context);
    const { domain } = context;
    const hvmContext = await domain.hvmContext();
    // What the device model's own state covers is not said twice.
    if (hvmContext.length > 0 || domain.emulatorContext === undefined) {
      await context.writeRecord(RecordType.HVM_CONTEXT, hvmContext);
    }
    const params = (await domain.hvmParams()).filter(({ value }) => value !== 0n);
    if (params.length > 0) await context.writeRecord(RecordType.HVM_PARAMS, encodeHvmParams(params));
  },

  checkVmState: nothing,

  async cleanup(context) {
    if (deviceLogDirty.delete(context)) await context.switchDeviceLogDirty(false);
  },
};

function nothing(): Promise<void> {
  return Promise.resolve();
}
