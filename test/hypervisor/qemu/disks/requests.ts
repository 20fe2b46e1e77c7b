// What a client of ours says, octet by octet, and what it hears.

import {
  OPTION_REPLY_HEADER_BYTES,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_REPLY_BYTES,
  optionOctets,
  textOctets,
} from '../../../../src/hypervisor/qemu/disks/nbd/protocol.js';

export interface RequestParts {
  readonly type: number;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly data?: Uint8Array;
}

export function request({
  type,
  offset = 0,
  length = 0,
  flags = 0,
  cookie = 0n,
  data,
}: RequestParts): Buffer {
  const octets = Buffer.alloc(REQUEST_BYTES);
  octets.writeUInt32BE(REQUEST_MAGIC, 0);
  octets.writeUInt16BE(flags, 4);
  octets.writeUInt16BE(type, 6);
  octets.writeBigUInt64BE(cookie, 8);
  octets.writeBigUInt64BE(BigInt(offset), 16);
  octets.writeUInt32BE(data?.length ?? length, 24);
  return data ? Buffer.concat([octets, data]) : octets;
}

/** FIXED_NEWSTYLE and NO_ZEROES. */
export const CLIENT_FLAGS = Buffer.from([0, 0, 0, 3]);

export function nameOption(option: number, name: string): Buffer {
  return optionOctets(option, Buffer.concat([textOctets(name), Buffer.alloc(2)]));
}

export interface OptionReplyParts {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export function optionReplies(octets: Buffer): OptionReplyParts[] {
  const replies: OptionReplyParts[] = [];
  for (let at = 0; at < octets.length;) {
    const end = at + OPTION_REPLY_HEADER_BYTES + octets.readUInt32BE(at + 16);
    const data = octets.subarray(at + OPTION_REPLY_HEADER_BYTES, end);
    replies.push({ option: octets.readUInt32BE(at + 8), type: octets.readUInt32BE(at + 12), data });
    at = end;
  }
  return replies;
}

/** Error and cookie of each. */
export function simpleReplies(octets: Buffer): [number, bigint][] {
  const replies: [number, bigint][] = [];
  for (let at = 0; at < octets.length; at += SIMPLE_REPLY_BYTES) {
    replies.push([octets.readUInt32BE(at + 4), octets.readBigUInt64BE(at + 8)]);
  }
  return replies;
}
