// The secondary's end of a link: the source that the restorer reads.
//
//   socket ─▶ pieces ─▶ digest ─▶ reader [ pendingBytes ] ─▶ read()
//                          │
//             checkpoint ──┴─▶ boundaries ─────────────────▶ boundary()
//
// The digest is taken as the pieces come in, so that it covers exactly the octets between two checkpoint messages,
// however far the restorer has read. Pieces are trusted to be cut at records no more than any other input.
//
// Back-pressure: the socket is paused while more than receiveBufferBytes wait and nobody waits for more. Who waits
// is always served, or a record longer than the limit would never get through. While paused we hear nothing, neither
// heartbeats nor the end of the connection: that time does not count as silence, and the loss is noticed when the
// restorer has read on. Our own heartbeats go out all the while.

import { BehaviorSubject } from 'rxjs';
import type { RecordSource, StreamHeaders } from '../../stream/flow.js';
import { RecordReader } from '../../stream/record-reader.js';
import type { StreamRecord } from '../../stream/record.js';
import type { DiskPoint } from '../../hypervisor/port-disks.js';
import {
  ChannelError,
  type CheckpointBoundary,
  type ChunkRange,
  type SecondaryLink,
  type Welcome,
} from '../contract.js';
import { StreamDigest } from './digest.js';
import { BOUNDARIES_MAX } from '../limits.js';
import { LinkCore, badMessage, type Connection } from './core.js';
import type { MessagePool } from './pool.js';
import type { CheckpointMessage, ControlMessage } from '../wire/message.js';

interface Arrived extends CheckpointBoundary {
  /** Where in the stream the boundary lies. */
  readonly offset: number;
}

export class SocketSecondaryLink extends LinkCore implements SecondaryLink {
  readonly welcome: Welcome;
  readonly source: RecordSource;
  readonly sumsWanted$ = new BehaviorSubject<ChunkRange | null>(null);

  readonly #receiveBufferBytes: number;
  readonly #reader = new RecordReader();
  readonly #digest = new StreamDigest();
  readonly #boundaries: Arrived[] = [];
  readonly #waiting: (() => void)[] = [];
  #paused = false;
  #ended = false;
  #lastEpoch = -1;
  #lastOffset = 0;
  /** Of the checkpoint that is the last. */
  #handOverEpoch: number | null = null;

  constructor(connection: Connection, welcome: Welcome, receiveBufferBytes: number, pool: MessagePool) {
    super(connection, welcome);
    this.welcome = welcome;
    this.#receiveBufferBytes = receiveBufferBytes;
    this.source = {
      headers: () => this.#headers(),
      read: () => this.#read(),
      release: (record) => pool.release(record),
    };
  }

  get bufferedBytes(): number {
    return this.#reader.pendingBytes;
  }

  async boundary(): Promise<CheckpointBoundary> {
    for (;;) {
      const { offset } = this.#reader;
      const next = this.#boundaries[0];
      if (next !== undefined && next.offset === offset) {
        this.#boundaries.shift();
        return next;
      }
      if (this.error !== null) throw this.error;
      // A boundary elsewhere, or octets before the boundary: either way it will never be here.
      if (next !== undefined || this.#reader.pendingBytes > 0) {
        const error = badMessage('the checkpoint message does not stand where the records end', { offset });
        this.destroy(error);
        throw error;
      }
      await this.#more();
    }
  }

  acknowledge(epoch: number): Promise<void> {
    if (this.error !== null) return Promise.reject(this.error);
    return new Promise((resolve, reject) => {
      this.send({ kind: 'ack', epoch }, (error) => {
        if (!error) resolve();
        else reject(this.error ?? notSent(error));
      });
    });
  }

  answerSums(range: ChunkRange, sums: Uint8Array): void {
    if (this.error !== null) return;
    this.sumsWanted$.next(null);
    this.send({ kind: 'sums', ...range, sums });
  }

  durable(point: DiskPoint): void {
    if (this.error === null) this.send({ kind: 'durable', point });
  }

  async #headers(): Promise<StreamHeaders> {
    for (;;) {
      const headers = this.#reader.headers();
      if (headers !== null) return headers;
      // That throws TRUNCATED: the headers are not there, and nothing comes any more.
      if (this.error !== null) this.#reader.end();
      await this.#more();
    }
  }

  async #read(): Promise<StreamRecord | null> {
    for (;;) {
      const record = this.#reader.next();
      if (record !== null) {
        this.#regulate();
        return record;
      }
      if (this.error !== null) return null;
      await this.#more();
    }
  }

  protected override lost(): void {
    this.sumsWanted$.complete();
    this.#wake();
  }

  protected override piece(bytes: Uint8Array): void {
    if (this.#ended) throw badMessage('a stream piece after the end of the stream');
    if (bytes.length === 0) throw badMessage('an empty stream piece');
    this.#digest.update(bytes);
    this.#reader.push(bytes);
    this.#wake();
  }

  protected override control(message: ControlMessage): void {
    if (message.kind === 'handed-over' && message.epoch === this.#handOverEpoch) {
      this.emit({ kind: 'handed-over', epoch: message.epoch });
      return;
    }
    if (message.kind === 'sums-wanted') {
      const { disk, first, count } = message;
      if (this.sumsWanted$.value !== null) throw badMessage('two questions for sums at once');
      this.sumsWanted$.next({ disk, first, count });
      return;
    }
    if (message.kind !== 'checkpoint') throw badMessage(`a ${message.kind} message out of turn`);
    const old = message.end ? message.epoch < this.#lastEpoch : message.epoch <= this.#lastEpoch;
    if (this.#ended || old) {
      throw badMessage('a checkpoint out of turn', { epoch: message.epoch, last: this.#lastEpoch });
    }
    if (this.#boundaries.length >= BOUNDARIES_MAX) {
      throw badMessage('too many checkpoints at once', { limit: BOUNDARIES_MAX });
    }
    this.#check(message);
    const { epoch, bytes, digest, outputBytes, end, trial, handOver } = message;
    this.#lastEpoch = epoch;
    this.#lastOffset += bytes;
    this.#ended = end;
    if (handOver) this.#handOverEpoch = epoch;
    const said = { epoch, bytes, digest, outputBytes, end, trial, handOver };
    this.#boundaries.push({ ...said, offset: this.#lastOffset });
    this.#wake();
  }

  #check(message: CheckpointMessage): void {
    const { bytes, digest } = this.#digest.take();
    if (bytes === message.bytes && digest === message.digest) return;
    const { epoch } = message;
    const sent = { epoch, bytesSent: message.bytes, digestSent: message.digest };
    const facts = { ...sent, bytesReceived: bytes, digestReceived: digest };
    throw new ChannelError('DIGEST_MISMATCH', `checkpoint ${epoch} is not the one that was sent`, facts);
  }

  /** Resolves when something came, or the link was lost. */
  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#regulate();
    });
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.#regulate();
  }

  #regulate(): void {
    const pause = this.#waiting.length === 0 && this.#reader.pendingBytes > this.#receiveBufferBytes;
    if (pause === this.#paused || this.error !== null) return;
    this.#paused = pause;
    if (pause) this.pause();
    else this.resume();
  }
}

function notSent(cause: Error): ChannelError {
  return new ChannelError('LINK_CLOSED', 'the acknowledgement could not be sent', {}, { cause });
}
