// What the thread that serves the exports does: the server, the memory that the data lie in, and the end of an epoch.
//
// An epoch ends where the other thread counts, not where its message is read: the count is looked at before anything of
// the guest's is, so that what is written after the pause is never in the epoch before.
//
//   other thread   count, post `seal`, let the guest run ─────────▶ …          the data, by and by
//   this thread         ┊        ┊ data have arrived: the count has changed: sealed ▲
//                       ┊        └ `seal` is read: sealed, if it is not; answered ──┘

import { CopyService } from './copy-service.js';
import type { Post, SealedDisk, ServerRequest, ServerStart } from './messages.js';
import { SLAB_BYTES } from '../../../../disk/extents.js';
import { SlabPool } from '../../../../disk/slab-pool.js';
import { DiskExport } from './export.js';
import { NbdServer } from './server.js';

/** Pressure is told when so much of the memory is left. */
const LITTLE = 1 / 4;

export class NbdService {
  readonly #start: ServerStart;
  readonly #post: Post;
  readonly #pool: SlabPool;
  readonly #littleSlabs: number;
  readonly #server: NbdServer;
  readonly #copies: CopyService;
  /** Epochs that have ended for us; those whose data have not been asked for yet wait. */
  #epochs = 0;
  #sealed: SealedDisk[][] = [];
  #isPressed = false;

  constructor(start: ServerStart, post: Post) {
    this.#start = start;
    this.#post = post;
    this.#pool = new SlabPool(start.poolBytes);
    this.#copies = new CopyService(post, () => {
      // What is copied may be newer than the end of an epoch that we have not heard of.
      this.#catchUp();
      return this.#epochs;
    });
    this.#pool.onTaken = () => this.#taken();
    this.#littleSlabs = Math.ceil((start.poolBytes / SLAB_BYTES) * LITTLE);
    const exports = start.disks.map(({ name, bytes }) => this.makeExport(name, bytes, this.#pool));
    this.#server = new NbdServer(exports, {
      arriving: () => this.#catchUp(),
      connected: (disk) => post({ kind: 'connected', disk }, []),
      lost: (disk, error) => post({ kind: 'lost', disk, reason: error?.message ?? null }, []),
    });
  }

  /** @throws NbdError FAILED */
  async listen(): Promise<void> {
    await this.#server.listen(this.#start.path);
  }

  take(request: ServerRequest): void {
    switch (request.kind) {
      case 'ask':
        this.#post({ kind: 'alive', figures: this.#server.exports.map(({ figures }) => figures) }, []);
        return;
      case 'seal': {
        this.#catchUp();
        const disks = this.#sealed.shift() ?? [];
        const buffers = disks.flatMap(({ slabs, dirty }) => [...slabs, ...(dirty ? [dirty] : [])]);
        this.#post(
          { kind: 'sealed', disks },
          buffers.map(({ buffer }) => buffer),
        );
        return;
      }
      case 'release':
        for (const slab of request.slabs) this.#pool.give(slab);
        for (const disk of this.#server.exports) disk.onRoom();
        return;
      case 'let-through':
        this.#catchUp();
        for (const disk of this.#server.exports) disk.letThrough();
        return;
      case 'mode': {
        this.#catchUp();
        const map = this.#server.export(request.disk).setMode(request.mode)?.words ?? null;
        this.#post({ kind: 'mode-set', map }, map === null ? [] : [map.buffer]);
        return;
      }
      case 'copy':
        this.#copies.start(request, this.#server.export(request.disk));
        return;
      case 'copy-taken':
        this.#copies.taken(request.id, request.batch, request.slab);
        return;
      case 'copy-stop':
        this.#copies.stop(request.id);
    }
  }

  protected makeExport(name: string, bytes: number, pool: SlabPool): DiskExport {
    return new DiskExport(name, bytes, pool);
  }

  #taken(): void {
    if (this.#isPressed || this.#pool.available > this.#littleSlabs) return;
    this.#isPressed = true;
    this.#post({ kind: 'pressure' }, []);
  }

  #catchUp(): void {
    for (const ended = Atomics.load(this.#start.epochs, 0); this.#epochs !== ended;) {
      this.#epochs = (this.#epochs + 1) | 0;
      this.#isPressed = false;
      this.#sealed.push(
        this.#server.exports.map((disk) => {
          const { dirty, ...sealed } = disk.seal();
          return { ...sealed, name: disk.name, dirty: dirty?.words ?? null };
        }),
      );
    }
  }
}
