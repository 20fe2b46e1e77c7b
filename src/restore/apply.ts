// Applying a record to the domain (libxc's process_record and process_page_data). Page data goes to the domain as it
// stands in the record, a whole record at a time.

import type { RecordResult } from '../guest/ops.js';
import { valueAt } from '../stream/bounds.js';
import { PAGE_SIZE, RecordType, hasPageData } from '../stream/format.js';
import { decodeEmulatorContext } from '../stream/libxl.js';
import { decodePageData } from '../stream/page-data.js';
import type { StreamRecord } from '../stream/record.js';
import type { RestoreContext } from './context.js';

/** Applies any record but CHECKPOINT and END. It was admitted before. */
export async function processRecord(context: RestoreContext, record: StreamRecord): Promise<RecordResult> {
  const started = context.clock();
  const result = await dispatch(context, record);
  context.applyMs += context.clock() - started;
  context.records++;
  return result;
}

async function dispatch(context: RestoreContext, record: StreamRecord): Promise<RecordResult> {
  if (record.layer === 'libxl') {
    // Of libxl's records only EMULATOR_CONTEXT is admitted to be applied. A copy: it may be part of a large chunk.
    context.emulatorContext = decodeEmulatorContext(record).context.slice();
    return 'processed';
  }
  switch (record.type) {
    case RecordType.PAGE_DATA:
      await processPageData(context, record);
      return 'processed';
    case RecordType.VERIFY:
      context.verify = true;
      return 'processed';
    case RecordType.STATIC_DATA_END:
      await context.handleStaticDataEnd();
      return 'processed';
    case RecordType.DISKS:
    case RecordType.DISK_WRITES:
      await context.disks?.apply(record);
      return 'processed';
    default:
      return context.ops.processRecord(context, record);
  }
}

async function processPageData(context: RestoreContext, record: StreamRecord): Promise<void> {
  const { ops, batch, domain } = context;
  // Version 2 streams have no STATIC_DATA_END: it is here.
  if (!context.seenStaticDataEnd && context.formatVersion < 3) await context.handleStaticDataEnd();

  decodePageData(record, batch);
  const { pfns, types, count } = batch;
  await context.populatePfns(pfns, count, types);
  context.reserveData(batch.dataPages);
  const { gfns, dataPfns, dataTypes } = context;
  const { body } = record;
  let pages = 0;
  let at = batch.dataOffset;
  for (let i = 0; i < count; i++) {
    const pfn = valueAt(pfns, i);
    const type = valueAt(types, i);
    ops.setPageType(context, pfn, type);
    if (!hasPageData(type)) continue;
    const populating = ops.localisePage(context, type, body, at);
    if (populating !== undefined) await populating;
    gfns[pages] = ops.pfnToGfn(context, pfn);
    dataPfns[pages] = pfn;
    dataTypes[pages] = type;
    pages++;
    at += PAGE_SIZE;
  }
  if (pages === 0) return;
  const data = body.subarray(batch.dataOffset);
  context.pages += pages;
  if (!context.verify) {
    const copying = context.beforeWrite(gfns, pages);
    if (copying !== undefined) await copying;
    await domain.writePages(gfns, pages, data);
    return;
  }
  const different = await domain.comparePages(gfns, pages, data);
  if (different.length > 0) {
    context.callbacks.verifyMismatch?.(
      different.map((i) => ({ pfn: valueAt(dataPfns, i), type: valueAt(dataTypes, i) })),
    );
  }
}
