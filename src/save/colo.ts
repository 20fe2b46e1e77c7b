// COLO, the saver's side. The secondary runs too, and what it has written since the last checkpoint is its own: those
// pages must go to it again, so it names them, and they join what is dirty here.
//
//   primary     [ suspended: its dirty pages ∪ the secondary's ─ copy ─ send ─ checkpoint ] postcopy … waitCheckpoint
//                                                 ▲                  │
//                       CHECKPOINT_DIRTY_PFN_LIST │ back             ▼ forward
//   secondary                         [ suspended: names its pages ─ applies ─ completes ] postcopy … waitCheckpoint
//
// Unlike in Remus the domain stands until the secondary has applied the checkpoint: both go on from the same state.

import { asError, RomulusError } from '../errors.js';
import type { StreamType } from '../guest/ops.js';
import type { RecordSource } from '../stream/flow.js';
import { RecordType, recordTypeName } from '../stream/format.js';
import { StreamError } from '../stream/error.js';
import type { StreamRecord } from '../stream/record.js';
import { decodeDirtyPfnList } from '../stream/records/dirty-pfns.js';
import type { CheckpointDecision, SaveCallbacks } from './callbacks.js';
import type { SaveContext } from './context.js';
import { SaveError } from './error.js';

/** The back channel: records without headers, one list for each checkpoint but the first. */
export type BackSource = Pick<RecordSource, 'read' | 'release'>;

export interface ColoSave {
  readonly back: BackSource;
  waitCheckpoint(): Promise<CheckpointDecision>;
}

/**
 * What COLO needs besides what every save needs; null for the other stream types.
 * @throws SaveError BAD_OPTIONS
 */
export function coloSave(
  streamType: StreamType,
  back: BackSource | undefined,
  callbacks: SaveCallbacks,
): ColoSave | null {
  if (streamType !== 'colo') return null;
  if (back === undefined || callbacks.waitCheckpoint === undefined) {
    throw new SaveError('BAD_OPTIONS', 'a COLO save needs a back channel and the callback waitCheckpoint', {
      back: back !== undefined,
      waitCheckpoint: callbacks.waitCheckpoint !== undefined,
    });
  }
  return { back, waitCheckpoint: callbacks.waitCheckpoint.bind(callbacks) };
}

/**
 * Waits for the secondary's list and adds it to the dirty bitmap (libxc's colo_merge_secondary_dirty_bitmap).
 * @throws StreamError BAD_RECORD, PFN_OUT_OF_RANGE; SaveError BACK_CHANNEL_BROKEN, UNEXPECTED_RECORD
 */
export async function mergeSecondaryDirtyPages(context: SaveContext, back: BackSource): Promise<void> {
  const { dirtyBitmap, p2mSize, epoch } = context;
  const record = await readBack(back, epoch);
  if (record.type !== RecordType.CHECKPOINT_DIRTY_PFN_LIST) {
    throw new SaveError(
      'UNEXPECTED_RECORD',
      `${recordTypeName(record.type)} record on the back channel, which carries lists of dirty pfns`,
      { type: record.type, offset: record.offset, length: record.body.length, epoch },
    );
  }
  const pfns = decodeDirtyPfnList(record);
  for (let i = 0; i < pfns.length; i++) {
    const pfn = pfns[i] ?? 0;
    if (pfn >= p2mSize) {
      throw new StreamError('PFN_OUT_OF_RANGE', `the secondary names the pfn ${pfn}, which is not there`, {
        offset: record.offset,
        type: record.type,
        index: i,
        pfn,
        p2mSize,
      });
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
    if (error instanceof RomulusError) throw error;
    const cause = asError(error);
    throw broken(epoch, `cannot be read: ${cause.message}`, { cause });
  }
  if (record === null) throw broken(epoch, 'ended before the list of the secondary’s dirty pages');
  return record;
}

function broken(epoch: number, what: string, options?: ErrorOptions): SaveError {
  return new SaveError('BACK_CHANNEL_BROKEN', `the back channel ${what}`, { epoch }, options);
}
