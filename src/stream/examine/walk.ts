// A walk through a stream file of any kind that never holds its pages: the walker says what it wants next, octets to
// see (take) or octets to pass by (skip), and whoever has the file gives it. It does no I/O, goes on behind what is
// wrong as long as it knows where the next record begins, and tells a visitor what it meets.
//
//   file:  wrapper of libvirt or xenopsd ( stream )  │  stream  │  COLO's back channel        stream: layer-walk.ts

import {
  PAGE_DATA_ENTRY_BYTES,
  PAGE_DATA_HEADER_BYTES,
  PAGE_SIZE,
  RECORD_HEADER_BYTES,
  paddedLength,
} from '../format.js';
import { type Layer, TELLING_BYTES } from '../record-reader.js';
import { concatenate } from '../writer.js';
import { type Beginning, SAMPLE_BYTES, tellBeginning } from './beginning.js';
import { Cursor, Cut, Stop } from './cursor.js';
import { LayerWalker } from './layer-walk.js';
import { tellOther } from './other-files.js';
import type { StreamVisitor, Walk, WalkEnd, WrapperKind } from './visitor.js';
import {
  LIBVIRT_HEADER_BYTES,
  XENOPSD_RECORD_BYTES,
  XENOPSD_SIGNATURE_BYTES,
  XenopsdType,
  checkXenopsdSignature,
  decodeLibvirtHeader,
  xenopsdRecord,
} from './wrapper.js';

export type * from './visitor.js';

const TRAILING_BYTES = 256;
const EMPTY = new Uint8Array(0);

export interface WalkOptions {
  /** Something else may follow the stream, and is not looked at. Default: false. */
  readonly followed?: boolean;
}

export class StreamWalker {
  readonly #visitor: StreamVisitor;
  readonly #cursor: Cursor;
  readonly #layers: LayerWalker;
  #followed: boolean;
  #wrapper: WrapperKind | null = null;
  #outermost: Layer | null = null;
  #streamEnd: number | null = null;
  #backChannel = false;
  #trailing: Uint8Array = EMPTY;

  constructor(visitor: StreamVisitor, options: WalkOptions = {}) {
    this.#visitor = visitor;
    this.#cursor = new Cursor(visitor);
    this.#layers = new LayerWalker(this.#cursor, visitor);
    this.#followed = options.followed ?? false;
  }

  /** The walk, once. */
  *walk(): Walk<WalkEnd> {
    try {
      return this.#end((yield* this.#stream()) ? 'ended' : 'open', null);
    } catch (thrown) {
      if (thrown instanceof Cut) return this.#end('cut', thrown.where);
      if (thrown instanceof Stop) return this.#end('stopped', null);
      throw thrown;
    }
  }

  #end(kind: WalkEnd['kind'], where: string | null): WalkEnd {
    return {
      kind,
      offset: this.#cursor.whole,
      where,
      wrapper: this.#wrapper,
      outermost: this.#outermost,
      streamEnd: this.#streamEnd,
      backChannel: this.#backChannel,
      checkpoint: this.#layers.checkpoint,
      recordsSince: this.#layers.recordsSince,
      trailing: this.#trailing,
    };
  }

  /** True if END came, and what belongs behind it. */
  *#stream(): Walk<boolean> {
    const first = (yield* this.#cursor.take(TELLING_BYTES)).slice();
    const beginning = tellBeginning(first);
    let ended: boolean;
    switch (beginning.kind) {
      case 'back-channel':
        this.#backChannel = true;
        this.#visitor.backChannel?.();
        return yield* this.#layers.backChannelRecords(first);
      case 'libvirt':
        this.#wrapper = 'libvirt';
        ended = yield* this.#libvirt(first);
        break;
      case 'xenopsd':
        this.#wrapper = 'xenopsd';
        ended = yield* this.#xenopsd(first);
        break;
      case 'layer':
      case 'other':
        ended = yield* this.#outermostLayer(beginning, first, null);
    }
    if (ended && !this.#followed) {
      this.#trailing = (yield* this.#cursor.take(TRAILING_BYTES)).slice();
    }
    return ended;
  }

  /** A stream from its first octets on, of the layer that its wrapper has to hold. */
  *#outermostLayer(beginning: Beginning, first: Uint8Array, demanded: Layer | null): Walk<boolean> {
    const at = this.#cursor.offset - first.length;
    if (beginning.kind !== 'layer') {
      const more = yield* this.#cursor.take(SAMPLE_BYTES - first.length);
      const { rule, message } = tellOther(concatenate([first, more]));
      throw this.#cursor.stop(
        rule,
        at,
        null,
        at === 0 ? message : `wrapped by ${this.#wrapper ?? 'nobody'}: ${message}`,
      );
    }
    if (demanded !== null && beginning.layer !== demanded) {
      const message = `${this.#wrapper ?? 'nobody'} wraps a stream of ${demanded}, not of ${beginning.layer}`;
      throw this.#cursor.stop('wrapper', at, null, message);
    }
    this.#outermost = beginning.layer;
    const ended = yield* this.#layers.layers(beginning.layer, first);
    this.#streamEnd = ended ? this.#cursor.offset : null;
    return ended;
  }

  *#inside(demanded: Layer): Walk<boolean> {
    const where = `the file of ${this.#wrapper ?? 'nobody'}, where its stream begins`;
    const first = (yield* this.#cursor.takeAll(TELLING_BYTES, where)).slice();
    return yield* this.#outermostLayer(tellBeginning(first), first, demanded);
  }

  *#libvirt(first: Uint8Array): Walk<boolean> {
    const bytes = yield* this.#cursor.fill(first, LIBVIRT_HEADER_BYTES, "libvirt's header");
    const { xmlLength } = this.#cursor.decoded('not-a-stream', 0, () => decodeLibvirtHeader(bytes));
    yield* this.#cursor.skip(xmlLength, "libvirt's domain XML");
    this.#wrapperPart('header', 0);
    return yield* this.#inside('libxl');
  }

  *#xenopsd(first: Uint8Array): Walk<boolean> {
    const signature = yield* this.#cursor.fill(first, XENOPSD_SIGNATURE_BYTES, "xenopsd's signature");
    this.#cursor.decoded('not-a-stream', 0, () => checkXenopsdSignature(signature));
    this.#wrapperPart('signature', 0);
    for (let ended = false; ;) {
      const at = this.#cursor.offset;
      const bytes = yield* this.#cursor.takeAll(XENOPSD_RECORD_BYTES, "xenopsd's image, before End_of_image");
      const { type, name, length } = this.#cursor.decoded('wrapper', at, () =>
        xenopsdRecord(bytes, at, ended),
      );
      switch (type) {
        case XenopsdType.LIBXC:
        case XenopsdType.LIBXL:
          this.#wrapperPart(name, at);
          ended = yield* this.#inside(type === XenopsdType.LIBXC ? 'libxc' : 'libxl');
          if (!ended) return false;
          break;
        case XenopsdType.END_OF_IMAGE:
          this.#wrapperPart(name, at);
          return true;
        case XenopsdType.DEMU:
          // It does not say where it ends; the stream has come.
          this.#wrapperPart(name, at);
          this.#followed = true;
          return true;
        default:
          yield* this.#cursor.skip(length, `xenopsd's ${name}`);
          this.#wrapperPart(name, at);
      }
    }
  }

  /** Of the wrapper, from `offset` to here. */
  #wrapperPart(name: string, offset: number): void {
    this.#cursor.markWhole();
    if (this.#wrapper !== null) {
      this.#visitor.wrapper?.({ kind: this.#wrapper, name, offset, length: this.#cursor.whole - offset });
    }
  }
}

/** Octets that a record takes in the stream, header and padding included. */
export function recordSpan(length: number): number {
  return RECORD_HEADER_BYTES + paddedLength(length);
}

/** Octets that a PAGE_DATA record of so many entries and pages has. */
export function pageDataLength(count: number, dataPages: number): number {
  return PAGE_DATA_HEADER_BYTES + count * PAGE_DATA_ENTRY_BYTES + dataPages * PAGE_SIZE;
}
