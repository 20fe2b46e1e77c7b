// A batch: at most 1024 pfns that become one PAGE_DATA record in the slab (libxc's write_batch).
//
//   pfns ─pfnToGfn─▶ gfns ─pageTypes─▶ types ─copyPages─▶ slab ─normalisePage─▶ record closed
//
// A page that cannot be made generic now ('again') gives its place in the record to the next one; its pfn goes as
// XTAB, and into the deferred pages.

import { valueAt } from '../stream/bounds.js';
import { hasPageData, INVALID_FRAME, isKnownPageType, PAGE_SIZE, PageType } from '../stream/format.js';
import type { SaveContext } from './context.js';
import { SaveError } from './error.js';
import type { Slab } from './slab.js';

/** Sends the first `count` of context.batchPfns; `slab` has room for them. */
export async function writeBatch(context: SaveContext, slab: Slab, count: number): Promise<void> {
  const { batchPfns, gfns, types, ops, domain } = context;
  for (let i = 0; i < count; i++) {
    const pfn = valueAt(batchPfns, i);
    const gfn = ops.pfnToGfn(context, pfn);
    gfns[i] = gfn;
    // Most likely ballooned out.
    if (gfn === INVALID_FRAME) context.defer(pfn);
  }
  await domain.pageTypes(gfns, count, types);

  let pages = 0;
  for (let i = 0; i < count; i++) {
    const type = valueAt(types, i);
    if (!isKnownPageType(type)) {
      const facts = { pfn: batchPfns[i], gfn: gfns[i], type };
      const message = `pfn ${valueAt(batchPfns, i)} is of the unknown type ${type}`;
      throw new SaveError('UNKNOWN_PAGE_TYPE', message, facts);
    }
    if (hasPageData(type)) gfns[pages++] = valueAt(gfns, i);
  }
  const offset = slab.pagesOffset(count);
  if (pages > 0) {
    await domain.copyPages(gfns, pages, slab.memory, offset);
    pages = normalise(context, slab.memory, offset, count);
  }
  context.addPiece(slab.closePageData(batchPfns, types, count, pages));
  context.sendReady();
}

/** Makes the copied pages generic; the number of those that stay. */
function normalise(context: SaveContext, memory: Uint8Array, offset: number, count: number): number {
  const { batchPfns, types, ops } = context;
  let from = offset;
  let to = offset;
  for (let i = 0; i < count; i++) {
    const type = valueAt(types, i);
    if (!hasPageData(type)) continue;
    if (ops.normalisePage(context, type, memory, from) === 'again') {
      const pfn = valueAt(batchPfns, i);
      if (context.suspended) {
        const message = `pfn ${pfn} cannot be made generic, and the domain is suspended`;
        throw new SaveError('NOT_NORMALISED', message, { pfn, type });
      }
      context.defer(pfn);
      types[i] = PageType.XTAB;
    } else {
      if (to !== from) memory.copyWithin(to, from, from + PAGE_SIZE);
      to += PAGE_SIZE;
    }
    from += PAGE_SIZE;
  }
  return (to - offset) / PAGE_SIZE;
}
