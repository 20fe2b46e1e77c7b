// What both ends of a link have in common: one WebSocket from the welcome to its end, its events, its heartbeats and
// the two ways to end it.
//
//             bye() / bye received ──▶ lost LINK_CLOSED, fact "bye" ─┐
//   linked ─┬ destroy(error) ────────▶ lost error                    ├─▶ closing ─▶ closed
//           ├ error message received ▶ lost error, fact "from"       │   (cut after CLOSE_TIMEOUT_MS)
//           └ closed, cut, silent ───▶ lost …                        ┘
//
// `lost` comes exactly once, and first; the connection ends after it. Nothing that arrives later is looked at.

import type { Socket } from 'node:net';
import { Subject, defer, from, type Observable } from 'rxjs';
import { WebSocket, type RawData } from 'ws';
import { asError, codeOf, type Facts } from '../../errors.js';
import { monotonicMs } from '../../flow/clock.js';
import { CLOSE_NORMAL, closeCodeOf, errorOfCloseCode } from '../wire/close-codes.js';
import {
  ChannelError,
  type ByeReason,
  type ChannelErrorCode,
  type LinkEvent,
  type Welcome,
} from '../contract.js';
import { startHeartbeat, step, tickAheadMs, type HeartbeatEvent, type HeartbeatState } from './heartbeat.js';
import { CLOSE_TIMEOUT_MS } from '../limits.js';
import { encodeControl } from '../wire/encode.js';
import { MessageKind, decodeControl, type ControlMessage } from '../wire/message.js';

/** An open WebSocket and the TCP or TLS socket under it. */
export interface Connection {
  readonly websocket: WebSocket;
  readonly socket: Socket;
  /** "address:port" of the other side. */
  readonly peer: string;
}

/** The message's octets; ws gives Buffers as long as its binaryType is left alone. */
export function octetsOf(data: RawData): Uint8Array {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? new Uint8Array(data) : data;
}

export function badMessage(reason: string, facts: Record<string, string | number> = {}): ChannelError {
  return new ChannelError('BAD_MESSAGE', reason, facts);
}

/** What went wrong, as the other side can be told it. */
export function channelErrorOf(thrown: unknown): ChannelError {
  const cause = asError(thrown);
  return cause instanceof ChannelError ? cause : new ChannelError('INTERNAL', cause.message, {}, { cause });
}

/** Ends a WebSocket with a close code, and cuts it if the other side does not answer in time. */
export function closeWebSocket(websocket: WebSocket, closeCode: number, reason: string): void {
  if (websocket.readyState === WebSocket.CLOSED) return;
  const cut = setTimeout(() => websocket.terminate(), CLOSE_TIMEOUT_MS);
  websocket.once('close', () => clearTimeout(cut));
  // A paused socket would not see the other side's close frame.
  if (websocket.isPaused) websocket.resume();
  websocket.close(closeCode, reason);
}

/** Tells the other side an error, then closes with its code. */
export function refuse(websocket: WebSocket, error: ChannelError): void {
  if (websocket.readyState === WebSocket.OPEN) {
    const { code, message, facts } = error;
    websocket.send(encodeControl({ kind: 'error', code, message, facts }), ignoreSendError);
  }
  closeWebSocket(websocket, closeCodeOf(error.code), error.code);
}

function ignoreSendError(): void {
  // The WebSocket's own error and close events say it as well.
}

/** What ws reports about a connection that was open. */
export function errorOfWebSocket(thrown: Error, peer: string): ChannelError {
  const cause = codeOf(thrown);
  const error = (code: ChannelErrorCode, message: string, facts: Facts = { peer, cause }) =>
    new ChannelError(code, message, facts, { cause: thrown });
  if (cause === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') {
    return error('MESSAGE_TOO_LARGE', 'a message is larger than this side takes', { peer });
  }
  if (cause.startsWith('WS_ERR_')) return error('BAD_MESSAGE', `no WebSocket message: ${thrown.message}`);
  return error('LINK_CLOSED', `the connection failed: ${thrown.message}`);
}

export function errorOfClose(closeCode: number, peer: string): ChannelError {
  const code = errorOfCloseCode(closeCode);
  return new ChannelError(code, `the other side closed the connection (${closeCode})`, { peer, closeCode });
}

export abstract class LinkCore {
  readonly peer: string;
  readonly events$: Observable<LinkEvent>;
  /** Resolves when the connection is closed, whoever closed it. */
  readonly closed: Promise<void>;

  readonly #connection: Connection;
  readonly #events = new Subject<LinkEvent>();
  /** The events that a late subscriber still gets: a bye, and how the link was lost. */
  readonly #last: LinkEvent[] = [];
  readonly #timer: NodeJS.Timeout;
  #heartbeat: HeartbeatState;
  #heartbeatUnderWay = false;
  #tickAhead: NodeJS.Timeout | undefined;
  #bytesRead: number;
  /** When the last message was read. */
  #messageAtMs = -Infinity;
  #error: ChannelError | null = null;
  #closeCode: number | null = null;

  constructor(connection: Connection, { heartbeatIntervalMs, heartbeatTimeoutMs }: Welcome) {
    const { websocket, socket, peer } = connection;
    this.peer = peer;
    this.#connection = connection;
    this.events$ = defer(() => (this.#error === null ? this.#events : from(this.#last)));
    this.#bytesRead = socket.bytesRead;
    this.#heartbeat = startHeartbeat(heartbeatIntervalMs, heartbeatTimeoutMs, monotonicMs());
    this.#timer = setInterval(() => this.#tick(), heartbeatIntervalMs);
    websocket.removeAllListeners('message');
    websocket.on('message', (data, isBinary) => this.#message(data, isBinary));
    websocket.on('error', (error) => this.#end(errorOfWebSocket(error, peer)));
    this.closed = new Promise((resolve) => {
      websocket.on('close', (closeCode) => {
        this.#closeCode = closeCode;
        this.#lose(errorOfClose(closeCode, peer));
        resolve();
      });
    });
  }

  /** What this end does with what comes in. @throws ChannelError: the link is destroyed with it */
  protected abstract control(message: ControlMessage): void;
  /** The octets of a stream piece, without the kind. @throws ChannelError, as above */
  protected abstract piece(bytes: Uint8Array): void;
  /** Called once, before the event. */
  protected abstract lost(error: ChannelError): void;

  /** How the link was lost, or null while it stands. */
  protected get error(): ChannelError | null {
    return this.#error;
  }

  protected emit(event: LinkEvent): void {
    this.#events.next(event);
  }

  /** Control messages are small and few; `sent` is called when the kernel has it or it has failed. */
  protected send(message: ControlMessage, sent?: (error?: Error | null) => void): void {
    this.sendOctets(encodeControl(message), sent ?? ignoreSendError);
  }

  /** Sends a message that has its kind. The memory belongs to the link until `sent` is called. */
  protected sendOctets(message: Uint8Array, sent: (error?: Error | null) => void): void {
    this.#connection.websocket.send(message, { binary: true, compress: false }, sent);
  }

  /** Stops reading the socket. What is on its way already may still come. */
  protected pause(): void {
    this.#connection.websocket.pause();
    this.#heartbeatStep({ kind: 'paused' });
  }

  protected resume(): void {
    this.#connection.websocket.resume();
    this.#heartbeatStep({ kind: 'resumed', nowMs: monotonicMs() });
  }

  async bye(reason: ByeReason): Promise<boolean> {
    const said = this.#error === null;
    if (said) {
      this.send({ kind: 'bye', reason });
      const facts = { peer: this.peer, bye: reason };
      this.#end(new ChannelError('LINK_CLOSED', `we said goodbye (${reason})`, facts), reason);
    }
    await this.closed;
    // Frames are read in their order, and a close is answered in kind. One that was under way for another reason has
    // another code; a connection that was cut has 1006.
    return said && this.#closeCode === CLOSE_NORMAL;
  }

  destroy(error: ChannelError): void {
    if (this.#error !== null) return;
    this.#lose(error);
    refuse(this.#connection.websocket, error);
  }

  #message(data: RawData, isBinary: boolean): void {
    if (this.#error !== null) return;
    this.#messageAtMs = monotonicMs();
    try {
      if (!isBinary) throw badMessage('a text message');
      const bytes = octetsOf(data);
      if (bytes[0] === MessageKind.PIECE) this.piece(bytes.subarray(1));
      else this.#control(decodeControl(bytes));
    } catch (thrown) {
      this.destroy(channelErrorOf(thrown));
    }
  }

  #control(message: ControlMessage): void {
    if (message.kind === 'heartbeat') return;
    if (message.kind === 'bye') {
      const { kind, reason } = message;
      this.#last.push({ kind, reason });
      this.#events.next({ kind, reason });
      const facts = { peer: this.peer, bye: reason };
      this.#end(new ChannelError('LINK_CLOSED', `the other side said goodbye (${reason})`, facts));
    } else if (message.kind === 'error') {
      this.#end(new ChannelError(message.code, message.message, { ...message.facts, from: this.peer }));
    } else {
      this.control(message);
    }
  }

  #tick(): void {
    const { bytesRead } = this.#connection.socket;
    // The close frame of one that has given us up is no sign that it stands by.
    const open = this.#connection.websocket.readyState === WebSocket.OPEN;
    const heard = bytesRead !== this.#bytesRead && open;
    this.#bytesRead = bytesRead;
    const nowMs = monotonicMs();
    // Of octets that are no whole message yet it is not known when they came.
    const heardAtMs = this.#messageAtMs > this.#heartbeat.tickedAtMs ? this.#messageAtMs : nowMs;
    this.#heartbeatStep({ kind: 'tick', nowMs, heard, heardAtMs });
    clearTimeout(this.#tickAhead);
    const aheadMs = this.#error === null ? tickAheadMs(this.#heartbeat) : null;
    if (aheadMs !== null) this.#tickAhead = setTimeout(() => this.#tick(), aheadMs);
  }

  #heartbeatStep(event: HeartbeatEvent): void {
    const [state, effects] = step(this.#heartbeat, event);
    this.#heartbeat = state;
    for (const effect of effects) {
      if (effect.kind === 'send') this.#sendHeartbeat();
      else if (effect.kind === 'heard') this.#events.next({ kind: 'heard' });
      else this.#silent(effect.silentMs);
    }
  }

  /** Never a second one behind one that the kernel has not taken: a stuck socket does not fill with heartbeats. */
  #sendHeartbeat(): void {
    if (this.#heartbeatUnderWay) return;
    this.#heartbeatUnderWay = true;
    this.send({ kind: 'heartbeat' }, () => {
      this.#heartbeatUnderWay = false;
    });
  }

  #silent(silentMs: number): void {
    const { timeoutMs } = this.#heartbeat;
    const facts = { peer: this.peer, silentMs: Math.round(silentMs), timeoutMs };
    this.destroy(new ChannelError('HEARTBEAT_TIMEOUT', 'nothing was heard from the other side', facts));
  }

  #end(error: ChannelError, reason = ''): void {
    this.#lose(error);
    closeWebSocket(this.#connection.websocket, CLOSE_NORMAL, reason);
  }

  #lose(error: ChannelError): void {
    if (this.#error !== null) return;
    this.#error = error;
    clearInterval(this.#timer);
    clearTimeout(this.#tickAhead);
    const lost: LinkEvent = { kind: 'lost', error };
    this.#last.push(lost);
    this.lost(error);
    this.#events.next(lost);
    this.#events.complete();
  }
}
