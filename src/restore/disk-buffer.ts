// The DISK_WRITES records of the open checkpoint, in their order: in memory up to a bound, and all that follow in a file.
//
//   memory │ record │ record │ … │ bound         file │ length u32 │ 0 u32 │ offset f64 │ body │ length …
//
// Both have a limit, since the other side decides how much it sends.

import { valueAt } from '../stream/bounds.js';
import { RecordType } from '../stream/format.js';
import { viewOf } from '../stream/octets.js';
import type { StreamRecord } from '../stream/record.js';
import { RestoreError } from './error.js';
import { RECORD_COST_BYTES } from './record-buffer.js';
import { SpillFile } from './spill-file.js';

const ENTRY_BYTES = 16;

export interface DiskBufferOptions {
  /** Octets of records that are kept in memory. */
  readonly memoryBytes: number;
  /** Where the file is; null: there is none. */
  readonly directory: string | null;
  /** Octets of it. */
  readonly fileBytes: number;
  /** For one record of it. */
  readonly limitMs: number;
}

export class DiskBuffer {
  readonly #options: DiskBufferOptions;
  readonly #file: SpillFile | null;
  #records: StreamRecord[] = [];
  #memoryBytes = 0;
  #count = 0;
  #bytes = 0;
  /** What a record is read into from the file, used again. */
  #read = new Uint8Array(0);

  constructor(options: DiskBufferOptions) {
    this.#options = options;
    const { directory, limitMs } = options;
    this.#file = directory === null ? null : new SpillFile(directory, { limitMs });
  }

  get count(): number {
    return this.#count;
  }

  /** Octets of all records' bodies. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Resolves to whether it is in the file, and its memory is wanted no more.
   * @throws RestoreError BUFFER_LIMIT, SPILL_FAILED
   */
  async push(record: StreamRecord): Promise<boolean> {
    const { body } = record;
    const memoryBytes = this.#memoryBytes + body.length + RECORD_COST_BYTES;
    const isSpilled = this.#count > this.#records.length || memoryBytes > this.#options.memoryBytes;
    if (isSpilled) {
      await this.#spill(record);
    } else {
      this.#records.push(record);
      this.#memoryBytes = memoryBytes;
    }
    this.#count++;
    this.#bytes += body.length;
    return isSpilled;
  }

  /** Gives each to `use`, one after another; a record that was in the file is valid until it resolves. */
  async forEach(use: (record: StreamRecord) => Promise<void>): Promise<void> {
    for (let i = 0; i < this.#records.length; i++) await use(valueAt(this.#records, i));
    const file = this.#file;
    const entry = new Uint8Array(ENTRY_BYTES);
    for (let at = 0; file !== null && at < file.bytes;) {
      await file.read(at, entry);
      const view = viewOf(entry);
      const length = view.getUint32(0, true);
      if (this.#read.length < length) this.#read = new Uint8Array(length);
      const body = this.#read.subarray(0, length);
      await file.read(at + ENTRY_BYTES, body);
      await use({ type: RecordType.DISK_WRITES, body, offset: view.getFloat64(8, true) });
      at += ENTRY_BYTES + length;
    }
  }

  /** Never rejects. */
  async clear(): Promise<void> {
    this.#records = [];
    this.#memoryBytes = 0;
    this.#count = 0;
    this.#bytes = 0;
    this.#read = new Uint8Array(0);
    await this.#file?.clear();
  }

  async #spill({ type, offset, body }: StreamRecord): Promise<void> {
    const { memoryBytes, fileBytes } = this.#options;
    const file = this.#file;
    if (file === null || file.bytes + ENTRY_BYTES + body.length > fileBytes) {
      const limit = memoryBytes + (file === null ? 0 : fileBytes);
      const facts = { limit, records: this.#count, bytes: this.#bytes, offset, type };
      const message = `the disk writes of the checkpoint are more than the ${limit} octets that may be buffered`;
      throw new RestoreError('BUFFER_LIMIT', message, facts);
    }
    const entry = new Uint8Array(ENTRY_BYTES);
    const view = viewOf(entry);
    view.setUint32(0, body.length, true);
    view.setFloat64(8, offset, true);
    await file.append([entry, body]);
  }
}
