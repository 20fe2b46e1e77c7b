// What a restorer wants of a stream: libxc's headers and then the records, whatever layer the stream lies in. Which that
// is, it finds out by itself. Incremental as the readers of the layers are: null means "push more".
//
//   bare                                    libxc headers │ libxc records … END
//   libxl, xl   headers, LIBXC_CONTEXT │ libxc headers │ libxc records │ libxl records │ libxc records … libxl END
//               └───── passed over ────┘                                └ layer: 'libxl'

import type { StreamHeaders } from './flow.js';
import { isOptionalRecord } from './format.js';
import { LayeredReader, type LayeredReaderOptions } from './layers.js';
import { StreamError } from './error.js';
import { LibxlRecordType, libxlRecordTypeName } from './libxl.js';
import type { StreamRecord } from './record.js';

export class RecordReader {
  readonly #reader: LayeredReader;
  #headers: StreamHeaders | null = null;

  constructor(options: LayeredReaderOptions = {}) {
    this.#reader = new LayeredReader(options);
  }

  /** Octets that were yielded or passed over: where the next record begins. */
  get offset(): number {
    return this.#reader.offset;
  }

  /** Octets that were pushed and not yet yielded. */
  get pendingBytes(): number {
    return this.#reader.pendingBytes;
  }

  /** True when the outermost layer's END was yielded. */
  get finished(): boolean {
    return this.#reader.finished;
  }

  /** As StreamReader.push: not copied. */
  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  /**
   * libxc's headers, or null as long as they have not come.
   * @throws StreamError of the layer that is wrong; BAD_RECORD if a record that must not be skipped precedes them
   */
  headers(): StreamHeaders | null {
    while (this.#headers === null) {
      const item = this.#reader.next();
      if (item === null) {
        return null;
      }
      if (item.kind === 'headers') {
        this.#headers =
          this.#reader.outermost === 'libxc' ? item.headers : { ...item.headers, layer: 'libxl' };
      } else if (item.kind === 'record') {
        passOver(item.record);
      }
    }
    return this.#headers;
  }

  /** The next record, or null as long as it has not come whole, and after END. @throws StreamError as headers() does */
  next(): StreamRecord | null {
    if (this.headers() === null) {
      return null;
    }
    const item = this.#reader.next();
    if (item?.kind !== 'record') {
      return null;
    }
    return item.layer === 'libxc' ? item.record : { ...item.record, layer: 'libxl' };
  }

  /**
   * Says that no more octets come, after next() or headers() has returned null.
   * @throws StreamError TRUNCATED before the headers are there, and inside a record; TRAILING_DATA
   */
  end(): void {
    this.#reader.end();
    if (this.#headers === null) {
      throw new StreamError('TRUNCATED', "the stream ends before libxc's headers", { offset: this.offset });
    }
  }
}

/** Before libxc's stream nothing of the domain can come that a restorer could take. */
function passOver({ type, offset, body }: StreamRecord): void {
  if (type !== LibxlRecordType.LIBXC_CONTEXT && !isOptionalRecord(type)) {
    throw new StreamError('BAD_RECORD', `${libxlRecordTypeName(type)} record of libxl before LIBXC_CONTEXT`, {
      offset,
      type,
      length: body.length,
    });
  }
}
