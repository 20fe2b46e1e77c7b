// The header that `xl save` and `xl migrate` put before libxl's stream: which format follows, and the domain's
// configuration.
//
//   | magic 32 | byte order u32 | mandatory flags u32 | optional flags u32 | optional data length u32 | optional data |
//
//   optional data:  | length u32 | configuration, JSON, with its final NUL | whatever a later xl may add |
//
// Source: struct save_file_header in Xen's tools/xl, and files that xl 4.17 wrote.

import { StreamError } from './error.js';
import { beginsWith, viewOf } from './octets.js';

export const XL_HEADER_BYTES = 48;
const MAGIC = new TextEncoder().encode('Xen saved domain, xl format\n \0 \r');
const BYTE_ORDER = 0x01020304;
const BYTE_ORDER_SWAPPED = 0x04030201;

/** The configuration is JSON (not the text of an xl.cfg). */
const FLAG_JSON = 1;
/** libxl's stream is of version 2. */
const FLAG_STREAM_V2 = 2;
const FLAGS_KNOWN = FLAG_JSON | FLAG_STREAM_V2;

/** Octets of optional data that are taken. A configuration has thousands; the format's field has room for 4 GiB. */
export const XL_OPTIONAL_DATA_MAX = 16 * 1024 * 1024;

export interface XlHeader {
  readonly mandatoryFlags: number;
  readonly optionalFlags: number;
  /** The configuration as it stands in the file, final NUL included. */
  readonly config: Uint8Array;
  /** Optional data after the configuration; no xl that is known writes any. */
  readonly more: Uint8Array;
}

export function beginsLikeXl(bytes: Uint8Array): boolean {
  return beginsWith(bytes, MAGIC);
}

/**
 * Octets of the whole header, from its first XL_HEADER_BYTES.
 * @throws StreamError BAD_ID, BIG_ENDIAN, BAD_MARKER, UNSUPPORTED_VERSION, RECORD_TOO_LONG
 */
export function xlHeaderLength(bytes: Uint8Array): number {
  if (!beginsLikeXl(bytes) || bytes.length < XL_HEADER_BYTES) {
    throw new StreamError('BAD_ID', 'not a file of xl: it does not begin with the magic', { offset: 0 });
  }
  const view = viewOf(bytes);
  const byteOrder = view.getUint32(32, true);
  if (byteOrder === BYTE_ORDER_SWAPPED) {
    throw new StreamError('BIG_ENDIAN', "xl's header is big-endian", { offset: 32, byteOrder });
  }
  if (byteOrder !== BYTE_ORDER) {
    throw new StreamError('BAD_MARKER', "the byte order in xl's header is none", { offset: 32, byteOrder });
  }
  const flags = view.getUint32(36, true);
  if ((flags & ~FLAGS_KNOWN) !== 0 || (flags & FLAG_STREAM_V2) === 0) {
    const what = (flags & ~FLAGS_KNOWN) !== 0 ? 'later than 2' : '1 (legacy)';
    throw new StreamError('UNSUPPORTED_VERSION', `the stream in xl's file is of version ${what}`, {
      offset: 36,
      flags,
    });
  }
  const length = view.getUint32(44, true);
  if (length > XL_OPTIONAL_DATA_MAX) {
    throw new StreamError('RECORD_TOO_LONG', `${length} octets of optional data in xl's header`, {
      offset: 44,
      length,
      limit: XL_OPTIONAL_DATA_MAX,
    });
  }
  return XL_HEADER_BYTES + length;
}

/**
 * Decodes a header that is there whole (xlHeaderLength says how long it is). The byte fields are views.
 * @throws StreamError as xlHeaderLength; TRUNCATED; BAD_RECORD if the optional data has no whole configuration
 */
export function decodeXlHeader(bytes: Uint8Array): XlHeader {
  const end = xlHeaderLength(bytes);
  if (bytes.length < end) {
    throw new StreamError('TRUNCATED', `xl's header is cut: ${bytes.length} of ${end} octets`, { offset: 0 });
  }
  const view = viewOf(bytes);
  const configStart = XL_HEADER_BYTES + 4;
  const configEnd = configStart <= end ? configStart + view.getUint32(XL_HEADER_BYTES, true) : configStart;
  if (configEnd > end) {
    throw new StreamError('BAD_RECORD', "the optional data in xl's header holds no whole configuration", {
      offset: XL_HEADER_BYTES,
      length: end - XL_HEADER_BYTES,
    });
  }
  return {
    mandatoryFlags: view.getUint32(36, true),
    optionalFlags: view.getUint32(40, true),
    config: bytes.subarray(configStart, configEnd),
    more: bytes.subarray(configEnd, end),
  };
}

/** Encodes the whole header. @throws StreamError RECORD_TOO_LONG */
export function encodeXlHeader(header: XlHeader): Uint8Array {
  const configStart = XL_HEADER_BYTES + 4;
  const configEnd = configStart + header.config.length;
  const bytes = new Uint8Array(configEnd + header.more.length);
  const view = viewOf(bytes);
  bytes.set(MAGIC);
  view.setUint32(32, BYTE_ORDER, true);
  view.setUint32(36, header.mandatoryFlags, true);
  view.setUint32(40, header.optionalFlags, true);
  view.setUint32(44, bytes.length - XL_HEADER_BYTES, true);
  view.setUint32(XL_HEADER_BYTES, header.config.length, true);
  bytes.set(header.config, configStart);
  bytes.set(header.more, configEnd);
  xlHeaderLength(bytes);
  return bytes;
}

/** The header of a domain with this configuration (libxl's JSON), as xl writes it today. */
export function xlHeaderOf(json: string): XlHeader {
  return {
    mandatoryFlags: FLAG_JSON | FLAG_STREAM_V2,
    optionalFlags: 0,
    config: new TextEncoder().encode(`${json}\0`),
    more: new Uint8Array(0),
  };
}

/** The configuration as text, without its final NUL. */
export function xlConfigText(header: XlHeader): string {
  return new TextDecoder().decode(header.config).replace(/\0+$/, '');
}
