// What can be wrong with the bytes of a stream.

import { RomulusError } from '../errors.js';

export type StreamErrorCode =
  | 'BAD_MARKER' // libxc: the first 8 octets are not 8 × FF; a file: it begins like no layer that is known
  | 'BAD_ID' // not "XENF" (libxc), "LibxlFmt" (libxl) or xl's magic
  | 'UNSUPPORTED_VERSION' // libxc: neither 2 nor 3; libxl: not 2; xl: mandatory flags of another time
  | 'BIG_ENDIAN' // the stream is big-endian
  | 'UNKNOWN_DOMAIN_TYPE' // the domain header's type is reserved
  | 'BAD_PAGE_SHIFT' // the guest's page size is not 4096
  | 'RECORD_TOO_LONG' // a record, or xl's optional data, is longer than the limit
  | 'BAD_RECORD' // a record's body does not have the form of its type, or it must not stand where it stands
  | 'UNKNOWN_PAGE_TYPE' // a pfn entry of PAGE_DATA carries a reserved type
  | 'PFN_OUT_OF_RANGE' // a pfn that cannot be held, or that the domain does not have
  | 'OUT_OF_DISK' // a disk that is not in the list, or octets that it does not have; facts `disk`, `end`, `bytes`
  | 'TRUNCATED' // the stream ends inside a header or a record
  | 'TRAILING_DATA' // octets after the END record
  | 'NOTHING_WHOLE'; // no domain can be made of it: neither END nor a complete checkpoint

/** Facts: `offset` (of the record or header in the stream), `type`, `length`, `pfn`, … as far as they apply. */
export class StreamError extends RomulusError<StreamErrorCode> {}
