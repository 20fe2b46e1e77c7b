// Saving a domain, step by step: the order of the records, and which step writes them. Who takes the steps decides
// when, and whether there is another (libxc's loop in save.ts; the primary's pipeline).
//
//   capture   0: setup  headers  static data  STATIC_DATA_END  start of stream  (disks)
//             start of checkpoint   memory   end of checkpoint   CHECKPOINT (plain: none)
//   resume    the domain runs                             COLO: send, then resume
//   send      the epoch leaves ┄┄┄▶ next capture
//   end       END
//   close     the dirty log and whatever was set up ends, after success and after failure alike
//
// Where libxc writes while the domain is suspended, here a checkpoint is captured into a slab and sent when the domain
// runs again, unless its dirty pages do not fit the slab: memory is bounded first.
//
// A domain whose device model has a state of its own is saved in libxl's layer (libxl.ts).

import { type Closable, cleanUp } from '../flow/closing.js';
import { endDirtyLog } from '../hypervisor/log-dirty.js';
import { RecordType } from '../stream/format.js';
import { encodeHeaders } from '../stream/writer.js';
import type { SavedCheckpoint } from './callbacks.js';
import { SaveContext, type SaveStepOptions } from './context.js';
import { SaveError } from './error.js';
import {
  type PassResult,
  sendDomainMemoryCheckpointed,
  sendDomainMemoryLive,
  sendDomainMemoryNonlive,
} from './memory.js';
import { endLibxlCheckpoint, endLibxlStream, libxlOpening, takeEmulatorState } from './libxl.js';
import { Posting } from './posting.js';
import { makeSlabs } from './slab.js';

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

const DEFAULT_SLAB_BYTES = 32 * 1024 * 1024;
const DEFAULT_SLAB_COUNT = 2;

/**
 * Nothing is done to the domain yet, so nothing is to be closed if this fails.
 * @throws SaveError BAD_OPTIONS; GuestError UNSUPPORTED_DOMAIN_TYPE; HypervisorError
 */
export async function openSave(options: SaveStepOptions): Promise<SaveSteps> {
  const { domain, streamType, sink, back } = options;
  const { slabBytes = DEFAULT_SLAB_BYTES, slabCount = DEFAULT_SLAB_COUNT } = options;
  const slabs = options.slabs ?? makeSlabs(slabCount, slabBytes);
  if (streamType === 'colo' && back === undefined) {
    throw new SaveError('BAD_OPTIONS', 'a COLO save needs a back channel', { streamType });
  }
  if (streamType === 'colo' && domain.disks !== undefined) {
    throw new SaveError('BAD_OPTIONS', 'disks are not replicated in COLO', { streamType });
  }
  const posting = new Posting(sink, slabs);
  return new SaveSteps(new SaveContext(options, await domain.info(), posting), posting);
}

/**
 * One step at a time; send() alone need not be awaited. A step that rejects is the last but close(). None of them
 * resumes or destroys a domain because of a failure: whoever takes the steps knows whether it may run.
 * @throws SaveError, GuestError, HypervisorError, StreamError, and whatever the sink or a callback fails with
 */
export class SaveSteps implements Closable {
  readonly #context: SaveContext;
  readonly #posting: Posting;
  /** Epochs that are captured. */
  #epochs = 0;
  /** The step under way, or the last one; never rejects. */
  #settled: Promise<unknown> = Promise.resolve();

  constructor(context: SaveContext, posting: Posting) {
    this.#context = context;
    this.#posting = posting;
  }

  /**
   * Suspends the domain and captures the next epoch whole into its slab (epoch 0: headers, static data and the live
   * pre-copy before), CHECKPOINT included. The domain is suspended then. 'gone': it had ended by itself, after an
   * epoch; only end() may follow.
   */
  capture(): Promise<'captured' | 'gone'> {
    return this.#step(async () => {
      const context = this.#context;
      context.epoch = this.#epochs;
      if (this.#epochs === 0) await openStream(context);
      const result = await captureEpoch(context);
      if (result === 'captured') this.#epochs++;
      return result;
    });
  }

  /** callbacks.postcopy: lets the domain run again. With disks, the epoch is whole only then. */
  resume(): Promise<void> {
    return this.#step(() => resume(this.#context));
  }

  /**
   * Sends the captured epoch on its way; resolves when it has left. Need not be awaited, or watched, before the next
   * capture: a failure is kept, and the capture, send or end that comes next fails with it.
   */
  send(): Promise<SavedCheckpoint> {
    return sendEpoch(this.#context);
  }

  /** END. Resolves when everything has left. */
  end(ended: SaveResult['ended']): Promise<SaveResult> {
    const context = this.#context;
    const checkpoints = context.streamType === 'plain' ? 0 : this.#epochs;
    return this.#step(async () => {
      await context.writeRecord(RecordType.END);
      if (context.layered) await endLibxlStream(context);
      await context.closeEpoch({ epoch: checkpoints, end: true });
      const { bytesBefore, suspendedFlushes } = context;
      return { ended, checkpoints, bytes: bytesBefore, suspendedFlushes };
    });
  }

  /** As Closable says: the dirty log ends when the step under way is over. */
  async close(failure: Error | null): Promise<Error | null> {
    const context = this.#context;
    context.disks?.abort();
    await this.#settled;
    // Given up because the sink failed: the sink's error says more.
    const aborted = failure instanceof SaveError && failure.code === 'ABORTED';
    return cleanUp(
      aborted ? (this.#posting.failure ?? failure) : failure,
      'saved',
      [
        async () => {
          if (context.logDirtyEnabled) await endDirtyLog(context.dirtyLog);
        },
        async () => context.disks?.close(),
        () => context.ops.cleanup(context),
      ],
      (message, options) => new SaveError('CLEANUP_FAILED', message, {}, options),
    );
  }

  #step<T>(work: () => Promise<T>): Promise<T> {
    const result = work();
    this.#settled = result.catch(() => undefined);
    return result;
  }
}

/** What stands before the first checkpoint. */
async function openStream(context: SaveContext): Promise<void> {
  const { ops, domainInfo } = context;
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
  await context.disks?.begin();
  await context.disks?.synchronise();
}

async function captureEpoch(context: SaveContext): Promise<'captured' | 'gone'> {
  const { ops } = context;
  await ops.startOfCheckpoint(context);
  await ops.checkVmState(context);
  if ((await sendMemory(context)) === 'domain-gone') {
    context.dropReady();
    return 'gone';
  }
  await ops.endOfCheckpoint(context);
  if (context.streamType !== 'plain') {
    context.emulatorState = context.layered ? await takeEmulatorState(context) : null;
    // What was written to disks is before it, and need not be there before the domain runs again.
    if (context.disks === null) await endCheckpoint(context);
    context.marks.captured = context.clock();
  }
  return 'captured';
}

async function endCheckpoint(context: SaveContext): Promise<void> {
  const { emulatorState } = context;
  await context.writeRecord(RecordType.CHECKPOINT);
  if (emulatorState !== null) await endLibxlCheckpoint(context, emulatorState);
  context.emulatorState = null;
}

function sendMemory(context: SaveContext): Promise<PassResult> {
  if (context.live) return sendDomainMemoryLive(context);
  return context.streamType === 'plain'
    ? sendDomainMemoryNonlive(context)
    : sendDomainMemoryCheckpointed(context);
}

async function resume(context: SaveContext): Promise<void> {
  await context.callbacks.postcopy(context.epoch);
  context.marks.resumed = context.clock();
  context.suspended = false;
  context.holding = false;
  context.live = false;
  // Before the epoch leaves, and not in the pause. COLO's has left.
  if (context.streamType !== 'colo') await context.domain.confirmMachine?.();
  if (context.disks === null) return;
  await context.disks.writeSealed();
  await endCheckpoint(context);
}

function sendEpoch(context: SaveContext): Promise<SavedCheckpoint> {
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
  // Nobody may be looking at it any more; the posting keeps the error and what needs the sink next fails with it.
  sent.catch(() => undefined);
  return sent;
}
