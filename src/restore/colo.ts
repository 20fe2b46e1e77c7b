// COLO, the restorer's side. The secondary is completed and runs after every checkpoint; its own writes are logged,
// and before the next checkpoint the primary is told which pages they hit.
//
//                  ┌──────────────────────────────── next checkpoint ◀──────────────────────────────┐
//   apply ─▶ complete ─▶ log empty ─▶ postcopy ═ runs ═ waitCheckpoint ─▶ suspend ─▶ dirty pfns ─▶ back channel
//                                         ▲                                                      │
//                                         └── failover, wherever it stood: it runs, as it is ◀───┘
//
// What it has written itself since the last checkpoint is not undone by a failover: its output was the primary's.

import { romulusError } from '../errors.js';
import { Bitmap } from '../hypervisor/bitmap.js';
import { endDirtyLog, takeDirtyLog } from '../hypervisor/log-dirty.js';
import type { StreamPiece } from '../stream/flow.js';
import { RecordType } from '../stream/format.js';
import { encodeDirtyPfnList } from '../stream/records/dirty-pfns.js';
import { pieceOf, recordParts } from '../stream/writer.js';
import type { ColoRestoreOptions } from './callbacks.js';
import type { RestoreContext } from './context.js';
import { RestoreError } from './error.js';

export class ColoSecondary {
  /** Why the back channel could not be written, if that broke the channel. */
  backFailure: Error | null = null;
  readonly #options: ColoRestoreOptions;
  readonly #bitmap: Bitmap;
  #logging = false;

  constructor(options: ColoRestoreOptions, p2mSize: number) {
    this.#options = options;
    this.#bitmap = new Bitmap(p2mSize, { shared: true });
  }

  /** A checkpoint is applied whole: makes of it a domain that can run. */
  async complete(context: RestoreContext): Promise<void> {
    await context.completeDomain();
    await this.#options.restoreResults?.(context.endpoints);
  }

  /**
   * The domain runs until the primary takes the next checkpoint, is suspended, and its dirty pages are named.
   * @param epoch the checkpoint that was applied
   * @throws HypervisorError; RestoreError NOT_SUSPENDED; StreamError RECORD_TOO_LONG (more than 64 GiB are dirty)
   */
  async run(context: RestoreContext, epoch: number): Promise<'processed' | 'BROKEN_CHANNEL'> {
    const options = this.#options;
    await this.#emptyLog();
    if ((await options.postcopy(epoch)) === 'failover') return 'BROKEN_CHANNEL';
    if ((await options.waitCheckpoint()) === 'failover') return 'BROKEN_CHANNEL';
    if ((await options.suspend(epoch + 1)) === 'failover') return 'BROKEN_CHANNEL';
    const { state } = await context.domain.info();
    if (state !== 'suspended') {
      const message = `the secondary is ${state} after the suspend callback`;
      throw new RestoreError('NOT_SUSPENDED', message, { epoch: epoch + 1, state });
    }
    return this.#sendDirtyPfns(epoch + 1);
  }

  /** The domain runs on alone, from where it is. Nothing of the open checkpoint has touched it. */
  async failover(context: RestoreContext): Promise<void> {
    const { state } = await context.domain.info();
    if (state !== 'running') await this.#options.postcopy(context.epoch - 1);
  }

  async cleanup(): Promise<void> {
    if (!this.#logging) return;
    this.#logging = false;
    await endDirtyLog(this.#options.dirtyLog);
  }

  /** What the restorer wrote is the primary's, not the domain's own: else each list would hold the one before it. */
  async #emptyLog(): Promise<void> {
    const { dirtyLog } = this.#options;
    if (this.#logging) {
      await dirtyLog.cleanLogDirty(this.#bitmap);
    } else {
      await takeDirtyLog(dirtyLog);
      this.#logging = true;
    }
  }

  /** libxc's send_checkpoint_dirty_pfn_list. */
  async #sendDirtyPfns(epoch: number): Promise<'processed' | 'BROKEN_CHANNEL'> {
    const { dirtyLog, back } = this.#options;
    await dirtyLog.cleanLogDirty(this.#bitmap);
    const piece = dirtyPfnPiece(this.#bitmap);
    try {
      await back.write(piece);
      await back.boundary(epoch, false);
      await back.drain();
      return 'processed';
    } catch (error) {
      this.backFailure = romulusError(error, (cause) => {
        const message = `the back channel cannot be written: ${cause.message}`;
        return new RestoreError('BACK_CHANNEL_BROKEN', message, {}, { cause });
      });
      return 'BROKEN_CHANNEL';
    }
  }
}

function dirtyPfnPiece(bitmap: Bitmap): StreamPiece {
  const pfns = new Uint32Array(bitmap.count());
  let count = 0;
  for (let pfn = bitmap.next(0); pfn >= 0; pfn = bitmap.next(pfn + 1)) pfns[count++] = pfn;
  return pieceOf(recordParts(RecordType.CHECKPOINT_DIRTY_PFN_LIST, encodeDirtyPfnList(pfns)));
}
