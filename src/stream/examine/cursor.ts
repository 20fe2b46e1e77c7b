// A walk's place in the file: it asks for octets, counts what it was given, and says what is wrong there.

import { StreamError } from '../error.js';
import { concatenate } from '../writer.js';
import type { RuleId } from './rules.js';
import type { StreamVisitor, Walk } from './visitor.js';

const EMPTY = new Uint8Array(0);

/** The stream ends inside something. */
export class Cut extends Error {
  readonly where: string;

  constructor(where: string) {
    super(`the stream ends inside ${where}`);
    this.where = where;
  }
}

/** The walk cannot go on; why was said. */
export class Stop extends Error {}

export class Cursor {
  readonly #visitor: StreamVisitor;
  #offset = 0;
  #whole = 0;

  constructor(visitor: StreamVisitor) {
    this.#visitor = visitor;
  }

  /** Of the next octet. */
  get offset(): number {
    return this.#offset;
  }

  /** The octet after what was whole. */
  get whole(): number {
    return this.#whole;
  }

  /** What was walked so far is whole. */
  markWhole(): void {
    this.#whole = this.#offset;
  }

  /** Fewer come only where the file ends. Looked at before anything else is asked for. */
  *take(length: number): Walk<Uint8Array> {
    const { octets } = yield { kind: 'take', length };
    this.#offset += octets.length;
    return octets;
  }

  /** @throws Cut where that is the end of the file */
  *takeAll(length: number, where: string): Walk<Uint8Array> {
    if (length === 0) return EMPTY;
    const octets = yield* this.take(length);
    if (octets.length < length) throw new Cut(where);
    return octets;
  }

  /** What is there already, with as much more as makes it `length` octets. */
  *fill(first: Uint8Array, length: number, where: string): Walk<Uint8Array> {
    const rest = yield* this.takeAll(length - first.length, where);
    return concatenate([first, rest]);
  }

  /** @throws Cut where that is the end of the file */
  *skip(length: number, where: string): Walk<void> {
    if (length === 0) return;
    const { length: skipped } = yield { kind: 'skip', length };
    this.#offset += skipped;
    if (skipped < length) throw new Cut(where);
  }

  /** What decode returns. @throws Stop for a StreamError, which ends the walk */
  decoded<Value>(rule: RuleId, offset: number, decode: () => Value): Value {
    try {
      return decode();
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
      const at = error.facts['offset'];
      const found = typeof at === 'number' ? at : offset;
      if (error.code === 'BIG_ENDIAN') throw this.stop('big-endian', found, null, error.message);
      if (error.code === 'UNSUPPORTED_VERSION') {
        throw this.stop(error.message.includes('legacy') ? 'legacy' : 'version', found, null, error.message);
      }
      throw this.stop(rule, found, null, error.message);
    }
  }

  find(rule: RuleId, offset: number, record: string | null, message: string): void {
    this.#visitor.finding?.(rule, offset, record, message);
  }

  stop(rule: RuleId, offset: number, record: string | null, message: string): Stop {
    this.find(rule, offset, record, message);
    return new Stop(message);
  }
}
