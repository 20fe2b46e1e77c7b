// A set of pfns of a domain of any size: a bitmap in pieces that are made when the first pfn of theirs comes. A domain
// takes 32 octets a MiB of its memory. A stream that scatters its pfns could make it grow without end: it has a limit,
// and says when it was met.

const PIECE_PFNS = 32768;
/** 64 MiB of bitmap: 2 TiB of guest. */
const PIECES_MAX = 16384;

export class PfnSet {
  readonly #pieces = new Map<number, Uint32Array>();
  #size = 0;
  #overflowed = false;
  // The piece that was asked for last: pfns come in runs.
  #last: Uint32Array = new Uint32Array(0);
  #lastIndex = -1;

  /** Pfns in the set; null if there were more than it can hold. */
  get size(): number | null {
    return this.#overflowed ? null : this.#size;
  }

  add(pfn: number): void {
    const piece = this.#piece(pfn, true);
    const at = (pfn % PIECE_PFNS) >>> 5;
    const word = piece[at];
    const bit = 1 << (pfn & 31);
    if (word !== undefined && (word & bit) === 0) {
      piece[at] = word | bit;
      this.#size += 1;
    }
  }

  delete(pfn: number): void {
    const piece = this.#piece(pfn, false);
    const at = (pfn % PIECE_PFNS) >>> 5;
    const word = piece[at];
    const bit = 1 << (pfn & 31);
    if (word !== undefined && (word & bit) !== 0) {
      piece[at] = word & ~bit;
      this.#size -= 1;
    }
  }

  #piece(pfn: number, make: boolean): Uint32Array {
    const index = Math.floor(pfn / PIECE_PFNS);
    if (index === this.#lastIndex) return this.#last;
    let piece = this.#pieces.get(index);
    if (piece === undefined) {
      if (!make || this.#pieces.size >= PIECES_MAX) {
        this.#overflowed ||= make;
        return EMPTY;
      }
      piece = new Uint32Array(PIECE_PFNS / 32);
      this.#pieces.set(index, piece);
    }
    this.#last = piece;
    this.#lastIndex = index;
    return piece;
  }
}

const EMPTY = new Uint32Array(0);
