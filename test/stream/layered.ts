// A layered stream taken apart, item by item, and written again: what the reader passes over is decoded here, the records
// are the reader's.

import { StreamError } from '../../src/stream/error.js';
import type { StreamHeaders } from '../../src/stream/flow.js';
import { DomainType, paddedLength } from '../../src/stream/format.js';
import { encodeDomainHeader, encodeImageHeader } from '../../src/stream/headers.js';
import {
  LIBXL_HEADER_BYTES,
  type LibxlHeader,
  LibxlRecordType,
  decodeLibxlHeader,
  encodeLibxlHeader,
} from '../../src/stream/libxl.js';
import { viewOf } from '../../src/stream/octets.js';
import { RecordReader, layerOf } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { concatenate, recordParts } from '../../src/stream/writer.js';
import { type XlHeader, decodeXlHeader, encodeXlHeader, xlHeaderLength } from '../../src/stream/xl.js';

/** One thing of the stream, with where it stands. */
export type LayeredItem = { readonly offset: number } & (
  | { readonly layer: 'xl'; readonly kind: 'header'; readonly header: XlHeader }
  | { readonly layer: 'libxl'; readonly kind: 'header'; readonly header: LibxlHeader }
  | { readonly layer: 'libxc'; readonly kind: 'headers'; readonly headers: StreamHeaders }
  | { readonly layer: 'libxl' | 'libxc'; readonly kind: 'record'; readonly record: StreamRecord }
);

/**
 * All that stands in the octets, which the reader is given.
 * @throws StreamError what the reader throws; TRUNCATED if libxc's headers do not come
 */
export function itemsOf(octets: Uint8Array, reader = new RecordReader()): LayeredItem[] {
  reader.push(octets);
  const headers = reader.headers();
  if (headers === null) {
    reader.end();
    return [];
  }
  const before = passedOver(octets);
  const offset = before.reduce((sum, item) => sum + itemLength(item), 0);
  const items: LayeredItem[] = [...before, { layer: 'libxc', kind: 'headers', offset, headers }];
  for (let record = reader.next(); record !== null; record = reader.next()) {
    items.push(itemOf(record));
  }
  return items;
}

export function itemOf(record: StreamRecord): LayeredItem {
  return { layer: record.layer ?? 'libxc', kind: 'record', offset: record.offset, record };
}

/** What stands before libxc's headers, which are there. */
function passedOver(octets: Uint8Array): LayeredItem[] {
  const items: LayeredItem[] = [];
  let offset = 0;
  if (layerOf(octets) === 'xl') {
    const header = decodeXlHeader(octets.subarray(0, xlHeaderLength(octets)));
    items.push({ layer: 'xl', kind: 'header', offset, header });
    offset = xlHeaderLength(octets);
  }
  if (layerOf(octets) === 'libxc') return items;
  const header = decodeLibxlHeader(octets.subarray(offset));
  items.push({ layer: 'libxl', kind: 'header', offset, header });
  offset += LIBXL_HEADER_BYTES;
  const view = viewOf(octets);
  for (let type = -1; type !== LibxlRecordType.LIBXC_CONTEXT;) {
    type = view.getUint32(offset, true);
    const length = view.getUint32(offset + 4, true);
    const record = { type, offset, body: octets.subarray(offset + 8, offset + 8 + length) };
    items.push({ layer: 'libxl', kind: 'record', offset, record });
    offset += 8 + paddedLength(length);
  }
  return items;
}

/** The octets of an item, in parts; bodies are not copied. What was read, written again, is what stood there. */
export function itemParts(item: LayeredItem): Uint8Array[] {
  if (item.kind === 'record') {
    return recordParts(item.record.type, item.record.body);
  }
  switch (item.layer) {
    case 'xl':
      return [encodeXlHeader(item.header)];
    case 'libxl':
      return [encodeLibxlHeader(item.header)];
    case 'libxc':
      return [encodeLibxcHeaders(item.headers)];
  }
}

export function itemLength(item: LayeredItem): number {
  return itemParts(item).reduce((sum, part) => sum + part.length, 0);
}

function encodeLibxcHeaders({ version, domainType, xenMajor, xenMinor }: StreamHeaders): Uint8Array {
  if (domainType !== DomainType.X86_PV && domainType !== DomainType.X86_HVM) {
    throw new StreamError('UNKNOWN_DOMAIN_TYPE', `domain type ${domainType} cannot be written`, {
      domainType,
    });
  }
  return concatenate([encodeImageHeader(version), encodeDomainHeader({ domainType, xenMajor, xenMinor })]);
}
