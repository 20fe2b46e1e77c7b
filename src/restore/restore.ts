// Restoring a domain (libxc's restore()). The first checkpoint is applied as it comes; from then on the records of
// the open checkpoint are kept, and applied when it is whole and acknowledged:
//
//   read ─▶ admit ─┬─ first checkpoint: apply ──────────────┐
//                  └─ later: buffer ── CHECKPOINT ─ acknowledge ─ apply all ─▶ committed, next
//
// Where the stream is libxl's, the device model's state follows libxc's CHECKPOINT, and CHECKPOINT_END is what makes
// the checkpoint whole; libxl's END is the end.
//
//   stream broken, bad bytes, buffer full, channel lost:
//     before the first checkpoint is whole    fail
//     after it                                drop what is buffered, complete the domain, fail over
//
// A domain may try whether it can be started from a checkpoint: the first one before it is acknowledged, the others when
// they are applied. One that cannot be is told while the primary lives, and the domain is as of the one before.
//
// In COLO the domain is completed after each checkpoint and runs until the next one (see colo.ts).

import { asError, RomulusError } from '../errors.js';
import type { RestoreEndpoints, RestoreOps, StreamType } from '../guest/ops.js';
import { restoreOpsFor } from '../guest/tables.js';
import type { TargetDomain } from '../hypervisor/port.js';
import type { RecordSource } from '../stream/flow.js';
import { RecordType, recordTypeName } from '../stream/format.js';
import type { StreamRecord } from '../stream/record.js';
import { admit } from './admit.js';
import { processRecord } from './apply.js';
import type { RestoreCallbacks } from './callbacks.js';
import { type ColoRestoreOptions, ColoSecondary } from './colo.js';
import { RestoreContext } from './context.js';
import { RestoreError } from './error.js';

export interface RestoreOptions {
  /** Created, empty, not started; it is not started here either, but by a callback in COLO. */
  readonly domain: TargetDomain;
  readonly source: RecordSource;
  readonly streamType: StreamType;
  readonly callbacks: RestoreCallbacks;
  /** COLO only, and needed there. */
  readonly colo?: ColoRestoreOptions;
  /** The most that the records of an open checkpoint may take. Default: 256 MiB. */
  readonly bufferLimitBytes?: number;
  /** Xenstore's and the console's event channels, where there are any; their frames come back in it. */
  readonly endpoints?: RestoreEndpoints;
  /** Milliseconds, monotonic. Default: performance.now. */
  readonly clock?: () => number;
  /** Default: the table of the domain's type. */
  readonly ops?: RestoreOps;
}

/**
 * Either way the domain can be started: it equals the last checkpoint. In COLO it has been: after 'failover' it runs,
 * after 'complete' it is suspended, both in its own state, in which the last checkpoint is one that it went through.
 */
export type RestoreOutcome =
  | {
      /** END has come. */
      readonly kind: 'complete';
      /** Checkpoints that were applied; 0 for a plain stream. */
      readonly epochs: number;
    }
  | {
      /** The stream broke off after a checkpoint. */
      readonly kind: 'failover';
      /** The checkpoint that the domain equals: the last one that was applied, or that it could be started from. */
      readonly epoch: number;
      /** Why the open checkpoint was dropped, where it did not simply end. */
      readonly cause?: Error;
    };

export const DEFAULT_BUFFER_LIMIT_BYTES = 256 * 1024 * 1024;

/**
 * Restores the stream into the domain. If it fails, the domain is in no state to run (in COLO: may not be).
 * @throws RestoreError, StreamError, GuestError, HypervisorError, and whatever a callback fails with
 */
export async function restoreDomain(options: RestoreOptions): Promise<RestoreOutcome> {
  const { domain, source, streamType, callbacks } = options;
  const bufferLimitBytes = options.bufferLimitBytes ?? DEFAULT_BUFFER_LIMIT_BYTES;
  if (streamType === 'colo' && options.colo === undefined) {
    throw new RestoreError('BAD_OPTIONS', 'a COLO restore needs the option colo', { streamType });
  }
  if (!(bufferLimitBytes > 0)) {
    throw new RestoreError('BAD_OPTIONS', `bufferLimitBytes must be positive, not ${bufferLimitBytes}`, {
      bufferLimitBytes,
    });
  }
  const domainInfo = await domain.info();
  const ops = options.ops ?? restoreOpsFor(domainInfo.type);
  const colo =
    streamType === 'colo' && options.colo !== undefined
      ? new ColoSecondary(options.colo, domainInfo.p2mSize)
      : null;
  const context = new RestoreContext({
    domain,
    domainInfo,
    streamType,
    headers: await source.headers(),
    callbacks,
    colo,
    ops,
    endpoints: options.endpoints ?? noEndpoints(),
    bufferLimitBytes,
    clock: options.clock ?? (() => performance.now()),
  });

  let outcome: RestoreOutcome | null = null;
  let failure: Error | null = null;
  try {
    outcome = await restore(context, source);
  } catch (error) {
    if (error instanceof Unusable) outcome = { kind: 'failover', epoch: error.epoch, cause: error.cause };
    else failure = asError(error);
  }
  const suppressed = await cleanup(context);
  if (outcome !== null && suppressed.length === 0) return outcome;
  throw conclusion(failure, suppressed);
}

async function restore(context: RestoreContext, source: RecordSource): Promise<RestoreOutcome> {
  await context.ops.setup(context);
  for (;;) {
    const arrival = await receive(context, source);
    switch (arrival.kind) {
      case 'kept':
        break;
      case 'broken':
        return failover(context, arrival.cause);
      case 'record':
        if ((await applyRecord(context, source, arrival.record)) === 'BROKEN_CHANNEL')
          return failover(context, null);
        break;
      case 'checkpoint':
        if ((await handleCheckpoint(context, source)) === 'BROKEN_CHANNEL')
          return failover(context, context.colo?.backFailure ?? null);
        break;
      case 'end':
        if (context.colo === null) await context.completeDomain();
        return { kind: 'complete', epochs: context.epoch };
    }
  }
}

type Arrival =
  /** To be applied now. */
  | { readonly kind: 'record'; readonly record: StreamRecord }
  /** Buffered, or skipped. */
  | { readonly kind: 'kept' }
  /** The open checkpoint is whole, or the stream is. */
  | { readonly kind: 'checkpoint' | 'end' }
  | { readonly kind: 'broken'; readonly cause: Error | null };

const KEPT: Arrival = { kind: 'kept' };

/** Takes the next record from the source and judges it. Nothing here touches the domain. */
async function receive(context: RestoreContext, source: RecordSource): Promise<Arrival> {
  try {
    const record = await source.read();
    if (record === null) return { kind: 'broken', cause: null };
    const admission = admit(context, record);
    if (admission === 'skip') return KEPT;
    if (admission !== 'take') return { kind: admission };
    if (!context.bufferAllRecords) return { kind: 'record', record };
    context.bufferedRecords.push(record);
    return KEPT;
  } catch (error) {
    return { kind: 'broken', cause: typed(error) };
  }
}

/** Page data is done with once it is applied; of other records the guest's ops may keep views (HVM_CONTEXT). */
async function applyRecord(
  context: RestoreContext,
  source: RecordSource,
  record: StreamRecord,
): Promise<'processed' | 'BROKEN_CHANNEL'> {
  const result = needProcessed(record, await processRecord(context, record));
  if (record.layer !== 'libxl' && record.type === RecordType.PAGE_DATA) source.release?.(record);
  return result;
}

/** The open checkpoint is whole: acknowledged by the callback, then applied. */
async function handleCheckpoint(
  context: RestoreContext,
  source: RecordSource,
): Promise<'processed' | 'BROKEN_CHANNEL'> {
  const { epoch, bufferedRecords, callbacks, colo } = context;
  // A version 2 stream whose first checkpoint had no memory.
  if (!context.seenStaticDataEnd) await context.handleStaticDataEnd();
  const first = !context.bufferAllRecords;
  if (first) await context.completeCheckpoint();
  if ((await callbacks.checkpoint(epoch)) === 'failover') return 'BROKEN_CHANNEL';

  const bufferedBytes = bufferedRecords.bytes;
  let result: 'processed' | 'BROKEN_CHANNEL' = 'processed';
  const count = bufferedRecords.count;
  for (let i = 0; i < count; i++) {
    const record = bufferedRecords.take(i);
    if (record === undefined) continue;
    // Acknowledged is acknowledged: the rest of it is here and is applied, channel or no channel.
    if ((await applyRecord(context, source, record)) === 'BROKEN_CHANNEL') {
      result = 'BROKEN_CHANNEL';
    }
  }
  bufferedRecords.clear();
  await colo?.complete(context);
  if (!first) await tryCheckpoint(context, epoch);
  context.bufferAllRecords = true;
  context.epoch = epoch + 1;
  const { records, pages, applyMs } = context;
  context.records = 0;
  context.pages = 0;
  context.applyMs = 0;
  callbacks.applied?.({ epoch, records, bufferedBytes, pages, applySeconds: applyMs / 1000 });
  return colo === null || result === 'BROKEN_CHANNEL' ? result : colo.run(context, epoch);
}

/** @throws Unusable if the domain could not be started from this epoch, but from one before it */
async function tryCheckpoint(context: RestoreContext, epoch: number): Promise<void> {
  try {
    await context.completeCheckpoint();
  } catch (error) {
    const back = context.domain.checkpointsBack ?? 0;
    if (back === 0 || back > epoch) throw error;
    throw new Unusable(epoch - back, asError(error));
  }
}

/** The domain is as of an earlier epoch, and the stream cannot go on from there. */
class Unusable extends Error {
  constructor(
    readonly epoch: number,
    override readonly cause: Error,
  ) {
    super(cause.message);
  }
}

function needProcessed(
  record: StreamRecord,
  result: 'processed' | 'RECORD_NOT_PROCESSED' | 'BROKEN_CHANNEL',
): 'processed' | 'BROKEN_CHANNEL' {
  if (result !== 'RECORD_NOT_PROCESSED') return result;
  // admit() has let it through, so its guest type had promised to know it.
  throw new RestoreError('UNKNOWN_RECORD', `${recordTypeName(record.type)} record was not processed`, {
    type: record.type,
    offset: record.offset,
  });
}

async function failover(context: RestoreContext, cause: Error | null): Promise<RestoreOutcome> {
  if (!context.bufferAllRecords) {
    throw (
      cause ??
      new RestoreError('NO_CONSISTENT_CHECKPOINT', 'the stream broke before it had brought a whole domain', {
        streamType: context.streamType,
      })
    );
  }
  context.bufferedRecords.clear();
  if (context.colo === null) await context.completeDomain();
  else await context.colo.failover(context);
  const epoch = context.epoch - 1;
  return cause === null ? { kind: 'failover', epoch } : { kind: 'failover', epoch, cause };
}

/** Our errors as they are; what a source fails with otherwise (a read error of the disk) is given a code. */
function typed(error: unknown): Error {
  if (error instanceof RomulusError) return error;
  const cause = asError(error);
  return new RestoreError('SOURCE_FAILED', `the stream cannot be read: ${cause.message}`, {}, { cause });
}

/** Once, whatever happened. Returns what failed. */
async function cleanup(context: RestoreContext): Promise<Error[]> {
  const errors: Error[] = [];
  try {
    await context.colo?.cleanup();
  } catch (error) {
    errors.push(asError(error));
  }
  try {
    await context.ops.cleanup(context);
  } catch (error) {
    errors.push(asError(error));
  }
  return errors;
}

/** The one error that tells of all of them. */
function conclusion(failure: Error | null, suppressed: readonly Error[]): Error {
  if (failure !== null && suppressed.length === 0) return failure;
  if (failure instanceof RomulusError) {
    failure.suppressed.push(...suppressed);
    return failure;
  }
  const message =
    failure === null ? 'restored, but the clean-up failed' : `${failure.message} (and the clean-up failed)`;
  const error = new RestoreError('CLEANUP_FAILED', message, {}, { cause: failure ?? suppressed[0] });
  error.suppressed.push(...(failure === null ? suppressed.slice(1) : suppressed));
  return error;
}

function noEndpoints(): RestoreEndpoints {
  return {
    xenstoreGfn: 0,
    consoleGfn: 0,
    xenstoreEvtchn: 0,
    consoleEvtchn: 0,
    xenstoreDomid: 0,
    consoleDomid: 0,
  };
}
