// An NBD client, over a socket of this host: reads of what QEMU exports, and writes into what a standby's QEMU does.
// Several requests may be under way, each a promise; they are bounded in number and length, so memory is.

import { connect, type Socket } from 'node:net';
import { asError } from '../../../../errors.js';
import { afterAwake, withinAwake } from '../../../../flow/awake.js';
import { ClientNegotiation, type Agreement } from './client-negotiation.js';
import { NbdError } from './error.js';
import {
  Command,
  ExportFlag,
  REQUEST_BYTES,
  REQUEST_LENGTH_MAX,
  REQUEST_MAGIC,
  putOffset,
} from './protocol.js';
import { Replies, type Pending } from './replies.js';

const SCRATCH_BYTES = 64 * 1024;
/** Requests under way. */
const PENDING_MAX = 64;
const TIMEOUT_MS = 10_000;
/** Of a block status or a range without data: what a field of 32 bits holds, in whole chunks. */
const RANGE_BYTES_MAX = 2 ** 32 - 64 * 1024;
/** Requests that QEMU lets nobody send it without. */
const NEEDED: Readonly<Partial<Record<Command, number>>> = {
  [Command.TRIM]: ExportFlag.SEND_TRIM,
  [Command.WRITE_ZEROES]: ExportFlag.SEND_WRITE_ZEROES,
  [Command.FLUSH]: ExportFlag.SEND_FLUSH,
};

export interface NbdClientOptions {
  /** Of the server's socket. */
  readonly path: string;
  /** Its name there. */
  readonly exportName: string;
  /** What blockStatus() will be asked for: base:allocation, qemu:dirty-bitmap:NAME. Left out: nothing. */
  readonly contexts?: readonly string[];
  /** Aborted, the connection ends. */
  readonly signal?: AbortSignal;
  /** Its end is not told to the server, which must not hear of it: see keeper.ts. */
  readonly isKept?: boolean;
  /** For the handshake, and for the server to say something while anything is asked of it. */
  readonly timeoutMs?: number;
}

export class NbdClient {
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  readonly #isKept: boolean;
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  readonly #pending = new Map<number, Pending>();
  #negotiation: ClientNegotiation;
  #agreement: Agreement | null = null;
  #agreed: () => void = () => undefined;
  #replies: Replies | null = null;
  #cookie = 0;
  #end: NbdError | null = null;
  /** Ends the time that the server has to say something; null: it has not begun. */
  #watch: (() => void) | null = null;
  #hasSpoken = false;
  readonly #ended: Promise<NbdError>;
  #tellEnd: (error: NbdError) => void = () => undefined;

  /** @throws NbdError FAILED (nobody listens), PROTOCOL, REFUSED, HUNG, CLOSED */
  static async connect(options: NbdClientOptions): Promise<NbdClient> {
    const { timeoutMs = TIMEOUT_MS, signal } = options;
    const client = new NbdClient(options, timeoutMs);
    const abort = () => client.close(new NbdError('CLOSED', 'the connection was given up'));
    try {
      signal?.throwIfAborted();
      signal?.addEventListener('abort', abort, { once: true });
      const agreed = new Promise<void>((resolve) => (client.#agreed = resolve));
      const late = () => new NbdError('HUNG', 'the NBD server does not finish its handshake', { timeoutMs });
      const failed = client.#ended.then((error) => Promise.reject(error));
      await withinAwake(timeoutMs, Promise.race([agreed, failed]), late);
      void client.#ended.then(() => signal?.removeEventListener('abort', abort));
      return client;
    } catch (thrown) {
      signal?.removeEventListener('abort', abort);
      client.close();
      if (thrown instanceof NbdError) throw thrown;
      throw new NbdError('CLOSED', 'the connection was given up', {}, { cause: asError(thrown) });
    }
  }

  private constructor(
    { path, exportName, contexts = [], isKept = false }: NbdClientOptions,
    timeoutMs: number,
  ) {
    this.#isKept = isKept;
    this.#timeoutMs = timeoutMs;
    this.#ended = new Promise((resolve) => (this.#tellEnd = resolve));
    this.#socket = connect({
      path,
      onread: {
        buffer: () => this.#replies?.target() ?? this.#scratch,
        callback: (count, memory) => {
          this.#receive(count, memory);
          return true;
        },
      },
    });
    this.#negotiation = new ClientNegotiation(exportName, contexts, (octets) => this.#socket.write(octets));
    this.#socket.on('error', (cause) => {
      // One that was there and is not any more resets what it had not read.
      const code = this.#agreement === null ? 'FAILED' : 'CLOSED';
      this.close(new NbdError(code, `the NBD server’s socket fails: ${cause.message}`, { path }, { cause }));
    });
    this.#socket.on('close', () => this.close(new NbdError('CLOSED', 'the NBD server has gone')));
  }

  /** Octets of the export. */
  get bytes(): number {
    return this.#agreement?.bytes ?? 0;
  }

  /** Resolves when the connection has ended, to why. */
  get ended(): Promise<NbdError> {
    return this.#ended;
  }

  /**
   * Reads as many octets as `into` has, which is not to be touched until then.
   * @throws NbdError (so do all requests) OUT_OF_RANGE, TOO_MANY, REQUEST_FAILED, PROTOCOL, HUNG, CLOSED, FAILED
   */
  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#request(Command.READ, offset, into.length, { into });
  }

  /** `data` are not to be touched until then. @throws see read() */
  async write(offset: number, data: Uint8Array): Promise<void> {
    await this.#request(Command.WRITE, offset, data.length, { data });
  }

  /** @throws see read(), and REFUSED if the server does not take it */
  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#request(Command.WRITE_ZEROES, offset, length);
  }

  /** @throws as writeZeroes() */
  async trim(offset: number, length: number): Promise<void> {
    await this.#request(Command.TRIM, offset, length);
  }

  /** What was written, and answered, before is on the disk. @throws as writeZeroes() */
  async flush(): Promise<void> {
    await this.#request(Command.FLUSH, 0, 0);
  }

  /**
   * Lengths and flags in turn, from `offset` on: of all of the range, or of its beginning, as much as the server likes.
   * @param context one of those that were wanted in connect()
   * @throws see read(), and REFUSED
   */
  async blockStatus(context: string, offset: number, length: number): Promise<Uint32Array> {
    const number = this.#agreement?.contexts.get(context);
    if (number === undefined) {
      throw new NbdError('REFUSED', `the server has not been asked for ${context}`, { context });
    }
    return this.#request(Command.BLOCK_STATUS, offset, length, { context: number });
  }

  /** All that is under way fails with the error, unless it has ended before. May be called twice. */
  close(error = new NbdError('CLOSED', 'the connection was closed')): void {
    if (this.#end !== null) return;
    this.#end = error;
    this.#watch?.();
    // A server that is told so ends at once; one that does not listen is not waited for.
    if (this.#agreement !== null && !this.#isKept) this.#socket.write(requestOctets(Command.DISC, 0, 0, 0));
    if (error.code === 'CLOSED' && this.#socket.writableLength === 0) this.#socket.destroySoon();
    else this.#socket.destroy();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#tellEnd(error);
  }

  #request(
    command: Command,
    offset: number,
    length: number,
    { into = null, data = null, context = 0 }: Partial<RequestParts> = {},
  ): Promise<Uint32Array> {
    return new Promise((resolve, reject) => {
      const refusal = this.#end ?? this.#refusal(command, offset, length, into !== null || data !== null);
      if (refusal !== null) {
        reject(refusal);
        return;
      }
      const cookie = (this.#cookie = (this.#cookie + 1) >>> 0);
      const parts = { command, offset, length, into, context, resolve, reject };
      this.#pending.set(cookie, { ...parts, received: 0, status: null, errno: 0 });
      this.#socket.cork();
      this.#socket.write(requestOctets(command, cookie, offset, length));
      if (data !== null) this.#socket.write(data);
      this.#socket.uncork();
      this.#watch ??= this.#watched();
    });
  }

  #refusal(command: Command, offset: number, length: number, hasData: boolean): NbdError | null {
    const { bytes, flags } = this.#agreement ?? { bytes: 0, flags: 0 };
    const needed = NEEDED[command] ?? 0;
    const isWrite = command === Command.WRITE || command === Command.TRIM || command === Command.WRITE_ZEROES;
    if ((flags & needed) !== needed || (isWrite && (flags & ExportFlag.READ_ONLY) !== 0)) {
      return new NbdError('REFUSED', 'the server does not take such requests', { command, flags });
    }
    const limit = hasData ? REQUEST_LENGTH_MAX : RANGE_BYTES_MAX;
    const isRange = command === Command.FLUSH || (length > 0 && length <= limit);
    if (!isRange || offset < 0 || offset + length > bytes) {
      return new NbdError('OUT_OF_RANGE', 'a range that cannot be asked for', {
        offset,
        length,
        bytes,
        limit,
      });
    }
    if (this.#pending.size < PENDING_MAX) return null;
    return new NbdError('TOO_MANY', 'too many requests at once', { limit: PENDING_MAX });
  }

  #receive(count: number, memory: Uint8Array): void {
    if (this.#end !== null) return;
    this.#hasSpoken = true;
    try {
      if (memory.buffer !== this.#scratch.buffer) this.#replies?.filled(count);
      else this.#feed(memory.subarray(0, count));
    } catch (thrown) {
      const known = thrown instanceof NbdError;
      this.close(
        known ? thrown : new NbdError('FAILED', 'a reply could not be taken', {}, { cause: thrown }),
      );
    }
  }

  #feed(chunk: Uint8Array): void {
    if (this.#replies === null) {
      const at = this.#negotiation.feed(chunk, 0);
      const { agreement } = this.#negotiation;
      if (agreement === null) return;
      this.#agreement = agreement;
      this.#replies = new Replies(this.#pending, agreement.isStructured);
      this.#agreed();
      this.#replies.feed(chunk.subarray(at));
    } else {
      this.#replies.feed(chunk);
    }
  }

  /** While something is asked, the server must say something in time. */
  #watched(): () => void {
    this.#hasSpoken = false;
    return afterAwake(this.#timeoutMs, () => {
      this.#watch = null;
      if (this.#pending.size === 0 || this.#end !== null) return;
      if (this.#hasSpoken) this.#watch = this.#watched();
      else this.close(new NbdError('HUNG', 'the NBD server does not answer', { timeoutMs: this.#timeoutMs }));
    });
  }
}

interface RequestParts {
  readonly into: Uint8Array | null;
  readonly data: Uint8Array | null;
  readonly context: number;
}

function requestOctets(command: Command, cookie: number, offset: number, length: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(REQUEST_BYTES));
  view.setUint32(0, REQUEST_MAGIC);
  view.setUint16(6, command);
  view.setUint32(12, cookie);
  putOffset(view, 16, offset);
  view.setUint32(24, length);
  return new Uint8Array(view.buffer);
}
