// Where the latest content of each pfn stands in a stream file: a hash table in two typed arrays (open addressing,
// linear probing), 12 octets a slot. It grows with the number of different pfns, whatever they are, so a stream that
// scatters them costs no more than one that does not.
//
//   pfn ──hash──▶ slot:  pfns[slot] │ values[slot] = offset of the page × 16 + page type

import { valueAt } from '../bounds.js';
import { INVALID_FRAME, hasPageData } from '../format.js';

const SLOTS_MIN = 1024;
/** Share of the slots that may be taken. */
const LOAD_MAX = 0.8;
/** Knuth's multiplier, 2^32 / golden ratio. */
const MULTIPLIER = 0x9e3779b1;

export class PageIndex {
  #pfns = new Uint32Array(SLOTS_MIN).fill(INVALID_FRAME);
  #values = new Float64Array(SLOTS_MIN);
  #shift = 32 - Math.log2(SLOTS_MIN);
  #size = 0;

  /** Different pfns. */
  get size(): number {
    return this.#size;
  }

  /** Octets of memory that it takes. */
  get bytes(): number {
    return this.#pfns.byteLength + this.#values.byteLength;
  }

  /** `offset` of the page's data in the file, below 2^49; meaningless for a type without data. INVALID_FRAME is none. */
  set(pfn: number, type: number, offset: number): void {
    if (pfn === INVALID_FRAME) return;
    const slot = this.#slot(pfn);
    if (this.#pfns[slot] === INVALID_FRAME) {
      this.#pfns[slot] = pfn;
      this.#size += 1;
    }
    this.#values[slot] = hasPageData(type) ? offset * 16 + type : type;
    if (this.#size > this.#pfns.length * LOAD_MAX) {
      this.#grow();
    }
  }

  /** Page type of a pfn that is in the index. */
  typeOf(pfn: number): number {
    return valueAt(this.#values, this.#slot(pfn)) % 16;
  }

  offsetOf(pfn: number): number {
    return Math.floor(valueAt(this.#values, this.#slot(pfn)) / 16);
  }

  /** Pfns of a type with data. */
  dataPages(): number {
    let count = 0;
    this.#pfns.forEach((pfn, slot) => {
      count += pfn !== INVALID_FRAME && hasPageData(valueAt(this.#values, slot) % 16) ? 1 : 0;
    });
    return count;
  }

  /** In rising order. */
  sortedPfns(): Uint32Array {
    return this.#pfns.filter((pfn) => pfn !== INVALID_FRAME).sort();
  }

  /** Where the pfn is, or would be. */
  #slot(pfn: number): number {
    const last = this.#pfns.length - 1;
    let slot = Math.imul(pfn, MULTIPLIER) >>> this.#shift;
    for (;;) {
      const there = this.#pfns[slot];
      if (there === pfn || there === INVALID_FRAME) return slot;
      slot = slot === last ? 0 : slot + 1;
    }
  }

  #grow(): void {
    const pfns = this.#pfns;
    const values = this.#values;
    this.#pfns = new Uint32Array(pfns.length * 2).fill(INVALID_FRAME);
    this.#values = new Float64Array(pfns.length * 2);
    this.#shift -= 1;
    pfns.forEach((pfn, old) => {
      if (pfn !== INVALID_FRAME) {
        const slot = this.#slot(pfn);
        this.#pfns[slot] = pfn;
        this.#values[slot] = valueAt(values, old);
      }
    });
  }
}
