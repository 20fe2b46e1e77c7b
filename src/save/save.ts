// Saving a domain: the order of the records, and of the callbacks around them (libxc's save()).
//
//   headers  static data  STATIC_DATA_END  start of stream
//   ┌▶ start of checkpoint   memory   end of checkpoint ─┬─ plain ──────────────────────────▶ END
//   │                                                    └─ CHECKPOINT  postcopy  ··sent··  checkpoint? ─ finish ─▶ END
//   └──────────────────────────────────────────────────────────────────────── continue ◀─┘
//   COLO:                                      CHECKPOINT  ··sent··  checkpoint?  postcopy  waitCheckpoint?
//
// Where libxc writes while the domain is suspended, here a checkpoint is captured into a slab and sent after postcopy
// has let the domain run again, unless its dirty pages do not fit the slab: memory is bounded first.
//
// A domain whose device model has a state of its own is saved in libxl's layer (libxl.ts).

import { asError, RomulusError } from '../errors.js';
import type { SaveOps, StreamType } from '../guest/ops.js';
import { saveOpsFor } from '../guest/tables.js';
import { endDirtyLog } from '../hypervisor/log-dirty.js';
import type { SourceDomain } from '../hypervisor/port.js';
import type { StreamSink } from '../stream/flow.js';
import { RecordType } from '../stream/format.js';
import { encodeHeaders } from '../stream/writer.js';
import type { CheckpointDecision, SaveCallbacks, SavedCheckpoint } from './callbacks.js';
import { type BackSource, type ColoSave, coloSave } from './colo.js';
import { SaveContext } from './context.js';
import { SaveError } from './error.js';
import {
  type PassResult,
  sendDomainMemoryCheckpointed,
  sendDomainMemoryLive,
  sendDomainMemoryNonlive,
} from './memory.js';
import { endLibxlCheckpoint, endLibxlStream, libxlOpening } from './libxl.js';
import { Outbox } from './outbox.js';
import { makeSlabs, type Slab } from './slab.js';

export interface SaveOptions {
  readonly domain: SourceDomain;
  readonly sink: StreamSink;
  readonly streamType: StreamType;
  /** Send memory while the domain runs before suspending it. */
  readonly live: boolean;
  /** After a live plain save, send everything again for comparison (VERIFY). Default: false. */
  readonly debug?: boolean;
  readonly callbacks: SaveCallbacks;
  /** COLO only, and needed there: where the secondary says which pages it has changed. */
  readonly back?: BackSource;
  /** Octets of one slab: a checkpoint that fits is sent while the domain runs. Default: 32 MiB. */
  readonly slabBytes?: number;
  /** One more than the checkpoints that may be on their way while the next is captured. Default: 2. */
  readonly slabCount?: number;
  /**
   * Instead of new ones, whose memory is free again only when the garbage collector has come to it: those of a stream
   * that is over, when neither its sink nor its domain touches them any more.
   */
  readonly slabs?: readonly Slab[];
  /** Milliseconds, monotonic. Default: performance.now. */
  readonly clock?: () => number;
  /** Default: the table of the domain's type. */
  readonly ops?: SaveOps;
}

export interface SaveResult {
  /**
   * 'complete': a plain save. 'finished': the checkpoint callback said so. 'domain-gone': the domain ended by itself
   * after a checkpoint. All three have written END.
   */
  readonly ended: 'complete' | 'finished' | 'domain-gone';
  /** Checkpoints in the stream; 0 for a plain one. */
  readonly checkpoints: number;
  readonly bytes: number;
  /** How often a suspended domain had to wait because its dirty pages did not fit the slab. */
  readonly suspendedFlushes: number;
}

export const DEFAULT_SLAB_BYTES = 32 * 1024 * 1024;
export const DEFAULT_SLAB_COUNT = 2;

/**
 * Saves a domain into the sink. A plain save leaves the domain suspended; a checkpointed one goes on until the
 * checkpoint callback ends it or the domain ends by itself. If it fails, it neither resumes nor destroys the domain:
 * whoever called knows whether it may run.
 * @throws SaveError, HypervisorError, StreamError, and whatever the sink or a callback fails with
 */
export async function saveDomain(options: SaveOptions): Promise<SaveResult> {
  const { domain, streamType, sink } = options;
  const { slabBytes = DEFAULT_SLAB_BYTES, slabCount = DEFAULT_SLAB_COUNT } = options;
  const slabs = options.slabs ?? makeSlabs(slabCount, slabBytes);
  const colo = coloSave(streamType, options.back, options.callbacks);
  const domainInfo = await domain.info();
  const ops = options.ops ?? saveOpsFor(domainInfo.type);
  const outbox = new Outbox(sink, slabs);
  const context = new SaveContext({
    domain,
    domainInfo,
    streamType,
    live: options.live,
    debug: options.debug ?? false,
    callbacks: options.callbacks,
    colo,
    ops,
    outbox,
    clock: options.clock ?? (() => performance.now()),
  });

  let result: SaveResult | null = null;
  let failure: Error | null = null;
  try {
    result = await save(context);
  } catch (error) {
    failure = asError(error);
    // Given up because the sink failed: the sink's error says more.
    if (failure instanceof SaveError && failure.code === 'ABORTED') failure = outbox.failure ?? failure;
  }
  const suppressed = await cleanup(context);
  if (result !== null && suppressed.length === 0) return result;
  throw conclusion(failure, suppressed);
}

async function save(context: SaveContext): Promise<SaveResult> {
  const { ops, streamType, colo, domainInfo } = context;
  await ops.setup(context);
  context.allocateBitmaps();
  await context.writeOctets([
    ...(context.layered ? libxlOpening() : []),
    encodeHeaders({
      domainType: domainInfo.type,
      xenMajor: domainInfo.versionMajor,
      xenMinor: domainInfo.versionMinor,
    }),
  ]);
  await ops.staticData(context);
  await context.writeRecord(RecordType.STATIC_DATA_END);
  await ops.startOfStream(context);

  for (;;) {
    const { epoch } = context;
    await ops.startOfCheckpoint(context);
    await ops.checkVmState(context);
    if ((await sendMemory(context)) === 'domain-gone') {
      context.dropReady();
      return end(context, 'domain-gone', epoch);
    }
    await ops.endOfCheckpoint(context);
    if (streamType === 'plain') return end(context, 'complete', 0);

    await context.writeRecord(RecordType.CHECKPOINT);
    if (context.layered) await endLibxlCheckpoint(context);
    context.marks.captured = context.clock();
    const decision = await (colo === null ? checkpoint(context) : coloCheckpoint(context, colo));
    if (decision === 'abort') throw new SaveError('ABORTED', `given up after checkpoint ${epoch}`, { epoch });
    context.epoch = epoch + 1;
    if (decision === 'finish') return end(context, 'finished', context.epoch);
  }
}

function sendMemory(context: SaveContext): Promise<PassResult> {
  if (context.live) return sendDomainMemoryLive(context);
  return context.streamType === 'plain'
    ? sendDomainMemoryNonlive(context)
    : sendDomainMemoryCheckpointed(context);
}

/** Remus: the domain runs on at once, and the epoch leaves meanwhile. */
async function checkpoint(context: SaveContext): Promise<CheckpointDecision> {
  await postcopy(context);
  await context.domain.confirmMachine?.();
  return context.callbacks.checkpoint(context.epoch, dispatch(context));
}

/** COLO: the domain waits for the secondary, and both run on from the same state until they diverge. */
async function coloCheckpoint(context: SaveContext, colo: ColoSave): Promise<CheckpointDecision> {
  const decision = await context.callbacks.checkpoint(context.epoch, dispatch(context));
  if (decision === 'abort') return decision;
  await postcopy(context);
  return decision === 'finish' ? decision : colo.waitCheckpoint();
}

async function postcopy(context: SaveContext): Promise<void> {
  await context.callbacks.postcopy(context.epoch);
  context.marks.resumed = context.clock();
  context.suspended = false;
  context.holding = false;
  context.live = false;
}

/** Sends the captured epoch on its way. */
function dispatch(context: SaveContext): Promise<SavedCheckpoint> {
  const { epoch, dirtyPages, bytes, clock } = context;
  const { suspending, suspended, copied, captured } = context.marks;
  const resumed = context.suspended ? captured : context.marks.resumed;
  const sent = context.closeEpoch({ epoch, end: false }).then(() => ({
    epoch,
    dirtyPages,
    bytes,
    phases: {
      suspend: (suspended - suspending) / 1000,
      copy: (copied - suspended) / 1000,
      state: (captured - copied) / 1000,
      resume: (resumed - captured) / 1000,
      send: (clock() - resumed) / 1000,
    },
  }));
  // The driver may not be looking at it any more; the outbox keeps the error and the next epoch fails with it.
  sent.catch(() => undefined);
  return sent;
}

async function end(
  context: SaveContext,
  ended: SaveResult['ended'],
  checkpoints: number,
): Promise<SaveResult> {
  await context.writeRecord(RecordType.END);
  if (context.layered) await endLibxlStream(context);
  await context.closeEpoch({ epoch: checkpoints, end: true });
  return {
    ended,
    checkpoints,
    bytes: context.bytesBefore,
    suspendedFlushes: context.suspendedFlushes,
  };
}

/** Once, whatever happened. Returns what failed. */
async function cleanup(context: SaveContext): Promise<Error[]> {
  const errors: Error[] = [];
  if (context.logDirtyEnabled) {
    try {
      await endDirtyLog(context.domain);
    } catch (error) {
      errors.push(asError(error));
    }
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
  const error = new SaveError(
    'CLEANUP_FAILED',
    failure === null ? 'saved, but the clean-up failed' : `${failure.message} (and the clean-up failed)`,
    {},
    { cause: failure ?? suppressed[0] },
  );
  error.suppressed.push(...suppressed);
  return error;
}
