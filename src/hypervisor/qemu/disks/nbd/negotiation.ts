// The handshake of a client of ours: octets in, replies out, until it has chosen an export or is sent away. It may list
// the exports and ask of them as long as its time lasts; what we do not offer (TLS, structured replies, contexts) is
// refused in the way that makes clients go on without.

import { NbdError } from './error.js';
import {
  CLIENT_FLAGS_BYTES,
  EXPORT_NAME_ZEROES,
  ExportFlag,
  GREETING_BYTES,
  HandshakeFlag,
  IHAVEOPT,
  Info,
  NAME_BYTES_MAX,
  NBD_MAGIC,
  OPTION_HEADER_BYTES,
  Option,
  OptionReply,
  REQUEST_LENGTH_MAX,
  optionReplyOctets,
  textOctets,
} from './protocol.js';

/** Of option data: a name, and some numbers of what is wanted to be known. */
const OPTION_BYTES_MAX = NAME_BYTES_MAX + 256;
/** Neither FLUSH nor FUA: a standby's disk is as safe as its memory is, and no safer. */
const EXPORT_FLAGS = ExportFlag.HAS_FLAGS | ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES;
/** Octets: any write can be told as it is, so that nobody reads in order to write. */
const BLOCK_MIN = 1;
const BLOCK_PREFERRED = 4096;

export interface Exported {
  readonly name: string;
  readonly bytes: number;
}

/** What there is to be chosen. */
export interface Choice<E extends Exported> {
  readonly exports: readonly E[];
  /** True: it is this client's from now on. False: another client has it. */
  claim(chosen: E): boolean;
}

export class Negotiation<E extends Exported> {
  readonly #choice: Choice<E>;
  readonly #send: (octets: Uint8Array) => void;
  /** What of the flags or of an option is here. */
  readonly #octets = Buffer.alloc(OPTION_HEADER_BYTES + OPTION_BYTES_MAX);
  #filled = 0;
  #hasFlags = false;
  #withoutZeroes = false;
  #chosen: E | null = null;
  #isAborted = false;

  /** Greets. */
  constructor(choice: Choice<E>, send: (octets: Uint8Array) => void) {
    this.#choice = choice;
    this.#send = send;
    const greeting = Buffer.alloc(GREETING_BYTES);
    greeting.writeBigUInt64BE(NBD_MAGIC, 0);
    greeting.writeBigUInt64BE(IHAVEOPT, 8);
    greeting.writeUInt16BE(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES, 16);
    send(greeting);
  }

  /** What the client has chosen, once it has: the handshake is over. */
  get chosen(): E | null {
    return this.#chosen;
  }

  /** The client has taken its leave. */
  get isAborted(): boolean {
    return this.#isAborted;
  }

  /**
   * Takes octets of the chunk from `from` on, up to the end of the handshake at the most: the index behind the last.
   * @throws NbdError PROTOCOL: there is nothing to be said to this client any more
   */
  feed(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length && this.#chosen === null && !this.#isAborted) {
      const taken = Math.min(chunk.length - at, this.#wanted() - this.#filled);
      this.#octets.set(chunk.subarray(at, at + taken), this.#filled);
      this.#filled += taken;
      at += taken;
      if (this.#filled < this.#wanted()) continue;
      if (this.#hasFlags) this.#option();
      else this.#flags();
      this.#filled = 0;
    }
    return at;
  }

  /** Octets of what is read now, as far as that is known. @throws NbdError PROTOCOL */
  #wanted(): number {
    if (!this.#hasFlags) return CLIENT_FLAGS_BYTES;
    if (this.#filled < OPTION_HEADER_BYTES) return OPTION_HEADER_BYTES;
    const magic = this.#octets.readBigUInt64BE(0);
    if (magic !== IHAVEOPT) throw new NbdError('PROTOCOL', 'what should be an option is none', { magic });
    const option = this.#octets.readUInt32BE(8);
    const length = this.#octets.readUInt32BE(12);
    if (length > OPTION_BYTES_MAX) {
      throw new NbdError('PROTOCOL', 'an option is too long', { option, length, limit: OPTION_BYTES_MAX });
    }
    return OPTION_HEADER_BYTES + length;
  }

  #flags(): void {
    const flags = this.#octets.readUInt32BE(0);
    const known = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES;
    if ((flags & ~known) !== 0 || (flags & HandshakeFlag.FIXED_NEWSTYLE) === 0) {
      throw new NbdError('PROTOCOL', 'a client with other flags than ours', { flags });
    }
    this.#withoutZeroes = (flags & HandshakeFlag.NO_ZEROES) !== 0;
    this.#hasFlags = true;
  }

  #option(): void {
    const option = this.#octets.readUInt32BE(8);
    const data = this.#octets.subarray(OPTION_HEADER_BYTES, this.#filled);
    switch (option) {
      case Option.EXPORT_NAME:
        this.#exportName(data.toString());
        return;
      case Option.ABORT:
        this.#reply(option, OptionReply.ACK);
        this.#isAborted = true;
        return;
      case Option.LIST:
        this.#list(data);
        return;
      case Option.INFO:
      case Option.GO:
        this.#go(option, data);
        return;
      default:
        this.#reply(option, OptionReply.ERR_UNSUP);
    }
  }

  /** The oldest way to choose: it has no way to be refused but the end. */
  #exportName(name: string): void {
    const found = this.#find(name);
    if (!found || !this.#choice.claim(found)) {
      throw new NbdError('PROTOCOL', 'a client wants what is not to be had', { export: name });
    }
    const octets = Buffer.alloc(10 + (this.#withoutZeroes ? 0 : EXPORT_NAME_ZEROES));
    octets.writeBigUInt64BE(BigInt(found.bytes), 0);
    octets.writeUInt16BE(EXPORT_FLAGS, 8);
    this.#send(octets);
    this.#chosen = found;
  }

  #list(data: Buffer): void {
    if (data.length > 0) {
      this.#reply(Option.LIST, OptionReply.ERR_INVALID);
      return;
    }
    for (const { name } of this.#choice.exports)
      this.#reply(Option.LIST, OptionReply.SERVER, textOctets(name));
    this.#reply(Option.LIST, OptionReply.ACK);
  }

  /** u32 length | name | u16 count | u16 what is wanted to be known, that many. */
  #go(option: typeof Option.INFO | typeof Option.GO, data: Buffer): void {
    const nameEnd = data.length < 4 ? Infinity : 4 + data.readUInt32BE(0);
    if (nameEnd + 2 > data.length || nameEnd + 2 + 2 * data.readUInt16BE(nameEnd) !== data.length) {
      this.#reply(option, OptionReply.ERR_INVALID);
      return;
    }
    const found = this.#find(data.toString('utf8', 4, nameEnd));
    if (!found) {
      this.#reply(option, OptionReply.ERR_UNKNOWN);
      return;
    }
    if (option === Option.GO && !this.#choice.claim(found)) {
      this.#reply(option, OptionReply.ERR_POLICY, Buffer.from('another client has it'));
      return;
    }
    const info = Buffer.alloc(12);
    info.writeUInt16BE(Info.EXPORT, 0);
    info.writeBigUInt64BE(BigInt(found.bytes), 2);
    info.writeUInt16BE(EXPORT_FLAGS, 10);
    this.#reply(option, OptionReply.INFO, info);
    const blocks = Buffer.alloc(14);
    blocks.writeUInt16BE(Info.BLOCK_SIZE, 0);
    blocks.writeUInt32BE(BLOCK_MIN, 2);
    blocks.writeUInt32BE(BLOCK_PREFERRED, 6);
    blocks.writeUInt32BE(REQUEST_LENGTH_MAX, 10);
    this.#reply(option, OptionReply.INFO, blocks);
    this.#reply(option, OptionReply.ACK);
    if (option === Option.GO) this.#chosen = found;
  }

  #find(name: string): E | undefined {
    return this.#choice.exports.find((each) => each.name === name);
  }

  #reply(option: number, type: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.#send(optionReplyOctets(option, type, data));
  }
}
