// The records of the open checkpoint, kept until it is whole. Its array grows by 1024 records at a time (libxc's
// DEFAULT_BUF_RECORDS); unlike libxc's it has a limit, since the other side decides how much it sends.

import { RECORD_HEADER_BYTES, paddedLength } from '../stream/format.js';
import type { StreamRecord } from '../stream/record.js';
import { RestoreError } from './error.js';

const GROW_RECORDS = 1024;
/** What keeping a record costs besides its body: many empty ones must not slip past the limit. */
export const RECORD_COST_BYTES = 128;

export class RecordBuffer {
  readonly #limitBytes: number;
  #records = new Array<StreamRecord | undefined>(GROW_RECORDS);
  #count = 0;
  #bytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get count(): number {
    return this.#count;
  }

  /** Octets that the records take in the stream. */
  get bytes(): number {
    return this.#bytes;
  }

  /** @throws RestoreError BUFFER_LIMIT */
  push(record: StreamRecord): void {
    const bytes = this.#bytes + RECORD_HEADER_BYTES + paddedLength(record.body.length);
    if (bytes + (this.#count + 1) * RECORD_COST_BYTES > this.#limitBytes) {
      const limit = this.#limitBytes;
      const facts = { limit, records: this.#count, bytes, offset: record.offset, type: record.type };
      const message = `the checkpoint is larger than the ${limit} octets that may be buffered`;
      throw new RestoreError('BUFFER_LIMIT', message, facts);
    }
    if (this.#count === this.#records.length) this.#records.length += GROW_RECORDS;
    this.#records[this.#count++] = record;
    this.#bytes = bytes;
  }

  /** Takes the record out: its memory may go as soon as it is applied. */
  take(index: number): StreamRecord {
    const record = this.#records[index];
    if (record === undefined) throw new RangeError(`record ${index} of ${this.#count} is not in the buffer`);
    this.#records[index] = undefined;
    return record;
  }

  /** Empties the buffer; a grown array is given back. */
  clear(): void {
    if (this.#records.length > GROW_RECORDS)
      this.#records = new Array<StreamRecord | undefined>(GROW_RECORDS);
    else this.#records.fill(undefined, 0, this.#count);
    this.#count = 0;
    this.#bytes = 0;
  }
}
