// The handshake of our client: octets in, options out, until the server has given it the export that it wants.
//
//   greeting ─▶ STRUCTURED_REPLY ─▶ SET_META_CONTEXT (if contexts are wanted) ─▶ GO ─▶ size, flags
//
// A server without structured replies will do where no context is wanted.

import { NbdError } from './error.js';
import {
  ExportFlag,
  GREETING_BYTES,
  HandshakeFlag,
  IHAVEOPT,
  Info,
  NAME_BYTES_MAX,
  NBD_MAGIC,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
  optionOctets,
  textOctets,
  u32Octets,
} from './protocol.js';

/** Of a reply's data: a text, or a name, and some numbers. */
const REPLY_BYTES_MAX = NAME_BYTES_MAX + 256;
/** Replies to one option (what may be known of an export is told one by one): no server has more to say. */
const REPLIES_MAX = 64;
const INFO_EXPORT_BYTES = 12;

/** What the server has given. */
export interface Agreement {
  readonly bytes: number;
  /** ExportFlag. */
  readonly flags: number;
  readonly isStructured: boolean;
  /** The number that stands for each context in block statuses. */
  readonly contexts: ReadonlyMap<string, number>;
}

export class ClientNegotiation {
  readonly #name: string;
  readonly #wanted: readonly string[];
  readonly #send: (octets: Uint8Array) => void;
  readonly #octets = Buffer.alloc(OPTION_REPLY_HEADER_BYTES + REPLY_BYTES_MAX);
  #filled = 0;
  /** The option that waits for its reply; null: the greeting is not here yet. */
  #option: number | null = null;
  #replies = 0;
  #isStructured = false;
  readonly #contexts = new Map<string, number>();
  #export: { readonly bytes: number; readonly flags: number } | null = null;
  #agreement: Agreement | null = null;

  constructor(name: string, contexts: readonly string[], send: (octets: Uint8Array) => void) {
    this.#name = name;
    this.#wanted = contexts;
    this.#send = send;
  }

  /** Once it is there the handshake is over. */
  get agreement(): Agreement | null {
    return this.#agreement;
  }

  /**
   * Takes octets of the chunk from `from` on, up to the end of the handshake at the most: the index behind the last.
   * @throws NbdError PROTOCOL, REFUSED
   */
  feed(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length && this.#agreement === null) {
      const taken = Math.min(chunk.length - at, this.#length() - this.#filled);
      this.#octets.set(chunk.subarray(at, at + taken), this.#filled);
      this.#filled += taken;
      at += taken;
      if (this.#filled < this.#length()) continue;
      if (this.#option === null) this.#greeted();
      else this.#replied(this.#option);
      this.#filled = 0;
    }
    return at;
  }

  /** Octets of what is read now, as far as that is known. @throws NbdError PROTOCOL */
  #length(): number {
    if (this.#option === null) return GREETING_BYTES;
    if (this.#filled < OPTION_REPLY_HEADER_BYTES) return OPTION_REPLY_HEADER_BYTES;
    const magic = this.#octets.readBigUInt64BE(0);
    const option = this.#octets.readUInt32BE(8);
    const length = this.#octets.readUInt32BE(16);
    if (magic !== OPTION_REPLY_MAGIC || option !== this.#option || length > REPLY_BYTES_MAX) {
      throw new NbdError('PROTOCOL', 'what should be the reply to an option is none', {
        magic,
        option,
        length,
      });
    }
    return OPTION_REPLY_HEADER_BYTES + length;
  }

  #greeted(): void {
    const magic = this.#octets.readBigUInt64BE(0);
    const style = this.#octets.readBigUInt64BE(8);
    const flags = this.#octets.readUInt16BE(16);
    if (magic !== NBD_MAGIC || style !== IHAVEOPT || (flags & HandshakeFlag.FIXED_NEWSTYLE) === 0) {
      throw new NbdError('PROTOCOL', 'no NBD server of today', { magic, style, flags });
    }
    this.#send(u32Octets(flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)));
    this.#ask(Option.STRUCTURED_REPLY, Buffer.alloc(0));
  }

  #ask(option: number, data: Uint8Array): void {
    this.#option = option;
    this.#replies = 0;
    this.#send(optionOctets(option, data));
  }

  #replied(option: number): void {
    const type = this.#octets.readUInt32BE(12);
    const data = this.#octets.subarray(OPTION_REPLY_HEADER_BYTES, this.#filled);
    if (++this.#replies > REPLIES_MAX) throw unexpected(option, type, data);
    if (type >= OptionReply.ERROR) {
      if (option !== Option.STRUCTURED_REPLY || this.#wanted.length > 0) throw refused(option, type, data);
      this.#go();
      return;
    }
    if (type === OptionReply.ACK && data.length === 0) this.#acknowledged(option);
    else if (type === OptionReply.INFO && option === Option.GO && data.length >= 2) this.#info(data);
    else if (type === OptionReply.META_CONTEXT && option === Option.SET_META_CONTEXT && data.length > 4) {
      this.#contexts.set(data.toString('utf8', 4), data.readUInt32BE(0));
    } else throw unexpected(option, type, data);
  }

  #acknowledged(option: number): void {
    switch (option) {
      case Option.STRUCTURED_REPLY:
        this.#isStructured = true;
        if (this.#wanted.length === 0) this.#go();
        else this.#setContexts();
        return;
      case Option.SET_META_CONTEXT: {
        const missing = this.#wanted.find((context) => !this.#contexts.has(context));
        if (missing !== undefined) {
          throw new NbdError('REFUSED', `the server does not have the context ${missing}`, {
            context: missing,
          });
        }
        this.#go();
        return;
      }
      default: {
        if (this.#export === null) throw unexpected(option, OptionReply.ACK, Buffer.alloc(0));
        const isStructured = this.#isStructured;
        this.#agreement = { ...this.#export, isStructured, contexts: this.#contexts };
      }
    }
  }

  #setContexts(): void {
    const names = this.#wanted.map(textOctets);
    this.#ask(
      Option.SET_META_CONTEXT,
      Buffer.concat([textOctets(this.#name), u32Octets(names.length), ...names]),
    );
  }

  /** The name, and nothing in particular that is wanted to be known. */
  #go(): void {
    this.#ask(Option.GO, Buffer.concat([textOctets(this.#name), Buffer.alloc(2)]));
  }

  #info(data: Buffer): void {
    if (data.readUInt16BE(0) !== Info.EXPORT) return;
    const bytes = data.length === INFO_EXPORT_BYTES ? Number(data.readBigUInt64BE(2)) : NaN;
    const flags = data.length === INFO_EXPORT_BYTES ? data.readUInt16BE(10) : 0;
    if (!Number.isSafeInteger(bytes) || (flags & ExportFlag.HAS_FLAGS) === 0) {
      throw new NbdError('PROTOCOL', 'the server tells of no export that could be', { bytes, flags });
    }
    this.#export = { bytes, flags };
  }
}

function refused(option: number, reply: number, data: Buffer): NbdError {
  const text = data.toString();
  const facts = { option, reply: reply - OptionReply.ERROR, text };
  return new NbdError('REFUSED', `the server refuses option ${option}: ${text}`, facts);
}

function unexpected(option: number, reply: number, data: Buffer): NbdError {
  const facts = { option, reply, length: data.length };
  return new NbdError('PROTOCOL', `a reply to option ${option} that cannot be`, facts);
}
