// The primary's end of a link: the sink that the saver writes to.
//
//   memory:  … headroom | piece …           one WebSocket message, sent from where it lies:
//                     ▲ the kind goes here   | 2 | piece |
//
// The octets of the pieces go into the digest as they are written; boundary() sends it.

import type { StreamPiece, StreamSink } from '../../stream/flow.js';
import {
  ChannelError,
  SUMS_MAX,
  type ChunkRange,
  type Hello,
  type PrimaryLink,
  type Welcome,
} from '../contract.js';
import { StreamDigest } from './digest.js';
import { LinkCore, badMessage, type Connection } from './core.js';
import { encodeControl } from '../wire/encode.js';
import { MessageKind, type ControlMessage } from '../wire/message.js';
import { Outbox } from './outbox.js';

/** Sums that are waited for. */
interface Asked extends ChunkRange {
  readonly resolve: (sums: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

export class SocketPrimaryLink extends LinkCore implements PrimaryLink {
  readonly hello: Hello;
  readonly streamUuid: string;
  readonly pairing: string;
  readonly resumes: boolean;
  readonly sink: StreamSink;

  readonly #outbox: Outbox;
  readonly #digest = new StreamDigest();
  readonly #outputBytes = new Map<number, number>();
  #trialEpoch: number | null = null;
  #handOverEpoch: number | null = null;
  #asked: Asked | null = null;
  /** Epochs whose boundary was sent and that are not acknowledged, oldest first. */
  readonly #unacknowledged: { readonly epoch: number; readonly digest: bigint }[] = [];

  constructor(connection: Connection, hello: Hello, welcome: Welcome, socketBufferBytes: number) {
    super(connection, welcome);
    this.hello = hello;
    this.streamUuid = welcome.streamUuid;
    this.pairing = welcome.pairing;
    this.resumes = welcome.resumes;
    this.#outbox = new Outbox(socketBufferBytes, (message, done) => this.sendOctets(message, done));
    this.sink = {
      write: (piece) => this.#write(piece),
      boundary: (epoch, end) => this.#boundary(epoch, end),
      drain: () => this.#outbox.drain(),
    };
  }

  get bufferedBytes(): number {
    return this.#outbox.bufferedBytes;
  }

  setOutputBytes(epoch: number, outputBytes: number): void {
    this.#outputBytes.set(epoch, outputBytes);
  }

  setTrial(epoch: number): void {
    this.#trialEpoch = epoch;
  }

  setHandOver(epoch: number): void {
    this.#handOverEpoch = epoch;
  }

  digestOf(epoch: number): bigint {
    const sent = this.#unacknowledged.find((each) => each.epoch === epoch);
    if (!sent)
      throw new ChannelError('INTERNAL', `epoch ${epoch} was not sent, or is acknowledged`, { epoch });
    return sent.digest;
  }

  handedOver(epoch: number): void {
    if (this.error === null) this.send({ kind: 'handed-over', epoch });
  }

  sums({ disk, first, count }: ChunkRange): Promise<Uint8Array> {
    if (this.#asked !== null || count < 1 || count > SUMS_MAX) {
      return Promise.reject(new RangeError(`sums of ${count} chunks cannot be asked for now`));
    }
    if (this.error !== null) return Promise.reject(this.error);
    return new Promise((resolve, reject) => {
      this.#asked = { disk, first, count, resolve, reject };
      this.send({ kind: 'sums-wanted', disk, first, count });
    });
  }

  #write({ memory, start, end }: StreamPiece): Promise<void> {
    if (start < 1 || end <= start || end > memory.length) {
      const facts = `${start} to ${end} of ${memory.length}`;
      return Promise.reject(new RangeError(`a piece must have octets and headroom, not lie at ${facts}`));
    }
    this.#digest.update(memory.subarray(start, end));
    memory[start - 1] = MessageKind.PIECE;
    return this.#outbox.push(memory.subarray(start - 1, end));
  }

  #boundary(epoch: number, end: boolean): Promise<void> {
    const { bytes, digest } = this.#digest.take();
    const outputBytes = this.#outputBytes.get(epoch) ?? 0;
    this.#outputBytes.delete(epoch);
    this.#unacknowledged.push({ epoch, digest });
    const handOver = epoch === this.#handOverEpoch;
    const trial = epoch === this.#trialEpoch;
    const said = { epoch, bytes, digest, outputBytes, end, trial, handOver };
    return this.#outbox.push(encodeControl({ kind: 'checkpoint', ...said }));
  }

  protected override piece(): void {
    throw badMessage('the secondary sent a stream piece');
  }

  protected override lost(error: ChannelError): void {
    this.#outbox.fail(error);
    this.#asked?.reject(error);
    this.#asked = null;
  }

  protected override control(message: ControlMessage): void {
    if (message.kind === 'durable') {
      this.emit({ kind: 'durable', point: message.point });
      return;
    }
    if (message.kind === 'sums') {
      this.#answered(message, message.sums);
      return;
    }
    if (message.kind !== 'ack') throw badMessage(`a ${message.kind} message out of turn`);
    const index = this.#unacknowledged.findIndex(({ epoch }) => epoch === message.epoch);
    if (index < 0) {
      throw badMessage('an epoch was acknowledged that waits for none', { epoch: message.epoch });
    }
    this.#unacknowledged.splice(0, index + 1);
    this.emit({ kind: 'acknowledged', epoch: message.epoch });
  }

  #answered({ disk, first, count }: ChunkRange, sums: Uint8Array): void {
    const asked = this.#asked;
    if (asked?.disk !== disk || asked.first !== first || asked.count !== count) {
      throw badMessage('sums that were not asked for', { disk, first, count });
    }
    this.#asked = null;
    // What it lies in is used again for what comes next.
    asked.resolve(new Uint8Array(sums));
  }
}
