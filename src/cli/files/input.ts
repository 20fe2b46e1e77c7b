// A stream file that is walked: read from front to back through one buffer. Pages are passed by with a seek where the
// file allows it and the caller does not want every octet read.

import { open, type FileHandle } from 'node:fs/promises';
import type { Given, Walk } from '../../stream/examine/walk.js';
import { UsageError } from '../usage.js';

const READ_BYTES = 1024 * 1024;
/** Where pages are passed by, little of a long read would be wanted. */
const SEEK_READ_BYTES = 64 * 1024;
const EMPTY = new Uint8Array(0);

export interface InputOptions {
  /** Every octet is read, so that a disk that cannot give one is found out. Default: false. */
  readonly readAll?: boolean;
  /** Where the walk shall think that the file ends; of a regular file only. Default: where it does. */
  readonly end?: number;
  /** Called now and then, between two reads. */
  readonly onPause?: (position: number) => Promise<void> | void;
}

export class InputFile {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #size: number;
  readonly #regular: boolean;

  private constructor(path: string, file: FileHandle, size: number, regular: boolean) {
    this.path = path;
    this.#file = file;
    this.#size = size;
    this.#regular = regular;
  }

  /** Fails with Node's system error, or a UsageError for what is no file. */
  static async open(path: string): Promise<InputFile> {
    const file = await open(path, 'r');
    try {
      const stat = await file.stat();
      if (stat.isDirectory()) {
        throw new UsageError(`${path} is a folder`);
      }
      return new InputFile(path, file, stat.size, stat.isFile());
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Octets; null for a pipe, which has no size. */
  get size(): number | null {
    return this.#regular ? this.#size : null;
  }

  /** Walks the file from its beginning; a pipe can be walked once. Returns how long it was, too. */
  async walk<Result>(
    walk: Walk<Result>,
    options: InputOptions = {},
  ): Promise<{ result: Result; length: number }> {
    const size = Math.min(this.#size, options.end ?? this.#size);
    const reader = new Reader(this.#file, this.#regular, size, options);
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
    return { result: step.value, length: this.size ?? (await reader.lengthToEnd()) };
  }

  /** Reads octets of a regular file to target; all of them, or fails. */
  async readAt(target: Uint8Array, start: number, length: number, position: number): Promise<void> {
    for (let done = 0; done < length;) {
      const { bytesRead } = await this.#file.read(target, start + done, length - done, position + done);
      if (bytesRead === 0) {
        throw new UsageError(`${this.path} became shorter while it was read`);
      }
      done += bytesRead;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

class Reader {
  readonly #file: FileHandle;
  readonly #regular: boolean;
  readonly #size: number;
  readonly #seeks: boolean;
  readonly #onPause: InputOptions['onPause'];
  #buffer: Buffer;
  /** What is in the buffer: buffer[start] to buffer[end - 1], the octets of the file from `position` on. */
  #start = 0;
  #end = 0;
  #position = 0;

  constructor(file: FileHandle, regular: boolean, size: number, options: InputOptions) {
    this.#file = file;
    this.#regular = regular;
    this.#size = size;
    this.#seeks = regular && options.readAll !== true;
    this.#onPause = options.onPause;
    this.#buffer = Buffer.allocUnsafe(this.#seeks ? SEEK_READ_BYTES : READ_BYTES);
  }

  takeNow(length: number): Given | null {
    return length <= this.#end - this.#start ? this.#given(length) : null;
  }

  async take(length: number): Promise<Given> {
    // A length that lies costs what is there, not what it says.
    const left = this.#regular ? this.#size - this.#position : length;
    await this.#fill(Math.min(length, Math.max(left, 0)));
    return this.#given(Math.min(length, this.#end - this.#start));
  }

  skipNow(length: number): Given | null {
    if (length > this.#end - this.#start) {
      return null;
    }
    this.#pass(length);
    return { octets: EMPTY, length };
  }

  async skip(length: number): Promise<Given> {
    let left = length;
    while (left > 0) {
      const buffered = Math.min(left, this.#end - this.#start);
      this.#pass(buffered);
      left -= buffered;
      if (left > 0 && this.#seeks) {
        const seek = Math.min(left, Math.max(0, this.#size - this.#position));
        this.#position += seek;
        left -= seek;
        break;
      }
      if (left > 0 && !(await this.#read())) {
        break;
      }
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
      if (this.#start > 0 || this.#end === this.#buffer.length) {
        this.#makeRoom(length);
      }
      if (!(await this.#read())) {
        break;
      }
    }
  }

  #makeRoom(length: number): void {
    const kept = this.#buffer.subarray(this.#start, this.#end);
    if (length > this.#buffer.length) {
      // A pipe may promise what does not come: the buffer grows with what has come.
      const wanted = this.#regular
        ? length
        : Math.min(length, Math.max(this.#buffer.length, kept.length) * 2);
      this.#buffer = Buffer.allocUnsafe(Math.max(wanted, this.#buffer.length));
    }
    kept.copy(this.#buffer);
    this.#end -= this.#start;
    this.#start = 0;
  }

  /** Reads what fits behind what is there; false at the end of the file. */
  async #read(): Promise<boolean> {
    if (this.#start === this.#end) {
      this.#start = this.#end = 0;
    }
    await this.#onPause?.(this.#position);
    const at = this.#position + (this.#end - this.#start);
    const room = this.#buffer.length - this.#end;
    const length = this.#regular ? Math.min(room, this.#size - at) : room;
    const { bytesRead } = await this.#file.read(this.#buffer, this.#end, length, this.#regular ? at : null);
    this.#end += bytesRead;
    return bytesRead > 0;
  }
}
