// Looks at a packed control message before it is unpacked, and lets only plain ones through: one map of scalars,
// in which a value may be a map of scalars again. Why not unpack and then look: a few octets can claim an array of
// 2^32 elements or a type extension that builds objects, and the unpacker believes them. Here nothing is allocated,
// and every length is held against the octets that are there.
//
//   map: fixmap 80..8f, map16 de        string: fixstr a0..bf, str8 d9, str16 da      binary: bin8 c4, bin16 c5
//   nil c0, false c2, true c3           integers: 00..7f, e0..ff, cc..d3              floats: ca, cb
//   refused: arrays, extensions, long forms, keys that are no short string, depth beyond two, octets left over

import { ChannelError } from '../contract.js';

const ENTRIES_MAX = 64;
const KEY_BYTES_MAX = 64;
const DEPTH_MAX = 2;
/** Octets after the tag, of values that always have as many. */
const FIXED_BYTES: ReadonlyMap<number, number> = new Map([
  ...[0xc0, 0xc2, 0xc3].map((tag) => [tag, 0] as const), // nil, false, true
  ...[0xcc, 0xd0].map((tag) => [tag, 1] as const), // uint8, int8
  ...[0xcd, 0xd1].map((tag) => [tag, 2] as const), // uint16, int16
  ...[0xca, 0xce, 0xd2].map((tag) => [tag, 4] as const), // float32, uint32, int32
  ...[0xcb, 0xcf, 0xd3].map((tag) => [tag, 8] as const), // float64, uint64, int64
]);

function bad(reason: string, offset: number): ChannelError {
  return new ChannelError('BAD_MESSAGE', `a control message ${reason}`, { reason, offset });
}

/** @throws ChannelError BAD_MESSAGE unless bytes[start …] is exactly one plain map */
export function checkPlainMap(bytes: Uint8Array, start: number): void {
  const end = checkMap(bytes, start, 1);
  if (end !== bytes.length) throw bad('has octets left over', end);
}

function octet(bytes: Uint8Array, offset: number): number {
  const value = bytes[offset];
  if (value === undefined) throw bad('ends too early', offset);
  return value;
}

function octets16(bytes: Uint8Array, offset: number): number {
  return octet(bytes, offset) * 256 + octet(bytes, offset + 1);
}

/** The offset after a value of `length` octets that begins at `offset`. */
function skip(bytes: Uint8Array, offset: number, length: number): number {
  if (offset + length > bytes.length) throw bad('ends too early', offset);
  return offset + length;
}

function checkMap(bytes: Uint8Array, start: number, depth: number): number {
  const tag = octet(bytes, start);
  let count: number;
  let offset = start + 1;
  if (tag >= 0x80 && tag <= 0x8f) {
    count = tag & 0x0f;
  } else if (tag === 0xde) {
    count = octets16(bytes, offset);
    offset += 2;
  } else {
    throw bad('is not a map', start);
  }
  if (depth > DEPTH_MAX) throw bad('is nested too deep', start);
  if (count > ENTRIES_MAX) throw bad('has too many fields', start);
  for (let i = 0; i < count; i++) {
    offset = checkKey(bytes, offset);
    offset = checkValue(bytes, offset, depth);
  }
  return offset;
}

function checkKey(bytes: Uint8Array, start: number): number {
  const tag = octet(bytes, start);
  if (tag >= 0xa0 && tag <= 0xbf) return skip(bytes, start + 1, tag & 0x1f);
  if (tag !== 0xd9) throw bad('has a key that is no short string', start);
  const length = octet(bytes, start + 1);
  if (length > KEY_BYTES_MAX) throw bad('has a key that is too long', start);
  return skip(bytes, start + 2, length);
}

function checkValue(bytes: Uint8Array, start: number, depth: number): number {
  const tag = octet(bytes, start);
  const next = start + 1;
  if (tag <= 0x7f || tag >= 0xe0) return next;
  if (tag <= 0x8f) return checkMap(bytes, start, depth + 1);
  if (tag >= 0xa0 && tag <= 0xbf) return skip(bytes, next, tag & 0x1f);
  const fixed = FIXED_BYTES.get(tag);
  if (fixed !== undefined) return skip(bytes, next, fixed);
  switch (tag) {
    case 0xc4: // bin8
    case 0xd9: // str8
      return skip(bytes, next + 1, octet(bytes, next));
    case 0xc5: // bin16
    case 0xda: // str16
      return skip(bytes, next + 2, octets16(bytes, next));
    case 0xde: // map16
      return checkMap(bytes, start, depth + 1);
    default:
      throw bad('has a value of a kind that control messages do not have', start);
  }
}
