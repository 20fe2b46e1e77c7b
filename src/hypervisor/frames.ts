// The frames of a flat guest, 0 … size - 1: each is RAM, and a pfn is its own gfn. What the port's calls about pages
// have in common where a hypervisor's guests are like that.

import { valueAt } from '../stream/bounds.js';
import { INVALID_FRAME, PAGE_SIZE, PageType } from '../stream/format.js';
import { Bitmap } from './bitmap.js';
import { HypervisorError, failed } from './port.js';

export class FlatFrames {
  readonly size: number;
  readonly #populated: Bitmap | null;

  /** `empty`: no frame has memory until it is populated. Else all have. */
  constructor(size: number, { empty }: { empty: boolean }) {
    this.size = size;
    this.#populated = empty ? new Bitmap(size) : null;
  }

  /** @throws HypervisorError FRAME_OUT_OF_RANGE */
  check(gfn: number): void {
    if (gfn < this.size) return;
    const facts = { gfn, p2mSize: this.size };
    throw new HypervisorError('FRAME_OUT_OF_RANGE', 'the domain has no such frame', facts);
  }

  /** The first `count` of them. @throws HypervisorError FRAME_OUT_OF_RANGE */
  checkAll(gfns: Uint32Array, count: number): void {
    for (let k = 0; k < count; k++) this.check(valueAt(gfns, k));
  }

  /** As the port's pageTypes(). @throws HypervisorError FRAME_OUT_OF_RANGE */
  types(gfns: Uint32Array, count: number, types: Uint8Array): void {
    for (let k = 0; k < count; k++) {
      const gfn = valueAt(gfns, k);
      if (gfn !== INVALID_FRAME) this.check(gfn);
      types[k] = gfn === INVALID_FRAME ? PageType.XTAB : PageType.NOTAB;
    }
  }

  /** As the port's populate(). @throws HypervisorError FRAME_OUT_OF_RANGE */
  populate(pfns: Uint32Array, count: number, gfns: Uint32Array): void {
    this.checkAll(pfns, count);
    for (let k = 0; k < count; k++) {
      const pfn = valueAt(pfns, k);
      this.#populated?.set(pfn);
      gfns[k] = pfn;
    }
  }

  /** Of pages that are copied out. @throws HypervisorError FRAME_OUT_OF_RANGE, FAILED if the slab has no room */
  checkRead(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): void {
    this.checkAll(gfns, count);
    if (offset + count * PAGE_SIZE <= slab.length) return;
    const facts = { count, offset, length: slab.length };
    throw failed('the pages do not fit the slab', facts);
  }

  /** @throws HypervisorError FRAME_OUT_OF_RANGE, NOT_POPULATED */
  checkPopulated(gfns: Uint32Array, count: number): void {
    this.checkAll(gfns, count);
    if (this.#populated === null) return;
    for (let k = 0; k < count; k++) {
      const gfn = valueAt(gfns, k);
      if (this.#populated.has(gfn)) continue;
      throw new HypervisorError('NOT_POPULATED', 'the frame was never populated', { gfn });
    }
  }

  /** Of pages that come in. @throws HypervisorError FRAME_OUT_OF_RANGE, NOT_POPULATED, FAILED if there are too few */
  checkWrite(gfns: Uint32Array, count: number, data: Uint8Array): void {
    this.checkPopulated(gfns, count);
    if (data.length >= count * PAGE_SIZE) return;
    const facts = { count, length: data.length };
    throw failed('there are fewer pages than frames', facts);
  }

  /** Of a bitmap that dirty frames go into. @throws HypervisorError FAILED */
  checkBitmap(into: Bitmap): void {
    if (into.size === this.size) return;
    const facts = { size: into.size, p2mSize: this.size };
    throw failed('the bitmap is not of the domain’s size', facts);
  }
}
