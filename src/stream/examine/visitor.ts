// What a walk says to whoever has the file (wishes), to whoever looks at the stream (a visitor), and at its end.

import type { StreamHeaders } from '../flow.js';
import type { Layer } from '../record-reader.js';
import type { LibxlHeader } from '../libxl.js';
import type { XlHeader } from '../xl.js';
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

/** Programs that put files of their own around streams. */
export type WrapperKind = 'libvirt' | 'xenopsd';

/** A run of octets that is the wrapper's, not the stream's. */
export interface WrapperPart {
  readonly kind: WrapperKind;
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

/** What a visitor may be told. */
interface Visits {
  finding: [rule: RuleId, offset: number, record: string | null, message: string];
  xl: [header: XlHeader, end: number];
  libxl: [header: LibxlHeader, offset: number, options: number];
  libxc: [headers: StreamHeaders, offset: number, image: Uint8Array];
  backChannel: [];
  wrapper: [part: WrapperPart];
  /** Entries of a PAGE_DATA record, 8 octets each; pages.dataPages still counts those before them. */
  pageEntries: [entries: DataView, pages: WalkedPages];
  record: [record: WalkedRecord];
  /** A checkpoint is whole in all layers; `end` is the octet after it. Numbers begin with 1. */
  checkpoint: [number: number, end: number];
}

export type StreamVisitor = { readonly [Kind in keyof Visits]?: (...about: Visits[Kind]) => void };

/** One walk, two visitors. */
export function tee(one: StreamVisitor, other: StreamVisitor): StreamVisitor {
  const both =
    <Kind extends keyof Visits>(kind: Kind) =>
    (...about: Visits[Kind]): void => {
      one[kind]?.(...about);
      other[kind]?.(...about);
    };
  return {
    finding: both('finding'),
    xl: both('xl'),
    libxl: both('libxl'),
    libxc: both('libxc'),
    backChannel: both('backChannel'),
    wrapper: both('wrapper'),
    pageEntries: both('pageEntries'),
    record: both('record'),
    checkpoint: both('checkpoint'),
  };
}

export interface Checkpoint {
  readonly number: number;
  /** The octet after it. */
  readonly end: number;
}

export interface WalkEnd {
  /**
   * ended: END of the outermost layer, and of what wraps it. open: no END, but nothing is cut. cut: inside `where`.
   * stopped: for what was found; nothing is known of what follows.
   */
  readonly kind: 'ended' | 'open' | 'cut' | 'stopped';
  /** The octet after what was whole. */
  readonly offset: number;
  /** What is cut. */
  readonly where: string | null;
  readonly wrapper: WrapperKind | null;
  readonly outermost: Layer | null;
  /** The octet after END of the outermost layer; its wrapper may go on behind it. */
  readonly streamEnd: number | null;
  readonly backChannel: boolean;
  /** The last one that is whole. */
  readonly checkpoint: Checkpoint | null;
  /** Records of libxc stand between the last checkpoint (or the beginning) and the end. */
  readonly recordsSince: boolean;
  /** What follows END, its first octets. */
  readonly trailing: Uint8Array;
}
