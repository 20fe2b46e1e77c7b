// What a restorer wants of a stream: libxc's headers and then the records, whether libxc's stream is bare, or lies in
// libxl's, or that behind xl's header. Which it is, the reader finds out by itself. Incremental: it is fed with chunks cut
// anywhere, never waits and never reads ahead of a record; null means "push more".
//
//   xl header │ libxl header │ LIBXC_CONTEXT │ libxc headers │ libxc records … END │ libxl records … END
//   └────────────── passed over ─────────────┘                                      └ layer: 'libxl'
//   checkpointed:  … libxc records CHECKPOINT │ libxl records CHECKPOINT_END │ libxc records CHECKPOINT │ …
//                                                                            └ no LIBXC_CONTEXT, no headers again
//
//   START ─▶ XL ─▶ LIBXL_HEADER ─▶ LIBXL ──LIBXC_CONTEXT──▶ LIBXC_HEADERS ─▶ LIBXC ──END─▶ LIBXL ──END─▶ FINISHED
//     │                              │  ◀────────────────CHECKPOINT──────────┤  ▲
//     │                              └──CHECKPOINT_END──▶ RESUME ────────────┼──┘
//     └ a bare stream begins at LIBXC_HEADERS and ends at libxc's END ───────┘
//
// Offsets are those of the whole stream, whatever the layer. A record's length is checked when its header is there, its
// memory is taken when its body is there.

import { StreamError } from './error.js';
import type { StreamHeaders } from './flow.js';
import {
  DOMAIN_HEADER_BYTES,
  IMAGE_HEADER_BYTES,
  RECORD_LENGTH_MAX,
  RecordType,
  isOptionalRecord,
  recordTypeName,
} from './format.js';
import { RecordFramer } from './framing.js';
import { decodeDomainHeader, decodeImageHeader, encodeImageHeader } from './headers.js';
import {
  LIBXL_HEADER_BYTES,
  LibxlRecordType,
  decodeLibxlHeader,
  encodeLibxlHeader,
  isCheckpointState,
  libxlRecordTypeName,
} from './libxl.js';
import { beginsWith } from './octets.js';
import type { StreamRecord } from './record.js';
import { XL_HEADER_BYTES, beginsLikeXl, decodeXlHeader, xlHeaderLength } from './xl.js';

export type Layer = 'xl' | 'libxl' | 'libxc';

/** Octets that tell the layers from each other. */
export const TELLING_BYTES = 8;
const LIBXL_BEGINNING = encodeLibxlHeader().subarray(0, TELLING_BYTES);
const LIBXC_BEGINNING = encodeImageHeader().subarray(0, TELLING_BYTES);

type State = 'START' | 'XL' | 'LIBXL_HEADER' | 'LIBXL' | 'LIBXC_HEADERS' | 'LIBXC' | 'RESUME' | 'FINISHED';

const FIRST_STATES = { xl: 'XL', libxl: 'LIBXL_HEADER', libxc: 'LIBXC_HEADERS' } as const;
/** What the stream must not end before or in; elsewhere records come next. */
const PARTS: Readonly<Partial<Record<State, string>>> = {
  START: 'its first octets',
  XL: "xl's header",
  LIBXL_HEADER: "libxl's header",
  LIBXC_HEADERS: "libxc's headers",
};

export interface RecordReaderOptions {
  /** Octets, padding included, that a record's body may have. Default and most: RECORD_LENGTH_MAX. */
  readonly recordLengthMax?: number;
  /** The stream is libxc's and begins with records, as a back channel does. Default: false. */
  readonly withoutHeaders?: boolean;
}

export class RecordReader {
  readonly #framer: RecordFramer;
  #state: State = 'START';
  #bare = false;
  /** How far libxc's stream has come: 'checkpoint' waits for libxl's CHECKPOINT_END. */
  #context: 'none' | 'open' | 'checkpoint' | 'ended' = 'none';
  #headers: StreamHeaders | null = null;

  constructor({ recordLengthMax = RECORD_LENGTH_MAX, withoutHeaders = false }: RecordReaderOptions = {}) {
    this.#framer = new RecordFramer(recordLengthMax, (type) =>
      this.#state === 'LIBXL' ? libxlRecordTypeName(type) : recordTypeName(type),
    );
    if (withoutHeaders) {
      this.#bare = true;
      this.#state = 'LIBXC';
      this.#context = 'open';
    }
  }

  /** Octets that were yielded or passed over: where the next record begins. */
  get offset(): number {
    return this.#framer.offset;
  }

  /** Octets that were pushed and not yet yielded. */
  get pendingBytes(): number {
    return this.#framer.pendingBytes;
  }

  /** True when the outermost layer's END was yielded. */
  get finished(): boolean {
    return this.#state === 'FINISHED';
  }

  /**
   * Gives the reader the stream's next octets. They are not copied: the chunk must keep its content for as long as
   * the records that come of it are used.
   */
  push(chunk: Uint8Array): void {
    this.#framer.push(chunk);
  }

  /**
   * libxc's headers, or null as long as they have not come (and for a stream without). The image header is judged as soon
   * as it is there.
   * @throws StreamError of the layer that is wrong; BAD_MARKER if the stream begins like none of them; BAD_RECORD if a
   *   record that must not be skipped precedes the headers
   */
  headers(): StreamHeaders | null {
    while (this.#context === 'none') if (!this.#advance()) return null;
    return this.#headers;
  }

  /**
   * The next record, libxl's between libxc's, or null as long as it has not come whole, and after the outermost END.
   * Padding is not looked at. An error leaves the reader where it was: asked again, it says so again.
   * @throws StreamError RECORD_TOO_LONG; BAD_RECORD for libxl's out of their order; what headers() throws
   */
  next(): StreamRecord | null {
    if (this.#context === 'none' && this.headers() === null) return null;
    if (this.#state === 'LIBXC') return this.#nextLibxc();
    if (this.#state === 'RESUME') return this.#nextAfterCheckpoint();
    const record = this.#state === 'LIBXL' ? this.#nextLibxl() : null;
    return record && { ...record, layer: 'libxl' };
  }

  /**
   * Says that no more octets come, after next() or headers() has returned null. A checkpointed stream has no END: that it
   * ends between records is no error, and whether a checkpoint is whole there is for the caller to see.
   * @throws StreamError TRUNCATED before the headers are there, and inside a record; TRAILING_DATA
   */
  end(): void {
    const part = PARTS[this.#state] ?? null;
    if (this.pendingBytes > 0 || part !== null) {
      throw this.finished ? this.#framer.trailing() : this.#framer.truncated(part);
    }
    if (this.#context === 'none') {
      throw new StreamError('TRUNCATED', "the stream ends before libxc's headers", { offset: this.offset });
    }
  }

  /** The next step towards libxc's headers; false as long as the octets for it have not come. */
  #advance(): boolean {
    if (this.#state === 'START') return this.#tellLayers();
    if (this.#state === 'XL') return this.#passXlHeader();
    if (this.#state === 'LIBXL_HEADER') return this.#passLibxlHeader();
    if (this.#state === 'LIBXC_HEADERS') return this.#takeHeaders();
    const record = this.#nextLibxl();
    if (record !== null) checkPassedOver(record);
    return record !== null;
  }

  #tellLayers(): boolean {
    const bytes = this.#framer.peek(TELLING_BYTES);
    if (bytes === null) return false;
    const layer = layerOf(bytes);
    if (layer === null) {
      throw new StreamError('BAD_MARKER', 'the stream begins like none of xl, libxl and libxc', {
        offset: 0,
      });
    }
    this.#bare = layer === 'libxc';
    this.#state = FIRST_STATES[layer];
    return true;
  }

  #passXlHeader(): boolean {
    const fixed = this.#framer.peek(XL_HEADER_BYTES);
    const bytes = fixed && this.#framer.peek(xlHeaderLength(fixed));
    if (bytes === null) return false;
    decodeXlHeader(bytes);
    this.#framer.skip(bytes.length);
    this.#state = 'LIBXL_HEADER';
    return true;
  }

  #passLibxlHeader(): boolean {
    const bytes = this.#framer.peek(LIBXL_HEADER_BYTES);
    if (bytes === null) return false;
    decodeLibxlHeader(bytes, this.offset);
    this.#framer.skip(bytes.length);
    this.#state = 'LIBXL';
    return true;
  }

  #takeHeaders(): boolean {
    const imageBytes = this.#framer.peek(IMAGE_HEADER_BYTES);
    if (imageBytes === null) return false;
    const image = decodeImageHeader(imageBytes, this.offset);
    const bytes = this.#framer.peek(IMAGE_HEADER_BYTES + DOMAIN_HEADER_BYTES);
    if (bytes === null) return false;
    const domain = decodeDomainHeader(bytes.subarray(IMAGE_HEADER_BYTES), this.offset + IMAGE_HEADER_BYTES);
    this.#framer.skip(bytes.length);
    this.#headers = { ...image, ...domain, ...(this.#bare ? {} : { layer: 'libxl' as const }) };
    this.#context = 'open';
    this.#state = 'LIBXC';
    return true;
  }

  #nextLibxl(): StreamRecord | null {
    const type = this.#framer.peekHeader()?.type;
    // An end of the wrong thing would leave open what the octets after it are.
    if (
      (type === LibxlRecordType.LIBXC_CONTEXT && this.#context !== 'none') ||
      (type === LibxlRecordType.CHECKPOINT_END && this.#context !== 'checkpoint') ||
      (type === LibxlRecordType.END && this.#context !== 'ended')
    ) {
      throw new StreamError('BAD_RECORD', `${libxlRecordTypeName(type)} record of libxl out of its order`, {
        offset: this.offset,
        type,
        context: this.#context,
      });
    }
    const record = this.#framer.next();
    if (record === null) return null;
    if (type === LibxlRecordType.CHECKPOINT_END) {
      this.#context = 'open';
      this.#state = 'RESUME';
    } else if (type === LibxlRecordType.LIBXC_CONTEXT) {
      this.#state = 'LIBXC_HEADERS';
    } else if (type === LibxlRecordType.END) {
      this.#state = 'FINISHED';
    }
    return record;
  }

  #nextLibxc(): StreamRecord | null {
    const record = this.#framer.next();
    if (record?.type === RecordType.END) {
      this.#context = 'ended';
      this.#state = this.#bare ? 'FINISHED' : 'LIBXL';
    } else if (record?.type === RecordType.CHECKPOINT && !this.#bare) {
      this.#context = 'checkpoint';
      this.#state = 'LIBXL';
    }
    return record;
  }

  /** COLO: the primary may say CHECKPOINT_STATE before libxc goes on. */
  #nextAfterCheckpoint(): StreamRecord | null {
    const header = this.#framer.peekHeader();
    if (header === null) return null;
    if (isCheckpointState(header.type, header.length)) {
      const record = this.#framer.next();
      return record && { ...record, layer: 'libxl' };
    }
    this.#state = 'LIBXC';
    return this.#nextLibxc();
  }
}

/** The outermost layer of a stream that begins with these octets, TELLING_BYTES at least; null: none. */
export function layerOf(bytes: Uint8Array): Layer | null {
  if (beginsLikeXl(bytes)) return 'xl';
  if (beginsWith(bytes, LIBXL_BEGINNING)) return 'libxl';
  return beginsWith(bytes, LIBXC_BEGINNING) ? 'libxc' : null;
}

/** Before libxc's stream nothing of the domain can come that a restorer could take. */
function checkPassedOver({ type, offset, body }: StreamRecord): void {
  if (type !== LibxlRecordType.LIBXC_CONTEXT && !isOptionalRecord(type)) {
    throw new StreamError('BAD_RECORD', `${libxlRecordTypeName(type)} record of libxl before LIBXC_CONTEXT`, {
      offset,
      type,
      length: body.length,
    });
  }
}
