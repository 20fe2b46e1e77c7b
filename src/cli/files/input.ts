// A stream file that is walked: read from front to back through one buffer. Pages are passed by with a seek where the
// file allows it, so that a stream of a terabyte takes seconds; a pipe is read through, or kept in a file that has no
// name where it has to be read twice.
//
//   file                   seeks; ends where it ends
//   block device           seeks; the stream ends before the device does
//   pipe, FIFO, socket, …  from front to back, once        twice: ──▶ a temporary file, seeks

import { type Place, findPlace } from '../../save/place.js';
import type { Given, StreamVisitor, Walk, WalkEnd } from '../../stream/examine/visitor.js';
import { StreamWalker } from '../../stream/examine/walk.js';
import { type Octets, type OpenOptions, nameOf, openOctets } from './octets.js';
import { UsageError } from '../exit-codes.js';

const READ_BYTES = 1024 * 1024;
/** Where pages are passed by, little of a long read would be wanted. */
const SEEK_READ_BYTES = 64 * 1024;
const EMPTY = new Uint8Array(0);

export interface WalkOptions {
  /** Where the walk shall think that the file ends; not of a pipe. Default: where it does. */
  readonly end?: number;
  /** Called now and then, between two reads. */
  readonly onPause?: (position: number) => Promise<void> | void;
}

export class InputFile {
  readonly path: string;
  readonly place: Place;
  readonly #octets: Octets;

  private constructor(path: string, place: Place, octets: Octets) {
    this.path = path;
    this.place = place;
    this.#octets = octets;
  }

  /** "-" is standard input. @throws Node's system error; UsageError for what is no file */
  static async open(path: string, options: OpenOptions = {}): Promise<InputFile> {
    const place = await findPlace(path, 0);
    return new InputFile(nameOf(path), place, await openOctets(place, options));
  }

  /** Octets; null for a pipe, which has no size. */
  get size(): number | null {
    return this.#octets.size;
  }

  /** Other octets than the stream's may follow it: it stands on a device. */
  get goesOn(): boolean {
    return this.place.kind === 'block' || this.place.kind === 'character';
  }

  /**
   * Walks the stream from its beginning; a pipe can be walked once. Returns how long it was, too: on a device, up to
   * its end.
   */
  async walk(
    visitor: StreamVisitor,
    options: WalkOptions = {},
  ): Promise<{ result: WalkEnd; length: number }> {
    const reader = new Reader(this.#octets, options);
    const result = await walkWith(reader, new StreamWalker(visitor, { followed: this.goesOn }).walk());
    const length = this.goesOn ? result.offset : (this.size ?? (await reader.lengthToEnd()));
    return { result, length };
  }

  /** The octets from front to back. */
  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let position = 0; ;) {
      const chunk = new Uint8Array(READ_BYTES);
      const length = await this.#octets.read(chunk, 0, chunk.length, position);
      if (length === 0) return;
      position += length;
      yield chunk.subarray(0, length);
    }
  }

  /** Reads octets at a place of what has a size: all of them. @throws Node's system error; UsageError */
  async readAt(target: Uint8Array, start: number, length: number, position: number): Promise<void> {
    for (let done = 0; done < length;) {
      const count = await this.#octets.read(target, start + done, length - done, position + done);
      if (count === 0) throw new UsageError(`${this.path} became shorter while it was read`);
      done += count;
    }
  }

  async close(): Promise<void> {
    await this.#octets.close();
  }
}

async function walkWith<Result>(reader: Reader, walk: Walk<Result>): Promise<Result> {
  let step = walk.next();
  while (step.done !== true) {
    const { kind, length } = step.value;
    // Most wishes are granted from the buffer: no promise for those.
    const given =
      kind === 'take'
        ? (reader.takeNow(length) ?? (await reader.take(length)))
        : (reader.skipNow(length) ?? (await reader.skip(length)));
    step = walk.next(given);
  }
  return step.value;
}

class Reader {
  readonly #octets: Octets;
  /** Where the stream ends; null if only reading tells. */
  readonly #size: number | null;
  readonly #onPause: WalkOptions['onPause'];
  #buffer: Buffer;
  /** What is in the buffer: buffer[start] to buffer[end - 1], the octets of the file from `position` on. */
  #start = 0;
  #end = 0;
  #position = 0;

  constructor(octets: Octets, options: WalkOptions) {
    this.#octets = octets;
    this.#size = octets.size === null ? null : Math.min(octets.size, options.end ?? octets.size);
    this.#onPause = options.onPause;
    this.#buffer = Buffer.allocUnsafe(this.#size === null ? READ_BYTES : SEEK_READ_BYTES);
  }

  takeNow(length: number): Given | null {
    return length <= this.#end - this.#start ? this.#given(length) : null;
  }

  async take(length: number): Promise<Given> {
    // A length that lies costs what is there, not what it says.
    const left = this.#size === null ? length : this.#size - this.#position;
    await this.#fill(Math.min(length, Math.max(left, 0)));
    return this.#given(Math.min(length, this.#end - this.#start));
  }

  skipNow(length: number): Given | null {
    if (length > this.#end - this.#start) return null;
    this.#pass(length);
    return { octets: EMPTY, length };
  }

  async skip(length: number): Promise<Given> {
    let left = length;
    while (left > 0) {
      const buffered = Math.min(left, this.#end - this.#start);
      this.#pass(buffered);
      left -= buffered;
      if (left > 0 && this.#size !== null) {
        const seek = Math.min(left, Math.max(0, this.#size - this.#position));
        this.#position += seek;
        left -= seek;
        break;
      }
      if (left > 0 && !(await this.#read())) break;
    }
    return { octets: EMPTY, length: length - left };
  }

  /** Octets of the whole, to be known only by reading what is left. */
  async lengthToEnd(): Promise<number> {
    do {
      this.#pass(this.#end - this.#start);
    } while (await this.#read());
    return this.#position;
  }

  #given(length: number): Given {
    const octets = this.#buffer.subarray(this.#start, this.#start + length);
    this.#pass(length);
    return { octets, length };
  }

  #pass(length: number): void {
    this.#start += length;
    this.#position += length;
  }

  /** Reads until `length` octets are in the buffer, or the file ends. */
  async #fill(length: number): Promise<void> {
    while (this.#end - this.#start < length) {
      if (this.#start > 0 || this.#end === this.#buffer.length) this.#makeRoom(length);
      if (!(await this.#read())) break;
    }
  }

  #makeRoom(length: number): void {
    const kept = this.#buffer.subarray(this.#start, this.#end);
    if (length > this.#buffer.length) {
      // A pipe may promise what does not come: the buffer grows with what has come.
      const wanted =
        this.#size === null ? Math.min(length, Math.max(this.#buffer.length, kept.length) * 2) : length;
      this.#buffer = Buffer.allocUnsafe(Math.max(wanted, this.#buffer.length));
    }
    kept.copy(this.#buffer);
    this.#end -= this.#start;
    this.#start = 0;
  }

  /** Reads what fits behind what is there; false at the end of the file. */
  async #read(): Promise<boolean> {
    if (this.#start === this.#end) this.#start = this.#end = 0;
    await this.#onPause?.(this.#position);
    const at = this.#position + (this.#end - this.#start);
    const room = this.#buffer.length - this.#end;
    const length = this.#size === null ? room : Math.min(room, this.#size - at);
    const count = length > 0 ? await this.#octets.read(this.#buffer, this.#end, length, at) : 0;
    this.#end += count;
    return count > 0;
  }
}
