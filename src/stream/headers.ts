// The two headers that stand before the records, decoded and encoded.
//
//   image header (24)   marker 8 × FF | id "XENF" u32 | version u32 | options u16 | reserved 6     all big-endian
//   domain header (16)  type u32 | page_shift u16 | reserved 2 | xen_major u32 | xen_minor u32     little-endian
//
// Reserved fields are written as zeroes and not looked at when read, as the specification wants.

import { StreamError } from './error.js';
import {
  DOMAIN_HEADER_BYTES,
  DomainType,
  IMAGE_HEADER_BYTES,
  IMAGE_ID,
  IMAGE_OPTION_BIG_ENDIAN,
  IMAGE_VERSION,
  IMAGE_VERSION_OLDEST,
  PAGE_SHIFT,
} from './format.js';
import { viewOf } from './octets.js';

const MARKER = 0xffffffffffffffffn;

export interface ImageHeader {
  /** 2 or 3. */
  readonly version: number;
}

export interface DomainHeader {
  readonly domainType: DomainType;
  readonly pageShift: number;
  /** 0 for a stream that was converted from the legacy format; xenMinor is the converter's version then. */
  readonly xenMajor: number;
  readonly xenMinor: number;
}

/**
 * Decodes the image header, the first 24 octets of a stream.
 * @param offset where it stands, for the facts of an error: not 0 where libxc's stream lies in another layer's
 * @throws StreamError TRUNCATED, BAD_MARKER, BAD_ID, UNSUPPORTED_VERSION, BIG_ENDIAN
 */
export function decodeImageHeader(bytes: Uint8Array, offset = 0): ImageHeader {
  demand(bytes, IMAGE_HEADER_BYTES, 'image header', offset);
  const view = viewOf(bytes);
  const marker = view.getBigUint64(0);
  if (marker !== MARKER) {
    throw new StreamError('BAD_MARKER', 'not a libxc stream: it does not begin with the marker', {
      offset,
      marker: `0x${marker.toString(16).padStart(16, '0')}`,
    });
  }
  const id = view.getUint32(8);
  if (id !== IMAGE_ID) {
    throw new StreamError('BAD_ID', 'not a libxc stream: the id is not "XENF"', {
      offset: offset + 8,
      id: `0x${id.toString(16).padStart(8, '0')}`,
    });
  }
  const version = view.getUint32(12);
  if (version < IMAGE_VERSION_OLDEST || version > IMAGE_VERSION) {
    throw new StreamError(
      'UNSUPPORTED_VERSION',
      `stream version ${version}: only ${IMAGE_VERSION_OLDEST} to ${IMAGE_VERSION} can be read`,
      { offset: offset + 12, version },
    );
  }
  const options = view.getUint16(16);
  if ((options & IMAGE_OPTION_BIG_ENDIAN) !== 0) {
    throw new StreamError('BIG_ENDIAN', 'the stream is big-endian', { offset: offset + 16, options });
  }
  return { version };
}

/**
 * Decodes the domain header, the 16 octets that follow the image header.
 * @throws StreamError TRUNCATED, UNKNOWN_DOMAIN_TYPE, BAD_PAGE_SHIFT
 */
export function decodeDomainHeader(bytes: Uint8Array, offset: number = IMAGE_HEADER_BYTES): DomainHeader {
  demand(bytes, DOMAIN_HEADER_BYTES, 'domain header', offset);
  const view = viewOf(bytes);
  const domainType = view.getUint32(0, true);
  if (domainType !== DomainType.X86_PV && domainType !== DomainType.X86_HVM) {
    throw new StreamError('UNKNOWN_DOMAIN_TYPE', `domain type ${domainType} is not known`, {
      offset,
      domainType,
    });
  }
  const pageShift = view.getUint16(4, true);
  if (pageShift !== PAGE_SHIFT) {
    throw new StreamError('BAD_PAGE_SHIFT', `pages of 2^${pageShift} octets, expected 2^${PAGE_SHIFT}`, {
      offset: offset + 4,
      pageShift,
    });
  }
  return { domainType, pageShift, xenMajor: view.getUint32(8, true), xenMinor: view.getUint32(12, true) };
}

/** The image header of a little-endian stream. Streams are written in version 3; 2 is there for tests and tools. */
export function encodeImageHeader(version = IMAGE_VERSION): Uint8Array {
  const bytes = new Uint8Array(IMAGE_HEADER_BYTES);
  const view = viewOf(bytes);
  view.setBigUint64(0, MARKER);
  view.setUint32(8, IMAGE_ID);
  view.setUint32(12, version);
  return bytes;
}

/** What a saver says of its domain; pages are 4096 octets always. */
export type DomainFacts = Omit<DomainHeader, 'pageShift'>;

export function encodeDomainHeader(header: DomainFacts): Uint8Array {
  const bytes = new Uint8Array(DOMAIN_HEADER_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, header.domainType, true);
  view.setUint16(4, PAGE_SHIFT, true);
  view.setUint32(8, header.xenMajor, true);
  view.setUint32(12, header.xenMinor, true);
  return bytes;
}

/** Both headers, as a stream begins: 40 octets, version 3, little-endian. */
export function encodeHeaders(header: DomainFacts): Uint8Array {
  const bytes = new Uint8Array(IMAGE_HEADER_BYTES + DOMAIN_HEADER_BYTES);
  bytes.set(encodeImageHeader(), 0);
  bytes.set(encodeDomainHeader(header), IMAGE_HEADER_BYTES);
  return bytes;
}

function demand(bytes: Uint8Array, length: number, name: string, offset: number): void {
  if (bytes.length < length) {
    throw new StreamError('TRUNCATED', `the ${name} is cut: ${bytes.length} of ${length} octets`, {
      offset,
      length: bytes.length,
    });
  }
}
