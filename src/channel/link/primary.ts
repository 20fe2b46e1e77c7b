// The primary's end of a link: the sink that the saver writes to.
//
//   memory:  … headroom | piece …           one WebSocket message, sent from where it lies:
//                     ▲ the kind goes here   | 2 | piece |
//
// The octets of the pieces go into the digest as they are written; boundary() sends it.

import type { StreamPiece, StreamSink } from '../../stream/flow.js';
import { ChannelError, type Hello, type PrimaryLink, type Welcome } from '../contract.js';
import { StreamDigest } from './digest.js';
import { LinkCore, badMessage, type Connection } from './core.js';
import { MessageKind, encodeControl, type ControlMessage } from '../wire/message.js';
import { Outbox } from './outbox.js';

export class SocketPrimaryLink extends LinkCore implements PrimaryLink {
  readonly hello: Hello;
  readonly streamUuid: string;
  readonly pairing: string;
  readonly resumes: boolean;
  readonly sink: StreamSink;

  readonly #outbox: Outbox;
  readonly #digest = new StreamDigest();
  readonly #outputBytes = new Map<number, number>();
  #handOverEpoch: number | null = null;
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
    const said = { epoch, bytes, digest, outputBytes, end, handOver };
    return this.#outbox.push(encodeControl({ kind: 'checkpoint', ...said }));
  }

  protected override piece(): void {
    throw badMessage('the secondary sent a stream piece');
  }

  protected override lost(error: ChannelError): void {
    this.#outbox.fail(error);
  }

  protected override control(message: ControlMessage): void {
    if (message.kind !== 'ack') throw badMessage(`a ${message.kind} message out of turn`);
    const index = this.#unacknowledged.findIndex(({ epoch }) => epoch === message.epoch);
    if (index < 0) {
      throw badMessage('an epoch was acknowledged that waits for none', { epoch: message.epoch });
    }
    this.#unacknowledged.splice(0, index + 1);
    this.emit({ kind: 'acknowledged', epoch: message.epoch });
  }
}
