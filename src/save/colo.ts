// COLO, the saver's side. The secondary runs too, and what it has written since the last checkpoint is its own: those
// pages must go to it again, so it names them, and they join what is dirty here.
//
//   primary     [ suspended: its dirty pages ∪ the secondary's ─ copy ─ send ─ checkpoint ] postcopy … waitCheckpoint
//                                                 ▲                  │
//                       CHECKPOINT_DIRTY_PFN_LIST │ back             ▼ forward
//   secondary                         [ suspended: names its pages ─ applies ─ completes ] postcopy … waitCheckpoint
//
// Unlike in Remus the domain stands until the secondary has applied the checkpoint: both go on from the same state.

import { romulusError } from '../errors.js';
import type { Bitmap } from '../hypervisor/bitmap.js';
import { valueAt } from '../stream/bounds.js';
import type { RecordSource } from '../stream/flow.js';
import { RecordType, recordTypeName } from '../stream/format.js';
import { StreamError } from '../stream/error.js';
import type { StreamRecord } from '../stream/record.js';
import { decodeDirtyPfnList } from '../stream/records/dirty-pfns.js';
import { SaveError } from './error.js';

/** The back channel: records without headers, one list for each checkpoint but the first. */
export type BackSource = Pick<RecordSource, 'read' | 'release'>;

/**
 * Waits for the secondary's list and adds it to the dirty bitmap (libxc's colo_merge_secondary_dirty_bitmap).
 * @throws StreamError BAD_RECORD, PFN_OUT_OF_RANGE; SaveError BACK_CHANNEL_BROKEN, UNEXPECTED_RECORD
 */
export async function mergeSecondaryDirtyPages(
  back: BackSource,
  dirtyBitmap: Bitmap,
  epoch: number,
): Promise<void> {
  const p2mSize = dirtyBitmap.size;
  const record = await readBack(back, epoch);
  if (record.type !== RecordType.CHECKPOINT_DIRTY_PFN_LIST) {
    const message = `${recordTypeName(record.type)} record on the back channel, which carries lists of dirty pfns`;
    const facts = { type: record.type, offset: record.offset, length: record.body.length, epoch };
    throw new SaveError('UNEXPECTED_RECORD', message, facts);
  }
  const pfns = decodeDirtyPfnList(record);
  for (let i = 0; i < pfns.length; i++) {
    const pfn = valueAt(pfns, i);
    if (pfn >= p2mSize) {
      const facts = { offset: record.offset, type: record.type, index: i, pfn, p2mSize };
      const message = `the secondary names the pfn ${pfn}, which is not there`;
      throw new StreamError('PFN_OUT_OF_RANGE', message, facts);
    }
    dirtyBitmap.set(pfn);
  }
  back.release?.(record);
}

async function readBack(back: BackSource, epoch: number): Promise<StreamRecord> {
  let record: StreamRecord | null;
  try {
    record = await back.read();
  } catch (error) {
    throw romulusError(error, (cause) => broken(epoch, `cannot be read: ${cause.message}`, { cause }));
  }
  if (record === null) throw broken(epoch, 'ended before the list of the secondary’s dirty pages');
  return record;
}

function broken(epoch: number, what: string, options?: ErrorOptions): SaveError {
  return new SaveError('BACK_CHANNEL_BROKEN', `the back channel ${what}`, { epoch }, options);
}
