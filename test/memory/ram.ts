// The RAM of a memory domain: one shared array, which of its pages there are, and which were written to.

import { INVALID_FRAME, PAGE_SIZE } from '../../src/stream/format.js';
import { Bitmap } from '../../src/hypervisor/bitmap.js';
import { HypervisorError } from '../../src/hypervisor/port.js';

export class Ram {
  readonly pages: number;
  readonly octets: Uint8Array;
  /** Pages that have memory. */
  readonly populated: Bitmap;
  /** Pages written to since the log was cleared, while `logging`. */
  readonly log: Bitmap;
  logging = false;

  constructor(pages: number) {
    this.pages = pages;
    this.octets = new Uint8Array(new SharedArrayBuffer(pages * PAGE_SIZE));
    this.populated = new Bitmap(pages);
    this.log = new Bitmap(pages);
  }

  /** A view of one page. */
  page(pfn: number): Uint8Array {
    return this.octets.subarray(pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE);
  }

  /** Writes from an offset into a page on, over several pages if the bytes reach so far. */
  write(pfn: number, bytes: Uint8Array, offset: number): void {
    const last = pfn + Math.max(0, Math.ceil((offset + bytes.length) / PAGE_SIZE) - 1);
    for (let p = pfn; p <= last; p++) this.check(p);
    this.octets.set(bytes, pfn * PAGE_SIZE + offset);
    for (let p = pfn; p <= last; p++) this.mark(p);
  }

  clear(pfn: number): void {
    this.page(pfn).fill(0);
    this.mark(pfn);
  }

  mark(pfn: number): void {
    if (this.logging) this.log.set(pfn);
  }

  /** Copies pages into `slab` from `offset` on. Neighbours go together: one view and one copy per run of frames. */
  read(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): void {
    this.checkAll(gfns, count);
    const { octets } = this;
    let to = offset;
    for (let i = 0; i < count;) {
      const run = runLength(gfns, i, count);
      const from = (gfns[i] ?? 0) * PAGE_SIZE;
      const bytes = run * PAGE_SIZE;
      slab.set(octets.subarray(from, from + bytes), to);
      to += bytes;
      i += run;
    }
  }

  /** Writes the pages that lie one after another in `data`. */
  fill(gfns: Uint32Array, count: number, data: Uint8Array): void {
    this.checkAll(gfns, count);
    const { octets } = this;
    for (let i = 0; i < count;) {
      const run = runLength(gfns, i, count);
      octets.set(data.subarray(i * PAGE_SIZE, (i + run) * PAGE_SIZE), (gfns[i] ?? 0) * PAGE_SIZE);
      i += run;
    }
    if (this.logging) for (let i = 0; i < count; i++) this.log.set(gfns[i] ?? 0);
  }

  /** The indices of the pages that differ from those in `data`. */
  compare(gfns: Uint32Array, count: number, data: Uint8Array): number[] {
    this.checkAll(gfns, count);
    const mine = Buffer.from(this.octets.buffer);
    const different: number[] = [];
    for (let i = 0; i < count; i++) {
      const from = (gfns[i] ?? 0) * PAGE_SIZE;
      const at = i * PAGE_SIZE;
      if (mine.compare(data, at, at + PAGE_SIZE, from, from + PAGE_SIZE) !== 0) different.push(i);
    }
    return different;
  }

  /** @throws HypervisorError FRAME_OUT_OF_RANGE, NOT_POPULATED */
  check(gfn: number): void {
    this.checkRange(gfn);
    if (!this.populated.has(gfn)) {
      throw new HypervisorError('NOT_POPULATED', `frame ${gfn} has no memory`, { gfn });
    }
  }

  checkAll(gfns: Uint32Array, count: number): void {
    for (let i = 0; i < count; i++) this.check(gfns[i] ?? INVALID_FRAME);
  }

  /** @throws HypervisorError FRAME_OUT_OF_RANGE */
  checkRange(gfn: number): void {
    if (gfn >= this.pages) {
      throw new HypervisorError('FRAME_OUT_OF_RANGE', `the domain has no frame ${gfn}`, {
        gfn,
        pages: this.pages,
      });
    }
  }
}

/** How many of gfns[from …] follow one another in memory. */
function runLength(gfns: Uint32Array, from: number, count: number): number {
  const first = gfns[from] ?? INVALID_FRAME;
  let run = 1;
  while (from + run < count && gfns[from + run] === first + run) run++;
  return run;
}
