// PAGE_DATA: which pages of the domain a record describes, of what type, and where their content stands.
//
//   | count C u32 | reserved u32 | entry u64 × C                          | page 4096 × N |
//                                  63-60 type | 59-52 reserved | 51-0 pfn
//
// N is the number of entries whose type has data. A saver puts at most 1024 entries into a record, a reader takes
// what fits the record. A small guest's stream can walk a million entries without data, so entries are handled by
// plain loops over typed arrays that are used again for the next record.

import type { StreamError } from './error.js';
import {
  MAX_BATCH_SIZE,
  PAGE_DATA_ENTRY_BYTES,
  PAGE_DATA_HEADER_BYTES,
  PAGE_SIZE,
  PFN_MAX,
  hasPageData,
  isKnownPageType,
} from './format.js';
import { readUint32, viewOf } from './octets.js';
import type { StreamRecord } from './record.js';
import { badRecord, recordError } from './records/shape.js';

/** Bits 32 to 51 of an entry, in its upper half: the part of the pfn that Romulus cannot hold. */
const PFN_HIGH_MASK = 0x000fffff;

// One bit per page type, so that a loop asks with a shift.
export const KNOWN_TYPES = typeMask(isKnownPageType);
const DATA_TYPES = typeMask(hasPageData);

/** The entries of one PAGE_DATA record. Its arrays grow and are used again: valid until the next decodePageData. */
export class PageBatch {
  /** Entries; the arrays may be longer. */
  count = 0;
  pfns: Uint32Array;
  /** PageType of each. */
  types: Uint8Array;
  /** Entries that have a page of data. */
  dataPages = 0;
  /** Where in the record's body the first page of data begins; the others follow, in the order of the entries. */
  dataOffset = 0;

  constructor(capacity: number = MAX_BATCH_SIZE) {
    this.pfns = new Uint32Array(capacity);
    this.types = new Uint8Array(capacity);
  }

  /** Makes room for `count` entries. */
  reserve(count: number): void {
    if (this.pfns.length < count) {
      this.pfns = new Uint32Array(count);
      this.types = new Uint8Array(count);
    }
  }
}

/**
 * Checks the form of a PAGE_DATA record, everything that a restorer checks before it touches the domain, and returns
 * the number of its pages that have data. Allocates nothing that grows with the record.
 * @throws StreamError BAD_RECORD, UNKNOWN_PAGE_TYPE, PFN_OUT_OF_RANGE
 */
export function checkPageData(record: StreamRecord): number {
  const { body } = record;
  if (body.length < PAGE_DATA_HEADER_BYTES) {
    throw badRecord(record, `shorter than its header of ${PAGE_DATA_HEADER_BYTES} octets`);
  }
  const count = readUint32(body, 0);
  if (count === 0) throw badRecord(record, 'without a single pfn');
  const dataOffset = PAGE_DATA_HEADER_BYTES + count * PAGE_DATA_ENTRY_BYTES;
  if (body.length < dataOffset) throw badRecord(record, `too short for its ${count} pfns`);
  const view = viewOf(body);
  let dataPages = 0;
  for (let at = PAGE_DATA_HEADER_BYTES; at < dataOffset; at += PAGE_DATA_ENTRY_BYTES) {
    const high = view.getUint32(at + 4, true);
    if ((high & PFN_HIGH_MASK) !== 0 || view.getUint32(at, true) > PFN_MAX) {
      throw badEntry('PFN_OUT_OF_RANGE', record, at);
    }
    const type = high >>> 28;
    if (((KNOWN_TYPES >>> type) & 1) === 0) throw badEntry('UNKNOWN_PAGE_TYPE', record, at);
    dataPages += (DATA_TYPES >>> type) & 1;
  }
  const expected = dataOffset + dataPages * PAGE_SIZE;
  if (body.length !== expected) {
    throw badRecord(
      record,
      `of the wrong size: ${count} pfns and ${dataPages} pages take ${expected} octets`,
    );
  }
  return dataPages;
}

/**
 * Decodes a PAGE_DATA record into `into`, which keeps its memory. The page data is not touched.
 * @throws StreamError as checkPageData; `into` is unchanged then
 */
export function decodePageData(record: StreamRecord, into: PageBatch): void {
  const dataPages = checkPageData(record);
  const { body } = record;
  const count = readUint32(body, 0);
  into.reserve(count);
  const { pfns, types } = into;
  const view = viewOf(body);
  let at = PAGE_DATA_HEADER_BYTES;
  for (let index = 0; index < count; index += 1) {
    pfns[index] = view.getUint32(at, true);
    types[index] = view.getUint32(at + 4, true) >>> 28;
    at += PAGE_DATA_ENTRY_BYTES;
  }
  into.count = count;
  into.dataPages = dataPages;
  into.dataOffset = at;
}

function typeMask(holds: (type: number) => boolean): number {
  let mask = 0;
  for (let type = 0; type < 16; type += 1) {
    mask |= holds(type) ? 1 << type : 0;
  }
  return mask;
}

function badEntry(
  code: 'PFN_OUT_OF_RANGE' | 'UNKNOWN_PAGE_TYPE',
  record: StreamRecord,
  at: number,
): StreamError {
  const entry = viewOf(record.body).getBigUint64(at, true);
  const index = (at - PAGE_DATA_HEADER_BYTES) / PAGE_DATA_ENTRY_BYTES;
  const pfn = entry & 0x000fffffffffffffn;
  const pageType = Number(entry >> 60n);
  return recordError(code, record, `with pfn 0x${pfn.toString(16)} of page type ${pageType}`, {
    index,
    pfn,
    pageType,
  });
}
