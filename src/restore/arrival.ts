// The next record of the source, judged: what becomes of it is known before anything has touched the domain.

import { romulusError } from '../errors.js';
import type { RecordSource } from '../stream/flow.js';
import type { StreamRecord } from '../stream/record.js';
import { admit } from './admit.js';
import type { RestoreContext } from './context.js';
import { RestoreError } from './error.js';

/** libxc's BROKEN_CHANNEL, with the cause where the stream did not simply end: bad bytes, a full buffer. */
export interface Broken {
  readonly kind: 'broken';
  readonly cause: Error | null;
}

export type Arrival =
  /** To be applied now. */
  | { readonly kind: 'record'; readonly record: StreamRecord }
  /** Buffered, or skipped. */
  | { readonly kind: 'kept' }
  /** The open checkpoint is whole, or the stream is. */
  | { readonly kind: 'checkpoint' | 'end' }
  | Broken;

const KEPT: Arrival = { kind: 'kept' };
export const BROKEN: Broken = { kind: 'broken', cause: null };

export async function nextArrival(context: RestoreContext, source: RecordSource): Promise<Arrival> {
  try {
    const record = await source.read();
    if (record === null) return BROKEN;
    const admission = admit(context, record);
    if (admission === 'skip') return KEPT;
    if (admission !== 'take') return { kind: admission };
    if (!context.bufferAllRecords) return { kind: 'record', record };
    context.bufferedRecords.push(record);
    return KEPT;
  } catch (error) {
    return { kind: 'broken', cause: romulusError(error, sourceFailed) };
  }
}

function sourceFailed(cause: Error): RestoreError {
  return new RestoreError('SOURCE_FAILED', `the stream cannot be read: ${cause.message}`, {}, { cause });
}
