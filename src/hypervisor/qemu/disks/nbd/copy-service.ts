// Copies of disks, in the thread that hears of the guest's writes, because both must be told in one order. What is
// copied is posted as it comes, with the number of the epoch that it belongs to; the slabs come back.

import type { Slab } from '../../../../disk/extents.js';
import { DirtyMap } from '../../../../disk/dirty-map.js';
import { asError } from '../../../../errors.js';
import { ALLOCATION } from './block-status.js';
import { NbdClient } from './client.js';
import { copyDisk, type CopyBatch, type CopyProgress } from './copy.js';
import { NbdError } from './error.js';
import type { DiskExport } from './export.js';
import type { CopyRequest, ErrorMessage, Post } from './messages.js';

interface Copy {
  readonly stop: AbortController;
  /** Of the batches that have been posted and not been taken yet, by number. */
  readonly batches: Map<number, (slab: Slab | null) => void>;
  /** Rejects with the reason when it is stopped. */
  readonly stopped: Promise<never>;
}

export class CopyService {
  readonly #post: Post;
  readonly #epoch: () => number;
  readonly #copies = new Map<number, Copy>();
  #batch = 0;

  /** @param epoch how many epochs have ended by now */
  constructor(post: Post, epoch: () => number) {
    this.#post = post;
    this.#epoch = epoch;
  }

  start(request: CopyRequest, disk: DiskExport): void {
    const stop = new AbortController();
    const stopped = new Promise<never>((_, reject) => {
      stop.signal.addEventListener('abort', () => reject(asError(stop.signal.reason)), { once: true });
    });
    stopped.catch(() => undefined); // told to those who wait for it
    const copy = { stop, batches: new Map(), stopped };
    this.#copies.set(request.id, copy);
    void this.#run(request, disk, copy);
  }

  /** A slab that is too late for its copy is left to the garbage collector. */
  taken(id: number, batch: number, slab: Slab | null): void {
    const copy = this.#copies.get(id);
    copy?.batches.get(batch)?.(slab);
    copy?.batches.delete(batch);
  }

  stop(id: number): void {
    this.#copies.get(id)?.stop.abort(new NbdError('CLOSED', 'the copy was stopped'));
  }

  async #run(
    { id, path, exportName, isKept, todo, bytesPerSecond }: CopyRequest,
    disk: DiskExport,
    copy: Copy,
  ): Promise<void> {
    const map = new DirtyMap(disk.bytes, todo);
    const { signal } = copy.stop;
    let error: ErrorMessage | null = null;
    try {
      const client = await NbdClient.connect({ path, exportName, isKept, contexts: [ALLOCATION], signal });
      try {
        const take = (batch: CopyBatch, progress: CopyProgress) => this.#take(id, copy, batch, progress);
        await copyDisk({ ...{ client, mask: disk.mask, todo: map, bytesPerSecond }, take, signal });
      } finally {
        client.close();
      }
    } catch (thrown) {
      error = toMessage(thrown);
    }
    this.#copies.delete(id);
    this.#post({ kind: 'copy-ended', id, error, left: map.words }, [map.words.buffer]);
  }

  #take(id: number, copy: Copy, { extents, slab }: CopyBatch, progress: CopyProgress): Promise<Slab | null> {
    const batch = this.#batch++;
    const taken = new Promise<Slab | null>((resolve) => copy.batches.set(batch, resolve));
    const epoch = this.#epoch();
    this.#post({ kind: 'copied', id, batch, epoch, extents, slab, progress }, slab ? [slab.buffer] : []);
    return Promise.race([taken, copy.stopped]);
  }
}

function toMessage(thrown: unknown): ErrorMessage {
  const { message } = asError(thrown);
  return thrown instanceof NbdError
    ? { code: thrown.code, message, facts: thrown.facts }
    : { code: 'FAILED', message, facts: {} };
}
