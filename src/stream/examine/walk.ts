// A walk through a stream file of any layer that never holds its pages: the walker says what it wants next, octets to
// see (take) or octets to pass by (skip), and whoever has the file gives it. It does no I/O, knows how the layers lie
// in each other (layers.ts draws it), goes on behind what is wrong as long as it knows where the next record begins,
// and tells a visitor what it meets.
//
//   walker ── take 8 ──▶ ◀── record header ──┐            PAGE_DATA │ count │ pfn entries │ pages … │
//          ── take n ──▶ ◀── body, padding ──┤ record()              take    take, piece   skip
//          ── skip n ──▶ ◀── how far it was ─┘                               by piece

import { StreamError } from '../error.js';
import type { StreamHeaders } from '../flow.js';
import {
  DOMAIN_HEADER_BYTES,
  IMAGE_HEADER_BYTES,
  PAGE_DATA_HEADER_BYTES,
  PAGE_SIZE,
  RECORD_HEADER_BYTES,
  RECORD_LENGTH_MAX,
  RecordType,
  hasPageData,
  paddedLength,
} from '../format.js';
import { decodeDomainHeader, decodeImageHeader } from '../headers.js';
import type { Layer } from '../layer-item.js';
import { LIBXL_HEADER_BYTES, LibxlRecordType, type LibxlHeader, decodeLibxlHeader } from '../libxl.js';
import { viewOf } from '../octets.js';
import { concatenate } from '../writer.js';
import { XL_HEADER_BYTES, type XlHeader, beginsLikeXl, decodeXlHeader, xlHeaderLength } from '../xl.js';
import { TELLING_BYTES, tellBeginning } from './beginning.js';
import { recordName } from './names.js';
import type { RuleId } from './rules.js';

export type Wish =
  /** Octets to see; fewer come only where the stream ends. They are looked at before the next wish. */
  | { readonly kind: 'take'; readonly length: number }
  /** Octets to pass by. */
  | { readonly kind: 'skip'; readonly length: number };

export interface Given {
  /** For take, else empty. */
  readonly octets: Uint8Array;
  /** How many octets there were, at most the wish's length. */
  readonly length: number;
}

export type Walk<Result> = Generator<Wish, Result, Given>;

/** A record that was there whole. */
export interface WalkedRecord {
  readonly layer: 'libxl' | 'libxc';
  readonly type: number;
  readonly offset: number;
  /** Of the body. */
  readonly length: number;
  /** Valid during the visit; of PAGE_DATA nothing, its entries are visited before. */
  readonly body: Uint8Array;
  /** Octets of padding that are not zero. */
  readonly dirtyPadding: number;
  /** Of PAGE_DATA. */
  readonly pages: WalkedPages | null;
}

export interface WalkedPages {
  /** Of the stream, where the record's header stands. */
  readonly offset: number;
  readonly length: number;
  /** What the record says; -1 if it is too short to say anything. */
  readonly count: number;
  readonly reserved: number;
  /** Entries that the record has room for, at most count. */
  readonly entries: number;
  /** Where the first page stands in the stream. */
  readonly dataOffset: number;
  /** Entries by page type. */
  readonly types: Uint32Array;
  /** Entries with data so far. */
  dataPages: number;
  firstPfn: number;
}

export interface StreamVisitor {
  finding?(rule: RuleId, offset: number, record: string | null, message: string): void;
  xl?(header: XlHeader, end: number): void;
  libxl?(header: LibxlHeader, offset: number, options: number): void;
  libxc?(headers: StreamHeaders, offset: number, image: Uint8Array): void;
  backChannel?(): void;
  /** Entries of a PAGE_DATA record, 8 octets each; pages.dataPages still counts those before them. */
  pageEntries?(entries: DataView, pages: WalkedPages): void;
  record?(record: WalkedRecord): void;
  /** A checkpoint is whole in all layers; `end` is the octet after it. Numbers begin with 1. */
  checkpoint?(number: number, end: number): void;
}

export interface Checkpoint {
  readonly number: number;
  /** The octet after it. */
  readonly end: number;
}

export interface WalkEnd {
  /**
   * ended: END of the outermost layer. open: no END, but nothing is cut. cut: inside `where`. stopped: for what was
   * found; nothing is known of what follows.
   */
  readonly kind: 'ended' | 'open' | 'cut' | 'stopped';
  /** The octet after what was whole. */
  readonly offset: number;
  /** What is cut. */
  readonly where: string | null;
  readonly outermost: Layer | null;
  readonly backChannel: boolean;
  /** The last one that is whole. */
  readonly checkpoint: Checkpoint | null;
  /** Records of libxc stand between the last checkpoint (or the beginning) and the end. */
  readonly recordsSince: boolean;
  /** What follows END, its first octets. */
  readonly trailing: Uint8Array;
}

/** Entries of PAGE_DATA that are taken at once. */
const PIECE_ENTRIES = 4096;
const ENTRY_BYTES = 8;
/** After CHECKPOINT_END a record of type 5 that is no longer is libxl's CHECKPOINT_STATE. */
const CHECKPOINT_STATE_BYTES_MAX = 8;
const TRAILING_BYTES = 256;
const EMPTY = new Uint8Array(0);

/** The stream ends inside something. */
class Cut extends Error {
  readonly where: string;

  constructor(where: string) {
    super(`the stream ends inside ${where}`);
    this.where = where;
  }
}

/** The walk cannot go on; why was said. */
class Stop extends Error {}

interface RecordHead {
  readonly type: number;
  readonly length: number;
}

export class StreamWalker {
  readonly #visitor: StreamVisitor;
  #offset = 0;
  #whole = 0;
  #outermost: Layer | null = null;
  #backChannel = false;
  #checkpoint: Checkpoint | null = null;
  #recordsSince = false;
  #trailing: Uint8Array = EMPTY;

  constructor(visitor: StreamVisitor) {
    this.#visitor = visitor;
  }

  /** The walk, once. */
  *walk(): Walk<WalkEnd> {
    try {
      return this.#end((yield* this.#stream()) ? 'ended' : 'open', null);
    } catch (thrown) {
      if (thrown instanceof Cut) {
        return this.#end('cut', thrown.where);
      }
      if (thrown instanceof Stop) {
        return this.#end('stopped', null);
      }
      throw thrown;
    }
  }

  #end(kind: WalkEnd['kind'], where: string | null): WalkEnd {
    return {
      kind,
      offset: this.#whole,
      where,
      outermost: this.#outermost,
      backChannel: this.#backChannel,
      checkpoint: this.#checkpoint,
      recordsSince: this.#recordsSince,
      trailing: this.#trailing,
    };
  }

  /** True if END came. */
  *#stream(): Walk<boolean> {
    const first = (yield* this.#take(TELLING_BYTES)).slice();
    const beginning = tellBeginning(first);
    switch (beginning.kind) {
      case 'wrong':
        throw this.#stop(beginning.rule, 0, null, beginning.message);
      case 'back-channel':
        this.#backChannel = true;
        this.#visitor.backChannel?.();
        return yield* this.#backChannelRecords(first);
      case 'layer':
        this.#outermost = beginning.layer;
    }
    const ended = yield* this.#layers(beginning.layer, first);
    if (ended) {
      this.#trailing = (yield* this.#take(TRAILING_BYTES)).slice();
    }
    return ended;
  }

  *#layers(layer: Layer, first: Uint8Array): Walk<boolean> {
    switch (layer) {
      case 'xl':
        yield* this.#xlHeader(first);
        return yield* this.#libxlStream(EMPTY);
      case 'libxl':
        return yield* this.#libxlStream(first);
      case 'libxc':
        yield* this.#libxcHeaders(first);
        for (;;) {
          const ended = yield* this.#libxcRecords(null);
          if (ended !== 'checkpoint') {
            return ended === 'end';
          }
          this.#completeCheckpoint();
        }
    }
  }

  *#xlHeader(first: Uint8Array): Walk<void> {
    const fixed = yield* this.#fill(first, XL_HEADER_BYTES, "xl's header");
    if (!beginsLikeXl(fixed)) {
      throw this.#stop('not-a-stream', 0, null, "begins like xl's header, and then does not");
    }
    const length = this.#decoded('xl.header', 0, () => xlHeaderLength(fixed));
    const whole = yield* this.#fill(fixed, length, "xl's header");
    const header = this.#decoded('xl.header', 0, () => decodeXlHeader(whole));
    this.#whole = this.#offset;
    this.#visitor.xl?.(header, this.#offset);
  }

  *#libxlStream(first: Uint8Array): Walk<boolean> {
    const offset = this.#offset - first.length;
    const bytes = yield* this.#fill(first, LIBXL_HEADER_BYTES, "libxl's header");
    const header = this.#decoded('libxl.header', offset, () => decodeLibxlHeader(bytes, offset));
    this.#whole = this.#offset;
    this.#visitor.libxl?.(header, offset, viewOf(bytes).getUint32(12));

    let context: 'none' | 'open' | 'checkpoint' | 'ended' = 'none';
    for (;;) {
      const head = yield* this.#recordHead('libxl');
      if (head === null) {
        return false;
      }
      const at = this.#offset - RECORD_HEADER_BYTES;
      const name = recordName('libxl', head.type);
      yield* this.#libxlBody(head);
      switch (head.type) {
        case LibxlRecordType.LIBXC_CONTEXT:
          if (context !== 'none') {
            throw this.#stop('libxl.order', at, name, 'a second LIBXC_CONTEXT');
          }
          yield* this.#libxcHeaders(EMPTY);
          context = 'open';
          break;
        case LibxlRecordType.CHECKPOINT_END:
          if (context !== 'checkpoint') {
            this.#find('libxl.order', at, name, 'CHECKPOINT_END outside a checkpoint');
            break;
          }
          this.#completeCheckpoint();
          context = 'open';
          break;
        case LibxlRecordType.END:
          if (context !== 'ended') {
            this.#find('libxl.order', at, name, "END before libxc's END");
          }
          return true;
        default:
          break;
      }
      if (context === 'open') {
        const next = yield* this.#afterCheckpoint(head.type === LibxlRecordType.CHECKPOINT_END);
        if (next === 'open') {
          return false;
        }
        context = next === 'end' ? 'ended' : 'checkpoint';
      }
    }
  }

  /** libxc's records up to its END or CHECKPOINT; after CHECKPOINT_END, CHECKPOINT_STATE may come before. */
  *#afterCheckpoint(stateMayCome: boolean): Walk<'end' | 'checkpoint' | 'open'> {
    if (!stateMayCome) {
      return yield* this.#libxcRecords(null);
    }
    for (;;) {
      const head = yield* this.#recordHead('libxc');
      if (head === null) {
        return 'open';
      }
      if (head.type !== LibxlRecordType.CHECKPOINT_STATE || head.length > CHECKPOINT_STATE_BYTES_MAX) {
        return yield* this.#libxcRecords(head);
      }
      yield* this.#libxlBody(head);
    }
  }

  *#libxcHeaders(first: Uint8Array): Walk<void> {
    const offset = this.#offset - first.length;
    const where = "libxc's headers";
    const image = (yield* this.#fill(first, IMAGE_HEADER_BYTES, where)).slice();
    const { version } = this.#decoded('libxc.header', offset, () => decodeImageHeader(image, offset));
    const bytes = yield* this.#fill(image, IMAGE_HEADER_BYTES + DOMAIN_HEADER_BYTES, where);
    const at = offset + IMAGE_HEADER_BYTES;
    const domain = this.#decoded('libxc.domain-header', at, () =>
      decodeDomainHeader(bytes.subarray(IMAGE_HEADER_BYTES), at),
    );
    this.#whole = this.#offset;
    this.#visitor.libxc?.({ version, ...domain }, offset, bytes);
  }

  /** Records of libxc up to END or CHECKPOINT; the head of the first may have been read already. */
  *#libxcRecords(first: RecordHead | null): Walk<'end' | 'checkpoint' | 'open'> {
    let head = first ?? (yield* this.#recordHead('libxc'));
    while (head !== null) {
      if (head.type === RecordType.PAGE_DATA) {
        yield* this.#pageData(head.length);
      } else {
        yield* this.#body('libxc', head);
      }
      switch (head.type) {
        case RecordType.END:
          return 'end';
        case RecordType.CHECKPOINT:
          return 'checkpoint';
        default:
          this.#recordsSince = true;
      }
      head = yield* this.#recordHead('libxc');
    }
    return 'open';
  }

  /** COLO's back channel: records of both layers, no headers, no END. */
  *#backChannelRecords(first: Uint8Array): Walk<boolean> {
    const view = viewOf(first);
    let head: RecordHead | null = { type: view.getUint32(0, true), length: view.getUint32(4, true) };
    while (head !== null) {
      if (head.type === LibxlRecordType.CHECKPOINT_STATE && head.length <= CHECKPOINT_STATE_BYTES_MAX) {
        yield* this.#libxlBody(head);
      } else {
        yield* this.#body('libxc', head);
      }
      head = yield* this.#recordHead('libxc');
    }
    return false;
  }

  /** Type and length of the next record; null where the stream ends before it. */
  *#recordHead(layer: 'libxl' | 'libxc'): Walk<RecordHead | null> {
    const bytes = yield* this.#take(RECORD_HEADER_BYTES);
    if (bytes.length === 0) {
      return null;
    }
    if (bytes.length < RECORD_HEADER_BYTES) {
      throw new Cut(`a record header of ${layer}`);
    }
    const view = viewOf(bytes);
    const head = { type: view.getUint32(0, true), length: view.getUint32(4, true) };
    if (paddedLength(head.length) > RECORD_LENGTH_MAX) {
      const at = this.#offset - RECORD_HEADER_BYTES;
      const limit = `at most ${RECORD_LENGTH_MAX} are possible`;
      throw this.#stop('length', at, recordName(layer, head.type), `${head.length} octets, ${limit}`);
    }
    return head;
  }

  *#libxlBody(head: RecordHead): Walk<void> {
    yield* this.#body('libxl', head);
  }

  *#body(layer: 'libxl' | 'libxc', { type, length }: RecordHead): Walk<void> {
    const offset = this.#offset - RECORD_HEADER_BYTES;
    const padded = paddedLength(length);
    const octets = padded === 0 ? EMPTY : yield* this.#take(padded);
    if (octets.length < padded) {
      throw new Cut(recordName(layer, type));
    }
    this.#whole = this.#offset;
    this.#visitor.record?.({
      layer,
      type,
      offset,
      length,
      body: octets.subarray(0, length),
      dirtyPadding: nonZero(octets.subarray(length)),
      pages: null,
    });
  }

  *#pageData(length: number): Walk<void> {
    const offset = this.#offset - RECORD_HEADER_BYTES;
    const headLength = Math.min(length, PAGE_DATA_HEADER_BYTES);
    const head = yield* this.#takeAll(headLength, 'PAGE_DATA');
    const room = Math.floor((length - PAGE_DATA_HEADER_BYTES) / ENTRY_BYTES);
    const counted = headLength === PAGE_DATA_HEADER_BYTES;
    const count = counted ? viewOf(head).getUint32(0, true) : -1;
    const pages: WalkedPages = {
      offset,
      length,
      count,
      reserved: counted ? viewOf(head).getUint32(4, true) : 0,
      entries: Math.max(0, Math.min(count, room)),
      dataOffset: this.#offset + Math.max(0, count) * ENTRY_BYTES,
      types: new Uint32Array(16),
      dataPages: 0,
      firstPfn: -1,
    };
    for (let left = pages.entries; left > 0;) {
      const taken = Math.min(left, PIECE_ENTRIES);
      const entries = viewOf(yield* this.#takeAll(taken * ENTRY_BYTES, 'PAGE_DATA'));
      if (pages.firstPfn < 0) {
        pages.firstPfn = entries.getUint32(0, true) + (entries.getUint32(4, true) & 0xfffff) * 2 ** 32;
      }
      this.#visitor.pageEntries?.(entries, pages);
      countTypes(entries, pages);
      left -= taken;
    }
    const rest = length - headLength - pages.entries * ENTRY_BYTES;
    if (rest > 0) {
      const { length: skipped } = yield { kind: 'skip', length: rest };
      this.#offset += skipped;
      if (skipped < rest) {
        throw new Cut('PAGE_DATA');
      }
    }
    const padding = yield* this.#takeAll(paddedLength(length) - length, 'PAGE_DATA');
    this.#whole = this.#offset;
    this.#visitor.record?.({
      layer: 'libxc',
      type: RecordType.PAGE_DATA,
      offset,
      length,
      body: EMPTY,
      dirtyPadding: nonZero(padding),
      pages,
    });
  }

  #completeCheckpoint(): void {
    this.#checkpoint = { number: (this.#checkpoint?.number ?? 0) + 1, end: this.#offset };
    this.#recordsSince = false;
    this.#visitor.checkpoint?.(this.#checkpoint.number, this.#checkpoint.end);
  }

  *#take(length: number): Walk<Uint8Array> {
    const { octets } = yield { kind: 'take', length };
    this.#offset += octets.length;
    return octets;
  }

  *#takeAll(length: number, where: string): Walk<Uint8Array> {
    if (length === 0) {
      return EMPTY;
    }
    const octets = yield* this.#take(length);
    if (octets.length < length) {
      throw new Cut(where);
    }
    return octets;
  }

  /** What is there already, with as much more as makes it `length` octets. */
  *#fill(first: Uint8Array, length: number, where: string): Walk<Uint8Array> {
    const rest = yield* this.#takeAll(length - first.length, where);
    return concatenate([first, rest]);
  }

  /** What decode returns; what it throws ends the walk. */
  #decoded<Value>(rule: RuleId, offset: number, decode: () => Value): Value {
    try {
      return decode();
    } catch (error) {
      if (!(error instanceof StreamError)) {
        throw error;
      }
      const at = error.facts['offset'];
      const found = typeof at === 'number' ? at : offset;
      if (error.code === 'BIG_ENDIAN') {
        throw this.#stop('big-endian', found, null, error.message);
      }
      if (error.code === 'UNSUPPORTED_VERSION') {
        throw this.#stop(error.message.includes('legacy') ? 'legacy' : 'version', found, null, error.message);
      }
      throw this.#stop(rule, found, null, error.message);
    }
  }

  #find(rule: RuleId, offset: number, record: string | null, message: string): void {
    this.#visitor.finding?.(rule, offset, record, message);
  }

  #stop(rule: RuleId, offset: number, record: string | null, message: string): Stop {
    this.#find(rule, offset, record, message);
    return new Stop(message);
  }
}

/** Walks octets that are in memory. */
export function walkOctets(octets: Uint8Array, visitor: StreamVisitor): WalkEnd {
  const walk = new StreamWalker(visitor).walk();
  let at = 0;
  let step = walk.next();
  while (step.done !== true) {
    const length = Math.min(step.value.length, octets.length - at);
    const taken = step.value.kind === 'take' ? octets.subarray(at, at + length) : EMPTY;
    at += length;
    step = walk.next({ octets: taken, length });
  }
  return step.value;
}

function countTypes(entries: DataView, pages: WalkedPages): void {
  const { types } = pages;
  for (let at = 4; at < entries.byteLength; at += ENTRY_BYTES) {
    const type = entries.getUint32(at, true) >>> 28;
    types[type] = (types[type] ?? 0) + 1;
  }
  let dataPages = 0;
  for (let type = 0; type < 16; type += 1) {
    dataPages += hasPageData(type) ? (types[type] ?? 0) : 0;
  }
  pages.dataPages = dataPages;
}

function nonZero(octets: Uint8Array): number {
  let count = 0;
  for (const octet of octets) {
    count += octet === 0 ? 0 : 1;
  }
  return count;
}

/** Octets that a record takes in the stream, header and padding included. */
export function recordSpan(length: number): number {
  return RECORD_HEADER_BYTES + paddedLength(length);
}

/** Octets that a PAGE_DATA record of so many entries and pages has. */
export function pageDataLength(count: number, dataPages: number): number {
  return PAGE_DATA_HEADER_BYTES + count * ENTRY_BYTES + dataPages * PAGE_SIZE;
}
