// What a layered stream consists of: headers and records of its layers, each with its place, and their octets again.

import { StreamError } from './error.js';
import type { StreamHeaders } from './flow.js';
import { DomainType } from './format.js';
import { encodeDomainHeader, encodeImageHeader } from './headers.js';
import { type LibxlHeader, encodeLibxlHeader } from './libxl.js';
import type { StreamRecord } from './record.js';
import { concatenate, recordParts } from './writer.js';
import { type XlHeader, encodeXlHeader } from './xl.js';

export type Layer = 'xl' | 'libxl' | 'libxc';

/** One thing of the stream, with where it stands. */
export type LayeredItem =
  | { readonly layer: 'xl'; readonly kind: 'header'; readonly offset: number; readonly header: XlHeader }
  | {
      readonly layer: 'libxl';
      readonly kind: 'header';
      readonly offset: number;
      readonly header: LibxlHeader;
    }
  | {
      readonly layer: 'libxc';
      readonly kind: 'headers';
      readonly offset: number;
      readonly headers: StreamHeaders;
    }
  | {
      readonly layer: 'libxl' | 'libxc';
      readonly kind: 'record';
      readonly offset: number;
      readonly record: StreamRecord;
    };

/** The octets of an item, in parts; bodies are not copied. What the reader yielded, written again, is what it read. */
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

function encodeLibxcHeaders({ version, domainType, xenMajor, xenMinor }: StreamHeaders): Uint8Array {
  if (domainType !== DomainType.X86_PV && domainType !== DomainType.X86_HVM) {
    throw new StreamError('UNKNOWN_DOMAIN_TYPE', `domain type ${domainType} cannot be written`, {
      domainType,
    });
  }
  return concatenate([encodeImageHeader(version), encodeDomainHeader({ domainType, xenMajor, xenMinor })]);
}
