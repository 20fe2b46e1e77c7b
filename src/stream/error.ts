// What can be wrong with the bytes of a stream.

import { RomulusError } from '../errors.js';

export type StreamErrorCode =
  | 'BAD_MARKER' // the first 8 octets are not 8 × FF
  | 'BAD_ID' // not "XENF"
  | 'UNSUPPORTED_VERSION' // the image header's version is neither 2 nor 3
  | 'BIG_ENDIAN' // the image is big-endian
  | 'UNKNOWN_DOMAIN_TYPE' // the domain header's type is reserved
  | 'BAD_PAGE_SHIFT' // the guest's page size is not 4096
  | 'RECORD_TOO_LONG' // a record is longer than the limit
  | 'BAD_RECORD' // a record's body does not have the form of its type
  | 'UNKNOWN_PAGE_TYPE' // a pfn entry of PAGE_DATA carries a reserved type
  | 'PFN_OUT_OF_RANGE' // a pfn that cannot be held, or that the domain does not have
  | 'TRUNCATED' // the stream ends inside a header or a record
  | 'TRAILING_DATA'; // octets after the END record

/** Facts: `offset` (of the record or header in the stream), `type`, `length`, `pfn`, … as far as they apply. */
export class StreamError extends RomulusError<StreamErrorCode> {}
