// The writer: records as lists of parts that a gathering write puts out without copying the body, and the few
// functions with which a saver lays PAGE_DATA out in memory that it owns.
//
//   recordParts(type, a, b)  ->  [ header 8 | a | b | zeroes 0…7 ]
//
//   slab:  | record header 8 | count u32, 0 u32 | pfn entry 8 × count | page 4096 × pages with data |
//            writeRecordHeader  writePageDataHeader  writePfnEntry

import { StreamError } from './error.js';
import { HEADROOM, type StreamPiece } from './flow.js';
import {
  RECORD_ALIGN,
  RECORD_HEADER_BYTES,
  RECORD_LENGTH_MAX,
  paddedLength,
  recordTypeName,
} from './format.js';
import { writeUint32 } from './octets.js';

export { encodeDomainHeader, encodeHeaders, encodeImageHeader } from './headers.js';

const zeroes = new Uint8Array(RECORD_ALIGN);

/**
 * A record whose body is the parts, one after another: its header, the parts themselves (not copied), its padding.
 * @throws StreamError RECORD_TOO_LONG if the body with its padding is longer than RECORD_LENGTH_MAX
 */
export function recordParts(type: number, ...parts: readonly Uint8Array[]): Uint8Array[] {
  let length = 0;
  for (const part of parts) {
    length += part.length;
  }
  const padded = paddedLength(length);
  if (padded > RECORD_LENGTH_MAX) {
    throw new StreamError(
      'RECORD_TOO_LONG',
      `a record (${recordTypeName(type)}) of ${length} octets, at most ${RECORD_LENGTH_MAX} can be written`,
      { type, length, limit: RECORD_LENGTH_MAX },
    );
  }
  const header = new Uint8Array(RECORD_HEADER_BYTES);
  writeRecordHeader(header, 0, type, length);
  const list: Uint8Array[] = [header];
  for (const part of parts) {
    if (part.length > 0) {
      list.push(part);
    }
  }
  if (padded > length) {
    list.push(zeroes.subarray(0, padded - length));
  }
  return list;
}

/** The same record in one run of octets, copied together. */
export function encodeRecord(type: number, ...parts: readonly Uint8Array[]): Uint8Array {
  return concatenate(recordParts(type, ...parts));
}

export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) {
    length += part.length;
  }
  const whole = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** The parts, one after another, as a piece of a stream in memory of its own. */
export function pieceOf(parts: readonly Uint8Array[]): StreamPiece {
  const memory = concatenate([new Uint8Array(HEADROOM), ...parts]);
  return { memory, start: HEADROOM, end: memory.length };
}

/** Writes the 8 octets of a record header to target[offset]. `length` is the body's, without padding. */
export function writeRecordHeader(target: Uint8Array, offset: number, type: number, length: number): void {
  writeUint32(target, offset, type);
  writeUint32(target, offset + 4, length);
}

/** Writes the 8 octets that PAGE_DATA's body begins with. */
export function writePageDataHeader(target: Uint8Array, offset: number, count: number): void {
  writeUint32(target, offset, count);
  writeUint32(target, offset + 4, 0);
}

/** Writes one entry of PAGE_DATA's pfn list, 8 octets: bits 60 to 63 the page type, bits 0 to 51 the pfn. */
export function writePfnEntry(target: Uint8Array, offset: number, pfn: number, type: number): void {
  writeUint32(target, offset, pfn);
  writeUint32(target, offset + 4, type << 28);
}
