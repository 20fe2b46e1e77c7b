// The primary's port: takes connections, sees them through the handshake and hands the links to the domains' owners.
//
//   TCP ─▶ (TLS) ─▶ HTTP upgrade ─▶ hello ─▶ offer.welcome ─▶ welcome ─▶ offer.linked(link)
//    └───────────── Handshakes: in time, not too many ─────────────┘
//
// Whatever is wrong with a connection ends that connection: before the upgrade with an HTTP answer (400 and headers
// with code and reason), after it with an error message and a close code. Nobody waits for a refusal here, so each
// goes to the log; that of a secondary which dials again and again, once for each reason.

import { createServer, type IncomingMessage, type Server } from 'node:http';
import { Server as TlsServer, createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { asError, codeOf, type Facts } from '../../errors.js';
import {
  ChannelError,
  PROTOCOL_VERSION,
  SUBPROTOCOL,
  type ChannelErrorCode,
  type DomainOffer,
  type Hello,
  type Welcome,
} from '../contract.js';
import { Admission, refusalOf, refuseHttp } from './admission.js';
import { CLOSE_NORMAL } from '../wire/close-codes.js';
import { Handshakes, peerOf, type Handshake } from './handshakes.js';
import {
  HANDSHAKES_MAX,
  HANDSHAKE_TIMEOUT_MS,
  PRIMARY_INBOUND_BYTES_MAX,
  SOCKET_BUFFER_BYTES,
} from '../limits.js';
import {
  badMessage,
  channelErrorOf,
  closeWebSocket,
  octetsOf,
  refuse,
  type Connection,
} from '../link/core.js';
import { encodeControl } from '../wire/encode.js';
import { decodeControl } from '../wire/message.js';
import { SocketPrimaryLink } from '../link/primary.js';
import { Refusals } from './refusals.js';
import { TLS_VERSION_MIN, checkPlaintext, type ChannelTls } from '../credentials/security.js';
import type { Shown } from '../credentials/credentials.js';
import type { ChannelToken } from '../credentials/token.js';

/** What a pino logger is, as far as it is needed here. */
export interface ChannelLog {
  info(facts: Facts, message: string): void;
  warn(facts: Facts, message: string): void;
}

export interface PrimaryListenerOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly tls?: ChannelTls | undefined;
  /** A secondary must know it. For plaintext. */
  readonly token?: ChannelToken | undefined;
  /** Allows plaintext to hosts other than loopback. */
  readonly plaintext?: boolean | undefined;
  readonly heartbeatIntervalMs: number;
  /** Three intervals or more. */
  readonly heartbeatTimeoutMs: number;
  readonly handshakeTimeoutMs?: number | undefined;
  readonly handshakesMax?: number | undefined;
  readonly socketBufferBytes?: number | undefined;
  /** Our version, for the other side's log. */
  readonly software?: string | undefined;
  readonly log?: ChannelLog | undefined;
}

const ABOUT_TOKENS: ReadonlySet<ChannelErrorCode> = new Set(['NOT_AUTHENTICATED', 'TOKEN_MISMATCH']);

interface Offered {
  readonly offer: DomainOffer;
  link: SocketPrimaryLink | null;
}

export class PrimaryListener {
  readonly #options: PrimaryListenerOptions;
  readonly #server: Server | TlsServer;
  readonly #websockets: WebSocketServer;
  readonly #handshakes: Handshakes;
  readonly #offers = new Map<string, Offered>();
  readonly #links = new Set<SocketPrimaryLink>();
  readonly #refusals = new Refusals();
  readonly #admission: Admission;
  #closing: Promise<void> | null = null;

  /** @throws ChannelError PLAINTEXT_REFUSED; TLS for a certificate or key that cannot be used */
  constructor(options: PrimaryListenerOptions) {
    checkPlaintext(options.host, options.tls !== undefined, options.plaintext);
    this.#options = options;
    this.#admission = new Admission(options.tls !== undefined, options.token);
    this.#handshakes = new Handshakes(
      options.handshakesMax ?? HANDSHAKES_MAX,
      options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
    );
    this.#websockets = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      skipUTF8Validation: true,
      maxPayload: PRIMARY_INBOUND_BYTES_MAX,
      handleProtocols: () => SUBPROTOCOL,
    });
    this.#websockets.on('headers', (headers, request) => {
      headers.push(...this.#admission.upgradeHeaders(request));
    });
    this.#server = makeServer(options.tls, (error, socket) => {
      this.#logNews(new ChannelError('TLS', error.message, { cause: codeOf(error) }), socket);
      socket.destroy();
    });
    this.#server.on('connection', (socket: Socket) => {
      socket.on('error', () => {
        // A connection that fails is closed, and its close is what everybody here listens to.
      });
      this.#handshakes.begin(socket);
    });
    this.#server.on('request', (_request, response) => {
      response.writeHead(426, { connection: 'close', upgrade: 'websocket' }).end();
    });
    this.#server.on('clientError', (_error, socket) => refuseHttp(socket, 'BAD_MESSAGE'));
    this.#server.on('upgrade', (request: IncomingMessage, socket, head) =>
      this.#upgrade(request, socket, head),
    );
  }

  /** @throws ChannelError LISTEN_FAILED, with the system's code as fact `cause` */
  async listen(): Promise<{ port: number }> {
    const { host, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      const failed = (error: Error) => {
        const facts = { host, port, cause: codeOf(error) };
        const why = codeOf(error) === 'EADDRINUSE' ? 'another process listens there' : error.message;
        const message = `cannot listen on ${host}:${port}: ${why} (in hosts, of this one: listen or address, port)`;
        reject(new ChannelError('LISTEN_FAILED', message, facts, { cause: error }));
      };
      this.#server.once('error', failed);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', failed);
        this.#server.on('error', (error) =>
          this.#options.log?.warn({ cause: codeOf(error) }, `the replication port: ${error.message}`),
        );
        resolve();
      });
    });
    return { port: (this.#server.address() as AddressInfo).port };
  }

  /**
   * Offers a domain; the function that comes back takes the offer away again. A link that stands is not touched by
   * that: it belongs to whoever it was given to.
   * @throws ChannelError INTERNAL if the domain is offered already
   */
  offer(offer: DomainOffer): () => void {
    const { domain } = offer;
    if (this.#offers.has(domain)) {
      throw new ChannelError('INTERNAL', `the domain ${domain} is offered already`, { domain });
    }
    const offered: Offered = { offer, link: null };
    this.#offers.set(domain, offered);
    return () => {
      if (this.#offers.get(domain) === offered) this.#offers.delete(domain);
    };
  }

  /** For the connections that come; those that stand go on. @throws ChannelError TLS */
  renew({ tls, token }: Partial<Shown>): void {
    if (tls !== undefined && this.#server instanceof TlsServer) {
      const { cert, key, ca } = tls;
      try {
        this.#server.setSecureContext({ cert, key, ca, minVersion: TLS_VERSION_MIN });
      } catch (thrown) {
        throw unusable(thrown);
      }
    }
    this.#admission.renew(token);
  }

  /** Takes no more connections, says goodbye on every link, and resolves when all are closed. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#offers.clear();
    // An error here says that the server was not listening: closed is closed.
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#handshakes.expireAll();
    await Promise.all([...this.#links].map((link) => link.bye('shutdown')));
    this.#server.closeAllConnections();
    await closed;
  }

  #upgrade(request: IncomingMessage, duplex: Duplex, head: Buffer): void {
    // What http gives as Duplex is the net.Socket or TLSSocket of the request.
    const socket = request.socket;
    const handshake = this.#handshakes.find(socket);
    if (handshake === null || this.#closing !== null) {
      duplex.destroy();
      return;
    }
    try {
      this.#admission.judgeUpgrade(request);
    } catch (thrown) {
      const error = channelErrorOf(thrown);
      this.#logNews(error, socket);
      refuseHttp(duplex, error.code, error.message);
      return;
    }
    this.#websockets.handleUpgrade(request, duplex, head, (websocket) =>
      this.#await({ websocket, socket, peer: handshake.peer }, handshake),
    );
  }

  /** Waits for the hello. */
  #await(connection: Connection, handshake: Handshake): void {
    const { websocket, peer, socket } = connection;
    const address = socket.remoteAddress ?? '';
    let domain = '';
    const refused = (error: ChannelError) => {
      this.#handshakes.end(handshake);
      websocket.off('message', hello);
      this.#logNews(error, socket, domain);
      refuse(websocket, error);
    };
    handshake.expire = () =>
      refused(new ChannelError('HANDSHAKE_TIMEOUT', 'no hello came in time', { peer }));
    const hello = (data: Parameters<typeof octetsOf>[0], isBinary: boolean) => {
      try {
        if (!isBinary) throw badMessage('a text message');
        const message = decodeControl(octetsOf(data));
        if (message.kind === 'error' && message.code === 'TOKEN_MISMATCH') throw refusalOf(message);
        if (message.kind !== 'hello') throw badMessage(`a ${message.kind} message where a hello is due`);
        this.#admission.authenticate(message, socket);
        ({ domain } = message);
        this.#hello(connection, message);
        this.#refusals.forget(address, domain);
        this.#refusals.forget(address, '');
        this.#handshakes.end(handshake);
      } catch (thrown) {
        refused(channelErrorOf(thrown));
      }
    };
    websocket.on('message', hello);
    websocket.on('error', (error) => {
      // ws has told the other side why; a link, if it came to one, listens as well.
      if (this.#handshakes.end(handshake)) this.#logNews(badMessage(error.message), socket, domain);
      closeWebSocket(websocket, CLOSE_NORMAL, '');
    });
  }

  #hello(connection: Connection, hello: Hello): void {
    const { domain } = hello;
    const offered = this.#offers.get(domain);
    if (offered === undefined) {
      throw new ChannelError('UNKNOWN_DOMAIN', `there is no domain ${domain} here`, { domain });
    }
    this.#admission.judgeName(offered.offer, connection.socket);
    if (offered.link !== null) {
      const facts = { domain, secondary: offered.link.peer };
      throw new ChannelError('ALREADY_LINKED', `the domain ${domain} has a secondary already`, facts);
    }
    const welcome: Welcome = {
      heartbeatIntervalMs: this.#options.heartbeatIntervalMs,
      heartbeatTimeoutMs: this.#options.heartbeatTimeoutMs,
      ...offered.offer.welcome(hello),
      protocolVersion: PROTOCOL_VERSION,
      software: this.#options.software ?? 'romulus',
    };
    connection.websocket.send(encodeControl({ kind: 'welcome', ...welcome }));
    this.#link(offered, connection, hello, welcome);
  }

  #link(offered: Offered, connection: Connection, hello: Hello, welcome: Welcome): void {
    const limit = this.#options.socketBufferBytes ?? SOCKET_BUFFER_BYTES;
    const link = new SocketPrimaryLink(connection, hello, welcome, limit);
    offered.link = link;
    this.#links.add(link);
    link.events$.subscribe({ complete: () => (offered.link = null) });
    void link.closed.then(() => this.#links.delete(link));
    this.#options.log?.info({ domain: hello.domain, peer: link.peer }, 'a secondary is linked');
    try {
      offered.offer.linked(link);
    } catch (thrown) {
      link.destroy(channelErrorOf(thrown));
    }
  }

  /** `domain`: empty for one that has not said what it wants. */
  #logNews(error: ChannelError, socket: Socket, domain = ''): void {
    if (!this.#refusals.isNews(socket.remoteAddress ?? '', domain, error)) return;
    const peer = peerOf(socket);
    const untold = this.#refusals.takeUntold();
    const token = ABOUT_TOKENS.has(error.code) ? { token: this.#admission.tokenFile } : {};
    this.#options.log?.warn(
      { ...error.facts, ...token, ...(untold > 0 && { untold }), peer, code: error.code },
      `connection refused: ${error.message}`,
    );
  }
}

function makeServer(tls: ChannelTls | undefined, tlsFailed: (error: Error, socket: Socket) => void): Server {
  if (tls === undefined) return createServer();
  try {
    const { cert, key, ca } = tls;
    // Not rejected by TLS, which would tell nobody why, but by our own judgement.
    const mutual = { requestCert: true, rejectUnauthorized: false, minVersion: TLS_VERSION_MIN } as const;
    return createTlsServer({ cert, key, ca, ...mutual }).on('tlsClientError', tlsFailed);
  } catch (thrown) {
    throw unusable(thrown);
  }
}

function unusable(thrown: unknown): ChannelError {
  const cause = asError(thrown);
  return new ChannelError('TLS', `the TLS certificate or key: ${cause.message}`, {}, { cause });
}
