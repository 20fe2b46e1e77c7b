// The memory that the data of block writes lie in: slabs, a number of them at most, each made when it is first needed
// and used again once it has come back. So this number is the bound of all data that are kept, wherever they are.

import { DiskError } from './error.js';
import { SLAB_BYTES, type Slab } from './extents.js';

/** A place in the slabs of an epoch is a number of 32 bits. */
const SLABS_MAX = 2 ** 32 / SLAB_BYTES - 1;

export class SlabPool {
  /** Called whenever a slab has been taken. */
  onTaken: () => void = () => undefined;
  readonly #limit: number;
  readonly #free: Slab[] = [];
  #out = 0;

  /** @param limitBytes of all slabs together; there is one at least, and they are less than 4 GiB */
  constructor(limitBytes: number) {
    this.#limit = Math.min(SLABS_MAX, Math.max(1, Math.floor(limitBytes / SLAB_BYTES)));
  }

  /** Slabs that can be had. */
  get available(): number {
    return this.#limit - this.#out;
  }

  /** Whatever lies in it is overwritten. Null: none is left. */
  take(): Slab | null {
    if (this.#out === this.#limit) return null;
    this.#out++;
    this.onTaken();
    return this.#free.pop() ?? new Uint8Array(SLAB_BYTES);
  }

  /** @throws DiskError BAD_SLAB */
  give(slab: Slab): void {
    if (slab.length !== SLAB_BYTES || this.#out === 0) {
      throw new DiskError('BAD_SLAB', 'memory that is no slab of this pool', { length: slab.length });
    }
    this.#out--;
    this.#free.push(slab);
  }
}
