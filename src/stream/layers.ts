// Streams as they lie in files and on xl's wire: libxc's stream bare, or in libxl's, or that behind xl's header. The
// reader finds out by itself which it is, and yields what stands in all layers, in order.
//
//   xl header │ libxl header │ LIBXC_CONTEXT │ libxc headers │ libxc records … END │ libxl records … END
//                                                                     │
//   checkpointed:  … libxc records CHECKPOINT │ libxl records CHECKPOINT_END │ libxc records CHECKPOINT │ …
//                                                                            └ no LIBXC_CONTEXT, no headers again
//
//   START ─▶ XL ─▶ LIBXL_HEADER ─▶ LIBXL ──LIBXC_CONTEXT──▶ LIBXC_HEADERS ─▶ LIBXC ──END─▶ LIBXL ──END─▶ FINISHED
//     │                              │  ◀────────────────CHECKPOINT──────────┤  ▲
//     │                              └──CHECKPOINT_END──▶ RESUME ────────────┼──┘
//     └ a bare stream begins at LIBXC_HEADERS and ends at libxc's END ───────┘
//
// COLO: after CHECKPOINT_END the primary says CHECKPOINT_STATE before libxc goes on. Its type is 5 in libxl and
// X86_PV_VCPU_EXTENDED in libxc, which never comes first in a checkpoint and is longer, so the two can be told.
//
// Offsets are those of the whole stream, whatever the layer.

import { StreamError } from './error.js';
import { RECORD_LENGTH_MAX, RecordType, recordTypeName } from './format.js';
import { RecordFramer } from './framing.js';
import { encodeImageHeader } from './headers.js';
import type { Layer, LayeredItem } from './layer-item.js';
import {
  LIBXL_HEADER_BYTES,
  LibxlRecordType,
  decodeLibxlHeader,
  encodeLibxlHeader,
  libxlRecordTypeName,
} from './libxl.js';
import { takeHeaders } from './reader.js';
import { XL_HEADER_BYTES, beginsLikeXl, decodeXlHeader, xlHeaderLength } from './xl.js';

/** Octets that tell the layers from each other. */
const TELLING_BYTES = 8;
/** A record of type 5 after CHECKPOINT_END with a body no longer than this is CHECKPOINT_STATE. */
const CHECKPOINT_STATE_BYTES_MAX = 8;

type State = 'START' | 'XL' | 'LIBXL_HEADER' | 'LIBXL' | 'LIBXC_HEADERS' | 'LIBXC' | 'RESUME' | 'FINISHED';

export interface LayeredReaderOptions {
  /** Octets, padding included, that a record's body may have. Default and most: RECORD_LENGTH_MAX. */
  readonly recordLengthMax?: number;
}

export class LayeredReader {
  readonly #framer: RecordFramer;
  #state: State = 'START';
  /** The outermost layer, once it is known. */
  #outermost: Layer | null = null;
  /** How far libxc's stream has come: 'checkpoint' waits for libxl's CHECKPOINT_END. */
  #context: 'none' | 'open' | 'checkpoint' | 'ended' = 'none';

  constructor(options: LayeredReaderOptions = {}) {
    this.#framer = new RecordFramer(options.recordLengthMax ?? RECORD_LENGTH_MAX, (type) =>
      this.#state === 'LIBXL' ? libxlRecordTypeName(type) : recordTypeName(type),
    );
  }

  /** The layer that everything lies in; null as long as the first octets have not come. */
  get outermost(): Layer | null {
    return this.#outermost;
  }

  /** Octets that were yielded: where the next thing begins. */
  get offset(): number {
    return this.#framer.offset;
  }

  /** Octets that were pushed and not yet yielded. */
  get pendingBytes(): number {
    return this.#framer.pendingBytes;
  }

  /** True after the outermost layer's END. */
  get finished(): boolean {
    return this.#state === 'FINISHED';
  }

  /** True between records of any layer, with nothing pending. */
  get atBoundary(): boolean {
    return this.#framer.pendingBytes === 0 && this.#partName() === null;
  }

  /** As StreamReader.push: not copied. */
  push(chunk: Uint8Array): void {
    this.#framer.push(chunk);
  }

  /**
   * The next thing, or null as long as it has not come whole, and after the outermost END.
   * @throws StreamError of the layer that it stands in; BAD_MARKER if the stream begins like none of them
   */
  next(): LayeredItem | null {
    if (this.#state === 'START' && !this.#tellLayers()) {
      return null;
    }
    switch (this.#state) {
      case 'XL':
        return this.#nextXlHeader();
      case 'LIBXL_HEADER':
        return this.#nextLibxlHeader();
      case 'LIBXL':
        return this.#nextLibxlRecord();
      case 'LIBXC_HEADERS':
        return this.#nextLibxcHeaders();
      case 'LIBXC':
        return this.#nextLibxcRecord();
      case 'RESUME':
        return this.#nextAfterCheckpoint();
      case 'START':
      case 'FINISHED':
        return null;
    }
  }

  /** Takes what is pending out of the reader: after END, what xl's migration protocol says next. */
  remaining(): Uint8Array[] {
    return this.#framer.drain();
  }

  /**
   * Says that no more octets come, after next() has returned null. A checkpointed stream has no END: that it ends at
   * a boundary is no error, and whether the boundary is a checkpoint's is for the caller to see.
   * @throws StreamError TRUNCATED; TRAILING_DATA if octets after the outermost END were left pending
   */
  end(): void {
    if (this.atBoundary) {
      return;
    }
    throw this.finished ? this.#framer.trailing() : this.#framer.truncated(this.#partName());
  }

  /** What the stream must not end before or in, unless records come next. */
  #partName(): string | null {
    switch (this.#state) {
      case 'START':
        return 'its first octets';
      case 'XL':
        return "xl's header";
      case 'LIBXL_HEADER':
        return "libxl's header";
      case 'LIBXC_HEADERS':
        return "libxc's headers";
      case 'LIBXL':
      case 'LIBXC':
      case 'RESUME':
      case 'FINISHED':
        return null;
    }
  }

  #tellLayers(): boolean {
    const bytes = this.#framer.peek(TELLING_BYTES);
    if (bytes === null) {
      return false;
    }
    if (beginsLikeXl(bytes)) {
      this.#outermost = 'xl';
      this.#state = 'XL';
    } else if (beginsLike(bytes, encodeLibxlHeader())) {
      this.#outermost = 'libxl';
      this.#state = 'LIBXL_HEADER';
    } else if (beginsLike(bytes, encodeImageHeader())) {
      this.#outermost = 'libxc';
      this.#state = 'LIBXC_HEADERS';
    } else {
      throw new StreamError('BAD_MARKER', 'the stream begins like none of xl, libxl and libxc', {
        offset: 0,
      });
    }
    return true;
  }

  #nextXlHeader(): LayeredItem | null {
    const fixed = this.#framer.peek(XL_HEADER_BYTES);
    const bytes = fixed === null ? null : this.#framer.peek(xlHeaderLength(fixed));
    if (bytes === null) {
      return null;
    }
    const { offset } = this.#framer;
    const header = decodeXlHeader(bytes);
    this.#framer.skip(bytes.length);
    this.#state = 'LIBXL_HEADER';
    return { layer: 'xl', kind: 'header', offset, header };
  }

  #nextLibxlHeader(): LayeredItem | null {
    const bytes = this.#framer.peek(LIBXL_HEADER_BYTES);
    if (bytes === null) {
      return null;
    }
    const { offset } = this.#framer;
    const header = decodeLibxlHeader(bytes, offset);
    this.#framer.skip(bytes.length);
    this.#state = 'LIBXL';
    return { layer: 'libxl', kind: 'header', offset, header };
  }

  #nextLibxcHeaders(): LayeredItem | null {
    const { offset } = this.#framer;
    const headers = takeHeaders(this.#framer);
    if (headers === null) {
      return null;
    }
    this.#state = 'LIBXC';
    return { layer: 'libxc', kind: 'headers', offset, headers };
  }

  #nextLibxlRecord(): LayeredItem | null {
    const type = this.#framer.peekHeader()?.type;
    // An end of the wrong thing would leave open what the octets after it are.
    if (
      (type === LibxlRecordType.LIBXC_CONTEXT && this.#context !== 'none') ||
      (type === LibxlRecordType.CHECKPOINT_END && this.#context !== 'checkpoint') ||
      (type === LibxlRecordType.END && this.#context !== 'ended')
    ) {
      throw new StreamError('BAD_RECORD', `${libxlRecordTypeName(type)} record of libxl out of its order`, {
        offset: this.#framer.offset,
        type,
        context: this.#context,
      });
    }
    const record = this.#framer.next();
    if (record === null) {
      return null;
    }
    if (type === LibxlRecordType.CHECKPOINT_END) {
      this.#context = 'open';
      this.#state = 'RESUME';
    } else if (type === LibxlRecordType.LIBXC_CONTEXT) {
      this.#context = 'open';
      this.#state = 'LIBXC_HEADERS';
    } else if (type === LibxlRecordType.END) {
      this.#state = 'FINISHED';
    }
    return { layer: 'libxl', kind: 'record', offset: record.offset, record };
  }

  #nextLibxcRecord(): LayeredItem | null {
    const record = this.#framer.next();
    if (record === null) {
      return null;
    }
    if (this.#outermost === 'libxc') {
      this.#state = record.type === RecordType.END ? 'FINISHED' : 'LIBXC';
    } else if (record.type === RecordType.END || record.type === RecordType.CHECKPOINT) {
      this.#context = record.type === RecordType.CHECKPOINT ? 'checkpoint' : 'ended';
      this.#state = 'LIBXL';
    }
    return { layer: 'libxc', kind: 'record', offset: record.offset, record };
  }

  #nextAfterCheckpoint(): LayeredItem | null {
    const header = this.#framer.peekHeader();
    if (header === null) {
      return null;
    }
    if (header.type === LibxlRecordType.CHECKPOINT_STATE && header.length <= CHECKPOINT_STATE_BYTES_MAX) {
      const record = this.#framer.next();
      return record && { layer: 'libxl', kind: 'record', offset: record.offset, record };
    }
    this.#state = 'LIBXC';
    return this.#nextLibxcRecord();
  }
}

function beginsLike(bytes: Uint8Array, whole: Uint8Array): boolean {
  return bytes.every((octet, index) => octet === whole[index]);
}
