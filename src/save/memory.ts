// The passes over a domain's memory: all of it, what is dirty, once more while it runs, and the pass while it is
// suspended that makes the copy consistent.
//
//   live:          log-dirty on ─▶ all ─▶ dirty ─▶ … policy … ─▶ suspend ─▶ dirty + deferred
//   checkpointed:                                              suspend ─▶ dirty + deferred
//   plain, still:                                              suspend ─▶ all

import { takeDirtyLog } from '../hypervisor/log-dirty.js';
import { HypervisorError } from '../hypervisor/port.js';
import { RecordType } from '../stream/format.js';
import { writeBatch } from './batch.js';
import { simplePrecopyPolicy, type PrecopyDecision } from './callbacks.js';
import { mergeSecondaryDirtyPages } from './colo.js';
import type { SaveContext } from './context.js';
import { SaveError } from './error.js';

/** How often one checkpoint is begun, if somebody else lets the domain run in it. */
const SUSPEND_ATTEMPTS_MAX = 20;

/** 'domain-gone': it had ended by itself when it should have been suspended, and there are checkpoints before. */
export type PassResult = 'sent' | 'domain-gone';

/** Log-dirty on, all memory while the domain runs, then what is left while it is suspended. */
export async function sendDomainMemoryLive(context: SaveContext): Promise<PassResult> {
  await enableLogDirty(context);
  await precopy(context, await beginMemory(context));
  // Disks that fell behind meanwhile have been copied again: memory that has changed since is not for the pause.
  while (context.disks !== null && (await context.disks.catchUp())) {
    await precopy(context, (await context.dirtyLog.cleanLogDirty(context.dirtyBitmap)).dirtyCount);
  }
  const result = await suspendAndSendDirty(context);
  if (result === 'sent' && context.debug && context.streamType === 'plain') await verifyFrames(context);
  return result;
}

/** One checkpoint: what was dirtied since the last one. */
export async function sendDomainMemoryCheckpointed(context: SaveContext): Promise<PassResult> {
  // The first checkpoint of a save that is not live has nothing before it that the dirty log could start from.
  if (context.epoch === 0) {
    await enableLogDirty(context);
    if (context.disks !== null) await context.disks.catchUp();
    if (context.resumes) return suspendAndSendDirty(context);
    context.deferredPages.setAll();
    context.nrDeferredPages = context.p2mSize;
  }
  return suspendAndSendDirty(context);
}

/** All memory of the suspended domain. */
export async function sendDomainMemoryNonlive(context: SaveContext): Promise<PassResult> {
  await suspendDomain(context);
  context.dirtyPages = await sendAllPages(context, 'Frames');
  context.marks.copied = context.clock();
  return 'sent';
}

async function enableLogDirty(context: SaveContext): Promise<void> {
  if (context.resumes) await context.domain.beginStream?.();
  else await takeDirtyLog(context.dirtyLog);
  context.logDirtyEnabled = true;
}

/** What the first pass sends, in the bitmap: how many pages. */
async function beginMemory({ resumes, dirtyBitmap, dirtyLog, p2mSize }: SaveContext): Promise<number> {
  if (resumes) return (await dirtyLog.cleanLogDirty(dirtyBitmap)).dirtyCount;
  dirtyBitmap.setAll();
  return p2mSize;
}

/** The pre-copy loop: libxc's send_memory_live. It begins with what is in the bitmap. */
async function precopy(context: SaveContext, pages: number): Promise<void> {
  const policy = context.callbacks.precopyPolicy ?? simplePrecopyPolicy;
  let dirtyCount = pages;
  context.stats = { iteration: 0, totalWritten: 0, dirtyCount };
  let decision: PrecopyDecision;
  for (let iteration = 1; ; iteration++) {
    // Asked twice in each turn: with the dirty pages known (send them even if this was the last turn), and after
    // they were sent, when how many there are now is not known yet.
    decision = policy(context.stats);
    if (dirtyCount > 0 && decision !== 'abort') {
      await sendDirtyPages(context, dirtyCount, `Frames iteration ${context.stats.iteration}`);
    }
    if (decision !== 'continue-precopy') break;
    context.stats = { iteration, totalWritten: context.stats.totalWritten + dirtyCount, dirtyCount: -1 };
    decision = policy(context.stats);
    if (decision !== 'continue-precopy') break;
    dirtyCount = (await context.dirtyLog.cleanLogDirty(context.dirtyBitmap)).dirtyCount;
    context.stats = { ...context.stats, dirtyCount };
  }
  if (decision === 'abort') throw new SaveError('ABORTED', 'the pre-copy policy gave the save up');
  // The suspended pass begins with an empty slab.
  context.flushSlab();
}

async function suspendDomain(context: SaveContext): Promise<PassResult> {
  const { callbacks, epoch } = context;
  // Waiting for the sink is done before the pause, not in it.
  await context.slab();
  try {
    await callbacks.prepareSuspend?.(epoch);
    context.marks.suspending = context.clock();
    await callbacks.suspend(epoch);
  } catch (error) {
    if (epoch > 0 && error instanceof HypervisorError && error.code === 'DOMAIN_GONE') return 'domain-gone';
    throw error;
  }
  context.suspended = true;
  context.disks?.seal();
  const { state } = await context.domain.info();
  // By somebody else: found out, and made good, at the end of the pass.
  const resumed = state === 'running' && context.domain.stoodStill !== undefined;
  if (state !== 'suspended' && !resumed) {
    const message = `the domain is ${state} after the suspend callback`;
    throw new SaveError('NOT_SUSPENDED', message, { epoch, state });
  }
  context.marks.suspended = context.clock();
  // Whatever the domain changed until now, it changes no more.
  await context.ops.checkVmState(context);
  return 'sent';
}

/**
 * The last pass of a live save and the heart of a checkpointed stream. If somebody else let the domain run meanwhile,
 * what was copied is as good as a pass while it runs, and another one follows.
 */
async function suspendAndSendDirty(context: SaveContext): Promise<PassResult> {
  for (let attempts = 1; ; attempts++) {
    if ((await sendDirtySuspended(context)) === 'domain-gone') return 'domain-gone';
    if ((await context.domain.stoodStill?.()) !== false) return 'sent';
    if (attempts === SUSPEND_ATTEMPTS_MAX) {
      const message = 'somebody else lets the domain run whenever it is suspended';
      throw new SaveError('NOT_SUSPENDED', message, { epoch: context.epoch, attempts });
    }
  }
}

async function sendDirtySuspended(context: SaveContext): Promise<PassResult> {
  if ((await suspendDomain(context)) === 'domain-gone') return 'domain-gone';
  context.holding = context.streamType !== 'plain';
  const { dirtyCount } = await context.dirtyLog.cleanLogDirty(context.dirtyBitmap);
  context.dirtyBitmap.or(context.deferredPages);
  // Of the first checkpoint there is nothing that the secondary could have changed.
  if (context.back !== null && context.epoch > 0) {
    await mergeSecondaryDirtyPages(context.back, context.dirtyBitmap, context.epoch);
  }
  const stage = context.live ? `Frames iteration ${context.stats.iteration}` : 'Checkpointed save';
  context.dirtyPages = await sendDirtyPages(context, dirtyCount + context.nrDeferredPages, stage);
  context.deferredPages.clearAll();
  context.nrDeferredPages = 0;
  context.marks.copied = context.clock();
  return 'sent';
}

/** Everything once more, for the other side to compare. */
async function verifyFrames(context: SaveContext): Promise<void> {
  await context.writeRecord(RecordType.VERIFY);
  await sendAllPages(context, 'Frames verify');
  await context.domain.peekLogDirty(context.dirtyBitmap);
}

async function sendAllPages(context: SaveContext, stage: string): Promise<number> {
  context.dirtyBitmap.setAll();
  return sendDirtyPages(context, context.p2mSize, stage);
}

/** Sends the pages of the dirty bitmap in order, batch after batch; how many there were. */
async function sendDirtyPages(context: SaveContext, entries: number, stage: string): Promise<number> {
  const { dirtyBitmap, batchPfns, callbacks } = context;
  let written = 0;
  let pfn = dirtyBitmap.next(0);
  while (pfn >= 0) {
    const slab = await context.slabWithRoom();
    const room = slab.batchRoom();
    let count = 0;
    while (pfn >= 0 && count < room) {
      batchPfns[count++] = pfn;
      pfn = dirtyBitmap.next(pfn + 1);
    }
    await writeBatch(context, slab, count);
    if (!context.suspended) await context.disks?.between();
    written += count;
    callbacks.progress?.({ stage, pagesDone: written, pagesTotal: Math.max(entries, written) });
  }
  await context.ops.checkVmState(context);
  return written;
}
