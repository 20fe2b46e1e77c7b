// The network block device's protocol, as far as QEMU and we speak it: numbers, sizes, and the fixed forms. All numbers
// are big-endian. The names are those of the protocol's description, which is the source of all numbers here.
//
//   handshake     server  NBDMAGIC | IHAVEOPT | u16 flags
//                 client  u32 flags
//                 client  IHAVEOPT | u32 option | u32 length | data      …until GO or EXPORT_NAME
//                 server  OPTION_REPLY | u32 option | u32 type | u32 length | data
//
//   transmission  client  u32 magic | u16 flags | u16 type | u64 cookie | u64 offset | u32 length | data of a write
//                 server  u32 magic | u32 error | u64 cookie | data of a read                          simple
//                         u32 magic | u16 flags | u16 type | u64 cookie | u32 length | payload         structured

export const NBD_MAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const GREETING_BYTES = 18;
export const CLIENT_FLAGS_BYTES = 4;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const REQUEST_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
export const STRUCTURED_REPLY_BYTES = 20;
/** The answer to EXPORT_NAME ends with this many zeroes, unless both sides said NO_ZEROES. */
export const EXPORT_NAME_ZEROES = 124;

/** The most octets that one request may read or write: what QEMU sends, and what any server has to take. */
export const REQUEST_LENGTH_MAX = 32 * 1024 * 1024;
/** No name is longer, and no text that is for people. */
export const NAME_BYTES_MAX = 4096;

/** Of the greeting and, with the same values, of the client's answer to it. */
export const HandshakeFlag = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;

export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  SET_META_CONTEXT: 10,
} as const;

export const OptionReply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  /** From here on it is an error. */
  ERROR: 2 ** 31,
  ERR_UNSUP: 2 ** 31 + 1,
  ERR_POLICY: 2 ** 31 + 2,
  ERR_INVALID: 2 ** 31 + 3,
  ERR_UNKNOWN: 2 ** 31 + 6,
} as const;

export const Info = { EXPORT: 0, BLOCK_SIZE: 3 } as const;

/** Of an export. */
export const ExportFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
} as const;

export const Command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;
export type Command = (typeof Command)[keyof typeof Command];

export const CommandFlag = { FUA: 1 << 0, NO_HOLE: 1 << 1 } as const;

/** Of a structured reply. */
export const ReplyFlag = { DONE: 1 << 0 } as const;
export const ReplyType = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  /** From here on it is an error. */
  ERROR: 2 ** 15,
} as const;

/** The numbers that stand for errors, on whatever system. */
export const NbdErrno = { EIO: 5, EINVAL: 22, ENOSPC: 28 } as const;

/** Of the context base:allocation. */
export const Allocation = { HOLE: 1 << 0, ZERO: 1 << 1 } as const;

/** An option with its data, as a client sends it. */
export function optionOctets(option: number, data: Uint8Array): Buffer {
  const octets = Buffer.alloc(OPTION_HEADER_BYTES + data.length);
  octets.writeBigUInt64BE(IHAVEOPT, 0);
  octets.writeUInt32BE(option, 8);
  octets.writeUInt32BE(data.length, 12);
  octets.set(data, OPTION_HEADER_BYTES);
  return octets;
}

/** A server's reply to an option. */
export function optionReplyOctets(option: number, type: number, data: Uint8Array): Buffer {
  const octets = Buffer.alloc(OPTION_REPLY_HEADER_BYTES + data.length);
  octets.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  octets.writeUInt32BE(option, 8);
  octets.writeUInt32BE(type, 12);
  octets.writeUInt32BE(data.length, 16);
  octets.set(data, OPTION_REPLY_HEADER_BYTES);
  return octets;
}

/** A text and, before it, its length: as names stand in options. */
export function textOctets(text: string): Buffer {
  const octets = Buffer.from(text);
  return Buffer.concat([u32Octets(octets.length), octets]);
}

export function u32Octets(value: number): Buffer {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets;
}

/** An offset on the wire, if it is exact as a number; NaN if it is not (2^53 and more: no disk is that large). */
export function offsetAt(view: DataView, at: number): number {
  const high = view.getUint32(at);
  return high < 2 ** 21 ? high * 2 ** 32 + view.getUint32(at + 4) : NaN;
}

export function putOffset(view: DataView, at: number, offset: number): void {
  view.setUint32(at, Math.floor(offset / 2 ** 32));
  view.setUint32(at + 4, offset % 2 ** 32);
}
