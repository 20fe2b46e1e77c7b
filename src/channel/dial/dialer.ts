// The secondary's way in: one attempt to reach a primary, from the TCP connection to its welcome.
//
//   dial ─▶ TCP ─▶ (TLS) ─▶ HTTP upgrade ─▶ hello ─▶ welcome ─▶ link
//      connectTimeoutMs └──────── handshakeTimeoutMs ────────┘
//
// Who is there is judged before anything is said but that we are here: under TLS by the primary's certificate
// (identity.ts), in plaintext by the token (token.ts). A primary whose certificate we do not take is told why, in the
// HTTP request that it would have got anyway; nothing that it answers counts. One that has another token is told, too.
//
// Every way in which it can fail is one ChannelError (contract.ts), or whatever the primary says.

import type { ClientRequest, IncomingMessage } from 'node:http';
import type { OnReadOpts, Socket } from 'node:net';
import { WebSocket, type ClientOptions, type RawData } from 'ws';
import { asError, codeOf } from '../../errors.js';
import { CLOSE_NORMAL, ERROR_HEADER } from '../wire/close-codes.js';
import {
  ChannelError,
  PROTOCOL_VERSION,
  SUBPROTOCOL,
  type ChannelErrorCode,
  type Hello,
  type SecondaryLink,
  type Welcome,
} from '../contract.js';
import { FrameTap } from '../link/frame-tap.js';
import { peerOf } from '../listen/handshakes.js';
import { REASON_HEADER, checkName, headerText, trustedCertificate } from '../credentials/identity.js';
import {
  CONNECT_TIMEOUT_MS,
  HANDSHAKE_TIMEOUT_MS,
  MESSAGE_BYTES_MAX,
  RECEIVE_BUFFER_BYTES,
} from '../limits.js';
import {
  badMessage,
  channelErrorOf,
  closeWebSocket,
  errorOfClose,
  errorOfWebSocket,
  octetsOf,
  refuse,
} from '../link/core.js';
import { MessagePool } from '../link/pool.js';
import { encodeControl } from '../wire/encode.js';
import { decodeControl } from '../wire/message.js';
import { SocketSecondaryLink } from '../link/secondary.js';
import { TLS_VERSION_MIN, checkPlaintext, isTlsError, type ChannelTls } from '../credentials/security.js';
import { NONCE_HEADER, judgeAnswer, newNonce, type ChannelToken } from '../credentials/token.js';

export interface DialOptions {
  /** ws://host:port or wss://host:port */
  readonly url: string;
  readonly hello: Omit<Hello, 'protocolVersion' | 'software'>;
  readonly tls?: ChannelTls | undefined;
  /** The name that the primary's certificate must have. Default: the URL's host. */
  readonly primaryName?: string | undefined;
  /** The primary must know it. For plaintext. */
  readonly token?: ChannelToken | undefined;
  /** That of the last link: a primary that has another one now is known by it. */
  readonly lastToken?: ChannelToken | undefined;
  /** Allows plaintext to hosts other than loopback. */
  readonly plaintext?: boolean | undefined;
  readonly connectTimeoutMs?: number | undefined;
  readonly handshakeTimeoutMs?: number | undefined;
  /** Octets of the largest message that is taken; at most 2^31 - 1. */
  readonly maxMessageBytes?: number | undefined;
  /** Octets that may wait for the restorer before the socket is paused. */
  readonly receiveBufferBytes?: number | undefined;
  readonly software?: string | undefined;
  /** Ends the attempt (not the link that came of it). */
  readonly signal?: AbortSignal | undefined;
}

/** What a primary says before it has said who it is: nothing that a decision may follow from. */
const TOLD_BY_ANYBODY: readonly ChannelErrorCode[] = ['BAD_SUBPROTOCOL', 'BAD_MESSAGE', 'NOT_AUTHENTICATED'];

/** One attempt. @throws ChannelError, or the signal's reason */
export function dial(options: DialOptions): Promise<SecondaryLink> {
  return new Promise((resolve, reject) => {
    options.signal?.throwIfAborted();
    new Dial(options, resolve, reject);
  });
}

class Dial {
  readonly #options: DialOptions;
  readonly #websocket: WebSocket;
  readonly #receiveBufferBytes: number;
  readonly #pool: MessagePool;
  readonly #tap: FrameTap;
  readonly #succeed: (link: SecondaryLink) => void;
  readonly #reject: (error: Error) => void;
  #timer: NodeJS.Timeout;
  #socket: Socket | null = null;
  #encrypted = false;
  #opened = false;
  /** Why we do not take the primary, which is told. */
  #verdict: ChannelError | null = null;
  readonly #nonce = newNonce();
  /** That we know the token, for the hello. */
  #proof = '';
  #settled = false;

  constructor(options: DialOptions, succeed: (link: SecondaryLink) => void, reject: (error: Error) => void) {
    this.#options = options;
    this.#succeed = succeed;
    this.#reject = reject;
    this.#receiveBufferBytes = options.receiveBufferBytes ?? RECEIVE_BUFFER_BYTES;
    this.#pool = new MessagePool(this.#receiveBufferBytes);
    this.#tap = new FrameTap(options.maxMessageBytes ?? MESSAGE_BYTES_MAX, this.#pool);
    this.#websocket = this.#open();
    const connectTimeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const late = () => this.#fail('UNREACHABLE', 'no connection within the time', { connectTimeoutMs });
    this.#timer = setTimeout(late, connectTimeoutMs);
    options.signal?.addEventListener('abort', this.#abort);
    const websocket = this.#websocket;
    websocket.on('upgrade', (response) => {
      this.#socket = response.socket;
      this.#upgraded(response);
    });
    websocket.on('unexpected-response', (_request, response) => this.#refusedByHttp(response));
    websocket.on('open', () => {
      this.#opened = true;
      if (this.#verdict !== null) {
        this.#refuse(this.#verdict);
        return;
      }
      this.#tap.start((message) => websocket.emit('message', message, true));
      const { hello, software } = this.#options;
      const ours = { protocolVersion: PROTOCOL_VERSION, software: software ?? 'romulus' };
      websocket.send(encodeControl({ kind: 'hello', ...hello, ...ours, proof: this.#proof }));
    });
    websocket.on('message', this.#message);
    websocket.on('error', this.#error);
    websocket.on('close', this.#closed);
  }

  #open(): WebSocket {
    const { url, tls, plaintext, maxMessageBytes } = this.#options;
    let target: URL;
    try {
      target = new URL(url);
    } catch (thrown) {
      throw new ChannelError('UNREACHABLE', `${url} is no URL`, { url }, { cause: thrown });
    }
    checkPlaintext(target.hostname, target.protocol === 'wss:', plaintext);
    try {
      const clientOptions: ClientOptions & { onread: OnReadOpts } = {
        // Given on to net.connect or tls.connect.
        onread: this.#tap.onread,
        perMessageDeflate: false,
        skipUTF8Validation: true,
        followRedirects: false,
        maxPayload: maxMessageBytes ?? MESSAGE_BYTES_MAX,
        headers: { [NONCE_HEADER]: this.#nonce },
        minVersion: TLS_VERSION_MIN,
        // Not rejected by TLS, which would tell nobody why, but by #secured.
        rejectUnauthorized: false,
        checkServerIdentity: () => false, // no error
        ...tls,
        finishRequest: (request) => {
          request.once('socket', (socket) => {
            this.#tap.attach(socket);
            socket.once('connect', this.#connected);
            socket.once('secureConnect', () => this.#secured(request, socket, target.hostname));
          });
          if (target.protocol !== 'wss:') request.end();
        },
      };
      return new WebSocket(target, [SUBPROTOCOL], clientOptions);
    } catch (thrown) {
      const cause = asError(thrown);
      const code = isTlsError(cause) ? 'TLS' : 'UNREACHABLE';
      throw new ChannelError(code, `${url} cannot be dialled: ${cause.message}`, { url }, { cause });
    }
  }

  readonly #connected = () => {
    if (this.#settled) return;
    clearTimeout(this.#timer);
    const handshakeTimeoutMs = this.#options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS;
    this.#timer = setTimeout(() => {
      this.#fail('HANDSHAKE_TIMEOUT', 'the primary did not welcome us in time', { handshakeTimeoutMs });
    }, handshakeTimeoutMs);
  };

  /** TLS stands: whom with? Then the upgrade is asked for, or the primary is told why not. */
  #secured(request: ClientRequest, socket: Socket, host: string): void {
    this.#encrypted = true;
    const name = this.#options.primaryName ?? host.replace(/^\[|\]$/g, '');
    try {
      checkName(trustedCertificate(socket), [name], 'our primary');
    } catch (thrown) {
      const cause = channelErrorOf(thrown);
      const { code, facts } = cause;
      const message = `the primary is not trusted: ${cause.message}`;
      this.#verdict = new ChannelError(code, message, { url: this.#options.url, ...facts }, { cause });
      request.setHeader(ERROR_HEADER, code);
      request.setHeader(REASON_HEADER, headerText(cause.message));
    }
    request.end();
  }

  /** Does the primary know the token? Before it is told anything. */
  #upgraded({ headers }: IncomingMessage): void {
    const { token, lastToken, url } = this.#options;
    if (this.#verdict !== null) this.#end(this.#verdict);
    if (this.#verdict !== null || token === undefined) return;
    const shown = judgeAnswer(headers, this.#nonce, token, lastToken);
    if (shown.kind === 'token') {
      this.#proof = shown.proof;
      return;
    }
    const advice = `does not know the token in ${token.file}: both sides need the same ("token")`;
    const facts = { url, token: token.file };
    if (this.#encrypted || shown.kind === 'life') {
      this.#verdict = new ChannelError('TOKEN_MISMATCH', `the primary lives, and ${advice}`, facts);
    } else {
      this.#fail('NOT_AUTHENTICATED', `who answers ${advice}`, facts);
    }
  }

  readonly #abort = () => {
    // What an AbortSignal is aborted with is its own business.
    this.#end(asError(this.#options.signal?.reason));
  };

  readonly #message = (data: RawData, isBinary: boolean) => {
    const { url } = this.#options;
    try {
      if (!isBinary) throw badMessage('a text message');
      const message = decodeControl(octetsOf(data));
      if (message.kind === 'welcome') {
        this.#welcome(message);
      } else if (message.kind === 'error') {
        this.#fail(this.#told(message.code), message.message, { ...message.facts, from: url });
      } else {
        throw badMessage(`a ${message.kind} message where a welcome is due`);
      }
    } catch (thrown) {
      this.#refuse(channelErrorOf(thrown));
    }
  };

  #refuse(error: ChannelError): void {
    refuse(this.#websocket, error);
    this.#end(error);
  }

  #welcome(welcome: Welcome): void {
    const socket = this.#socket;
    if (socket === null) throw new ChannelError('INTERNAL', 'a welcome before the upgrade');
    this.#release();
    const connection = { websocket: this.#websocket, socket, peer: peerOf(socket) };
    this.#succeed(new SocketSecondaryLink(connection, welcome, this.#receiveBufferBytes, this.#pool));
  }

  #refusedByHttp(response: IncomingMessage): void {
    const { statusCode: status, headers } = response;
    const { token } = this.#options;
    const told = headers[ERROR_HEADER];
    // Over TLS it is our primary who says so; in plaintext, anybody.
    const tls = this.#encrypted && told === 'TLS' ? told : undefined;
    const known = tls ?? TOLD_BY_ANYBODY.find((code) => code === told);
    const reason = headerText(String(headers[REASON_HEADER] ?? ''));
    const why = known === undefined || reason === '' ? `HTTP status ${status ?? 0}` : reason;
    const mine = token === undefined ? '' : ` (ours is in ${token.file})`;
    const message = `the primary refuses us: ${why}${known === 'NOT_AUTHENTICATED' ? mine : ''}`;
    this.#fail(this.#told(known ?? 'BAD_SUBPROTOCOL'), message, { status });
  }

  /** What we are told means more of one who has shown that he is our primary. */
  #told(code: ChannelErrorCode): ChannelErrorCode {
    const shown = this.#encrypted || this.#proof !== '';
    return code === 'NOT_AUTHENTICATED' && shown ? 'TOKEN_MISMATCH' : code;
  }

  readonly #error = (error: Error) => {
    const { url } = this.#options;
    const cause = codeOf(error);
    const facts = { url, cause };
    if (this.#opened) {
      this.#end(errorOfWebSocket(error, url));
    } else if (cause === 'ECONNREFUSED') {
      this.#fail('REFUSED', 'nobody listens there', facts, error);
    } else if (this.#encrypted && (cause === 'ECONNRESET' || cause === 'EPIPE')) {
      // Node's server ends a connection without an alert when it does not take the client's certificate, which in
      // TLS 1.3 is after the client's own handshake is done.
      this.#fail('TLS', 'cut after the TLS handshake: does the primary know our certificate?', facts, error);
    } else if (isTlsError(error)) {
      this.#fail('TLS', `TLS failed: ${error.message}`, facts, error);
    } else if (cause === 'Error' || cause.startsWith('HPE_')) {
      // No HTTP, or an upgrade that is not one (ws has no code for that): a wrong key, another subprotocol.
      this.#fail('BAD_SUBPROTOCOL', error.message, facts, error);
    } else {
      this.#fail('UNREACHABLE', `no connection: ${error.message}`, facts, error);
    }
  };

  readonly #closed = (closeCode: number) => this.#end(errorOfClose(closeCode, this.#options.url));

  #fail(code: ChannelError['code'], message: string, facts: ChannelError['facts'], cause?: Error): void {
    this.#end(new ChannelError(code, message, { url: this.#options.url, ...facts }, cause && { cause }));
  }

  #end(error: Error): void {
    if (this.#settled) return;
    this.#release();
    const websocket = this.#websocket;
    websocket.on('error', () => {
      // Closing what never opened is reported as an error; the attempt has its own already.
    });
    if (websocket.readyState === WebSocket.CONNECTING) websocket.terminate();
    else closeWebSocket(websocket, CLOSE_NORMAL, '');
    this.#reject(this.#verdict ?? error);
  }

  /** Lets go of the timer, the signal and the WebSocket's events. */
  #release(): void {
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#abort);
    this.#websocket.off('message', this.#message);
    this.#websocket.off('error', this.#error);
    this.#websocket.off('close', this.#closed);
  }
}
