// Restoring a domain, step by step (libxc's restore(), turned inside out). The first checkpoint is applied as it comes;
// from then on the records of the open checkpoint are kept, and applied when it is whole and acknowledged:
//
//   receive   read ─▶ admit ─┬─ first checkpoint: apply ─┐
//                            └─ later: buffer ───────────┴─ CHECKPOINT ─▶ 'checkpoint'     END ─▶ 'end'
//   commit    what is buffered is applied: the domain is as of the checkpoint
//   breakOff  what is buffered is dropped, the domain completed as of the checkpoint before
//   complete  after END
//   close     whatever was set up ends, after success and after failure alike
//   copyTo    beside all that: the domain as of the last commit, into another one (copies.ts)
//
// Where the stream is libxl's, the device model's state follows libxc's CHECKPOINT, and CHECKPOINT_END is what makes
// the checkpoint whole; libxl's END is the end.
//
// A domain may try whether it can be started from a checkpoint: the first one before it is acknowledged, the others when
// they are applied. One that cannot be is told while the primary lives, and the domain is as of the one before.
//
// In COLO the domain is completed by each commit and runs until the next checkpoint is received (see colo.ts).

import { asError, romulusError } from '../errors.js';
import { type Closable, cleanUp } from '../flow/closing.js';
import { restoreOpsFor } from '../guest/tables.js';
import type { TrialDomain } from '../hypervisor/port.js';
import type { RecordSource } from '../stream/flow.js';
import { RecordType, recordTypeName } from '../stream/format.js';
import type { StreamRecord } from '../stream/record.js';
import { isDiskRecord } from '../stream/records/disks.js';
import { type Admission, admit } from './admit.js';
import { processRecord } from './apply.js';
import { ColoSecondary } from './colo.js';
import { RestoreContext, type RestoreStepOptions, requireOptions } from './context.js';
import { Copies, type CopiedCheckpoint } from './copies.js';
import { RestoreError } from './error.js';
import type { Committed, Received, RestoreOutcome } from './results.js';

export type { Committed, Received, RestoreOutcome } from './results.js';

const BROKEN: Received = { kind: 'broken', cause: null };

/**
 * Waits for the stream's headers. Nothing is done to the domain yet, so nothing is to be closed if this fails.
 * @throws RestoreError BAD_OPTIONS, StreamError, GuestError UNSUPPORTED_DOMAIN_TYPE, HypervisorError
 */
export async function openRestore(options: RestoreStepOptions): Promise<RestoreSteps> {
  const { domain, source } = options;
  const coloOptions = requireOptions(options);
  const domainInfo = await domain.info();
  const ops = options.ops ?? restoreOpsFor(domainInfo.type);
  const colo = coloOptions === null ? null : new ColoSecondary(coloOptions, domainInfo.p2mSize);
  const context = new RestoreContext(options, domainInfo, ops, await source.headers());
  return new RestoreSteps(context, source, colo);
}

/**
 * One step at a time. If one rejects, the domain is in no state to run (in COLO: may not be), and close() alone may
 * follow.
 * @throws RestoreError, StreamError, GuestError, HypervisorError, and whatever a callback fails with
 */
export class RestoreSteps implements Closable {
  readonly #context: RestoreContext;
  #source: RecordSource;
  /** null but for COLO. */
  readonly #colo: ColoSecondary | null;
  /** Those of this stream. */
  #copies: Copies;
  #setUp = false;
  /** Those of the streams before this one, in the domain that it goes on with. */
  #epochsBefore = 0;
  /** Nothing was applied since the domain was completed. */
  #completed = false;
  /** While a checkpoint was committed, its records said that the channel is broken. */
  #channelBroken = false;
  /** The step under way, or the last one; never rejects. */
  #settled: Promise<unknown> = Promise.resolve();

  constructor(context: RestoreContext, source: RecordSource, colo: ColoSecondary | null) {
    this.#context = context;
    this.#source = source;
    this.#colo = colo;
    this.#copies = new Copies(context);
  }

  /**
   * Goes on with another stream, of the same domain, whose first checkpoint holds what has changed since the last that was
   * applied here; after breakOff() and close(). Nothing is done to the domain. Its epochs are numbered from 0 again.
   * Disks are staged until its first checkpoint is committed.
   * @param streamUuid needed with disks
   * @throws StreamError; RestoreError BAD_OPTIONS if the domain is PV or has had no checkpoint, or the stream is of another kind
   */
  async resume(source: RecordSource, streamUuid?: string): Promise<void> {
    const context = this.#context;
    const { disks } = context;
    if (disks !== null && streamUuid === undefined) {
      throw new RestoreError('BAD_OPTIONS', 'a domain with replicated disks goes on in a stream with a UUID');
    }
    context.goOn(await source.headers());
    if (streamUuid !== undefined) await disks?.goOn(streamUuid);
    this.#source = source;
    this.#epochsBefore = context.epoch;
    this.#channelBroken = false;
    this.#copies = new Copies(context);
  }

  /**
   * Reads records until the open checkpoint, or the stream, is whole and well-formed (buffered; the first is applied
   * as it comes), or the channel breaks: broken is a result, not an exception. COLO: the domain runs until the
   * primary takes that checkpoint.
   * @throws when the domain fails while the first checkpoint is applied
   */
  receive(): Promise<Received> {
    return this.#step(async () => {
      const context = this.#context;
      if (!this.#setUp) {
        this.#setUp = true;
        await context.ops.setup(context);
      }
      if (this.#channelBroken) return BROKEN;
      if (this.#colo !== null && context.epoch > 0) {
        const run = await this.#colo.run(context, context.epoch - 1);
        if (run === 'BROKEN_CHANNEL') return { kind: 'broken', cause: this.#colo.backFailure };
      }
      return this.#receive();
    });
  }

  /**
   * After 'checkpoint': applies what is buffered. Acknowledged is acknowledged: not to be given up half-way. `isTrial`:
   * it is tried whether the domain can be started. `isLast`: and it is to be started from this one.
   */
  commit({ isTrial = false, isLast = false } = {}): Promise<Committed> {
    return this.#step(() => this.#copies.beside(() => this.#commit(isTrial || isLast, isLast)));
  }

  /**
   * The channel broke: drops what is buffered, completes the domain so that it can be started (COLO: it runs on).
   * @throws the cause, or NO_CONSISTENT_CHECKPOINT, if no checkpoint was committed
   */
  breakOff(cause: Error | null): Promise<RestoreOutcome> {
    this.#copies.end();
    return this.#step(() => this.#breakOff(cause));
  }

  /** After 'end': completes the domain. */
  complete(): Promise<RestoreOutcome> {
    this.#copies.end();
    return this.#step(async () => {
      if (this.#colo === null) await this.#complete();
      return { kind: 'complete', epochs: this.#epoch };
    });
  }

  /** As Closable says: when the step under way is over. */
  async close(failure: Error | null): Promise<Error | null> {
    const context = this.#context;
    this.#copies.end();
    await this.#settled;
    return cleanUp(
      failure,
      'restored',
      [
        async () => this.#colo?.cleanup(),
        async () => context.disks?.drop(),
        () => context.ops.cleanup(context),
      ],
      (message, options) => new RestoreError('CLEANUP_FAILED', message, {}, options),
    );
  }

  /** The open checkpoint's, in this stream. */
  get #epoch(): number {
    return this.#context.epoch - this.#epochsBefore;
  }

  /** A domain that is as it was is complete. */
  async #complete(): Promise<void> {
    if (!this.#completed) await this.#context.completeDomain();
    this.#completed = true;
  }

  /**
   * Copies the domain as of the last commit into another one, whose memory is empty, while the stream goes on: of that
   * nothing waits but what is to be written where the copy has not been. One at a time.
   * @throws RestoreError NOT_COPIED if there is nothing to copy, the stream ends before, or the domain goes back to a
   * checkpoint before; or as either domain does
   */
  async copyTo(into: TrialDomain): Promise<CopiedCheckpoint> {
    const { epoch, ...copied } = await this.#copies.copyTo(into);
    return { ...copied, epoch: epoch - this.#epochsBefore };
  }

  #step<T>(work: () => Promise<T>): Promise<T> {
    const result = work();
    this.#settled = result.catch(() => undefined);
    return result;
  }

  async #receive(): Promise<Received> {
    const context = this.#context;
    for (;;) {
      let record: StreamRecord | null;
      let admission: Admission;
      try {
        record = await this.#source.read();
        if (record === null) return BROKEN;
        admission = admit(context, record);
        if (admission === 'take' && context.bufferAllRecords) {
          await this.#keep(record);
          continue;
        }
      } catch (error) {
        return { kind: 'broken', cause: romulusError(error, sourceFailed) };
      }
      switch (admission) {
        case 'skip':
          break;
        case 'take':
          if ((await this.#apply(record)) === 'BROKEN_CHANNEL') return BROKEN;
          break;
        case 'checkpoint':
          // A version 2 stream whose first checkpoint had no memory.
          if (!context.seenStaticDataEnd) await context.handleStaticDataEnd();
          if (!context.bufferAllRecords) await context.completeCheckpoint();
          return { kind: 'checkpoint', epoch: this.#epoch };
        case 'end':
          return { kind: 'end', epochs: this.#epoch };
      }
    }
  }

  /** Until its checkpoint is committed. What disks can keep themselves, they have at once. */
  async #keep(record: StreamRecord): Promise<void> {
    const { disks, bufferedRecords } = this.#context;
    const { type, layer } = record;
    if (disks === null || layer === 'libxl' || !isDiskRecord(type)) {
      bufferedRecords.push(record);
    } else if (disks.comesAtOnce(type)) {
      await disks.apply(record);
      this.#source.release?.(record);
    } else if (await disks.buffer(record)) {
      this.#source.release?.(record);
    }
  }

  async #commit(isTrial: boolean, isLast: boolean): Promise<Committed> {
    const context = this.#context;
    const { bufferedRecords, disks } = context;
    const epoch = this.#epoch;
    this.#completed = false;
    const first = !context.bufferAllRecords;
    // Until it is confirmed, who hands it over can go on with it.
    if (isLast) context.domain.beginLast?.();
    const bufferedBytes = bufferedRecords.bytes + (disks?.bufferedBytes ?? 0);
    const count = bufferedRecords.count;
    for (let i = 0; i < count; i++) {
      // The rest of it is here and is applied, channel or no channel.
      if ((await this.#apply(bufferedRecords.take(i))) === 'BROKEN_CHANNEL') this.#channelBroken = true;
    }
    bufferedRecords.clear();
    await this.#colo?.complete(context);
    const back = first ? null : await tryCheckpoint(context, isTrial);
    if (back !== null) {
      await disks?.drop();
      if (disks !== null && back.epochs > 1) throw notOfDisks(epoch, back);
      return { kind: 'unusable', outcome: failover(epoch - back.epochs, back.cause) };
    }
    await this.#commitDisks(epoch);
    context.bufferAllRecords = true;
    context.epoch++;
    const { records, pages, applyMs } = context;
    context.records = 0;
    context.pages = 0;
    context.applyMs = 0;
    const applied = { epoch, records, bufferedBytes, pages, applySeconds: applyMs / 1000 };
    return { kind: 'applied', applied };
  }

  async #commitDisks(epoch: number): Promise<void> {
    const context = this.#context;
    if (context.disks === null) return;
    const started = context.clock();
    context.records += await context.disks.commit(epoch, (record) => this.#source.release?.(record));
    context.applyMs += context.clock() - started;
  }

  async #breakOff(cause: Error | null): Promise<RestoreOutcome> {
    const context = this.#context;
    await context.disks?.drop();
    if (!context.bufferAllRecords) {
      const { streamType } = context;
      const message = 'the stream broke before it had brought a whole domain';
      throw cause ?? new RestoreError('NO_CONSISTENT_CHECKPOINT', message, { streamType });
    }
    context.bufferedRecords.clear();
    if (this.#colo === null) await this.#complete();
    else await this.#colo.failover(context);
    return failover(this.#epoch - 1, cause);
  }

  /** Page data is done with once it is applied; of other records the guest's ops may keep views (HVM_CONTEXT). */
  async #apply(record: StreamRecord): Promise<'processed' | 'BROKEN_CHANNEL'> {
    const result = await processRecord(this.#context, record);
    if (result === 'RECORD_NOT_PROCESSED') {
      // admit() has let it through, so its guest type had promised to know it.
      const { type, offset } = record;
      const message = `${recordTypeName(type)} record was not processed`;
      throw new RestoreError('UNKNOWN_RECORD', message, { type, offset });
    }
    const { layer, type } = record;
    const isDone = type === RecordType.PAGE_DATA || type === RecordType.DISK_WRITES;
    if (layer !== 'libxl' && isDone) this.#source.release?.(record);
    return result;
  }
}

/** Whether the domain could be started as it is; if not, as of how many epochs before. */
async function tryCheckpoint(
  context: RestoreContext,
  isTrial: boolean,
): Promise<{ readonly epochs: number; readonly cause: Error } | null> {
  try {
    await context.completeCheckpoint(isTrial);
    return null;
  } catch (error) {
    const back = context.domain.checkpointsBack ?? 0;
    if (back === 0 || back > context.epoch) throw error;
    return { epochs: back, cause: asError(error) };
  }
}

/** The disks are as of the checkpoint before this one, and no other. */
function notOfDisks(epoch: number, { epochs, cause }: { epochs: number; cause: Error }): RestoreError {
  const message = 'the domain went back further than its disks do';
  return new RestoreError('NO_CONSISTENT_CHECKPOINT', message, { epoch, epochsBack: epochs }, { cause });
}

function failover(epoch: number, cause: Error | null): RestoreOutcome {
  return cause === null ? { kind: 'failover', epoch } : { kind: 'failover', epoch, cause };
}

function sourceFailed(cause: Error): RestoreError {
  return new RestoreError('SOURCE_FAILED', `the stream cannot be read: ${cause.message}`, {}, { cause });
}
