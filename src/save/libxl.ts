// libxl's layer, around what is saved of a domain whose device model has a state of its own (QEMU):
//
//   libxl header  LIBXC_CONTEXT │ libxc's headers, records, CHECKPOINT │ EMULATOR_CONTEXT CHECKPOINT_END │ libxc … CHECKPOINT │ …
//                                                        or: libxc END │ EMULATOR_CONTEXT END   (plain)
//
// Other domains are saved as a bare libxc stream; nothing here is called for them.

import { EmulatorId, LibxlRecordType, encodeEmulatorContext, encodeLibxlHeader } from '../stream/libxl.js';
import { encodeRecord } from '../stream/writer.js';
import type { SaveContext } from './context.js';
import { SaveError } from './error.js';

/** What precedes libxc's headers. */
export function libxlOpening(): Uint8Array[] {
  return [encodeLibxlHeader(), encodeRecord(LibxlRecordType.LIBXC_CONTEXT)];
}

/** Behind libxc's CHECKPOINT. */
export async function endLibxlCheckpoint(context: SaveContext, state: Uint8Array): Promise<void> {
  await writeEmulatorContext(context, state);
  await context.writeRecord(LibxlRecordType.CHECKPOINT_END);
}

/** Behind libxc's END. A plain save's domain is suspended; of a checkpointed one the last checkpoint has said it all. */
export async function endLibxlStream(context: SaveContext): Promise<void> {
  if (context.streamType === 'plain') await writeEmulatorContext(context, await takeEmulatorState(context));
  await context.writeRecord(LibxlRecordType.END);
}

/** The device model's state. The domain is suspended. @throws SaveError EMPTY_CONTEXT */
export async function takeEmulatorState(context: SaveContext): Promise<Uint8Array> {
  const state = (await context.domain.emulatorContext?.()) ?? new Uint8Array(0);
  if (state.length === 0) {
    const { epoch } = context;
    throw new SaveError('EMPTY_CONTEXT', 'the device model says that it has no state', { epoch });
  }
  return state;
}

async function writeEmulatorContext(context: SaveContext, state: Uint8Array): Promise<void> {
  const emulator = { emulatorId: EmulatorId.QEMU_UPSTREAM, index: 0, context: state };
  await context.writeRecord(LibxlRecordType.EMULATOR_CONTEXT, encodeEmulatorContext(emulator));
}
