// The primary's door: who may come in, judged in two steps, so that each refusal can be told.
//
//   HTTP upgrade   TLS: a good certificate of our authority       plaintext: the token is asked for, and shown to be known
//   hello          TLS: one of a host that may be its secondary   plaintext: the secondary's proof
//
// TLS itself is told to let everybody through (a connection that it cuts says nothing): what counts is judged here.

import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { ERROR_HEADER, isChannelErrorCode } from '../wire/close-codes.js';
import { ChannelError, SUBPROTOCOL, type DomainOffer } from '../contract.js';
import { REASON_HEADER, checkName, headerText, trustedCertificate } from '../credentials/identity.js';
import type { ErrorMessage, HelloMessage } from '../wire/message.js';
import {
  LIFE_HEADER,
  NONCE_HEADER,
  PROOF_HEADER,
  TOKENS_MAX,
  isNonce,
  isProof,
  newNonce,
  proofOf,
  type ChannelToken,
  type Nonces,
} from '../credentials/token.js';

export class Admission {
  readonly #encrypted: boolean;
  /** Those that there were since the start, the one that is asked for first. */
  #tokens: readonly ChannelToken[];
  /** What was asked of whom. */
  readonly #asked = new WeakMap<Socket, { readonly nonces: Nonces; readonly token: ChannelToken }>();

  constructor(encrypted: boolean, token: ChannelToken | undefined) {
    this.#encrypted = encrypted;
    this.#tokens = token === undefined ? [] : [token];
  }

  /** For those who come. Where a token was asked for, one is. */
  renew(token: ChannelToken | undefined): void {
    if (token === undefined) return;
    const others = this.#tokens.filter(({ secret }) => secret !== token.secret);
    this.#tokens = [token, ...others].slice(0, TOKENS_MAX);
  }

  /** Where the token stands. */
  get tokenFile(): string | undefined {
    return this.#tokens[0]?.file;
  }

  /** @throws ChannelError: no upgrade */
  judgeUpgrade({ headers, socket }: IncomingMessage): void {
    if (this.#encrypted) {
      trustedCertificate(socket);
      const told = headers[ERROR_HEADER];
      if (typeof told === 'string' && isChannelErrorCode(told)) {
        // Words for our log, and nothing else.
        const reason = headerText(String(headers[REASON_HEADER] ?? ''));
        throw new ChannelError(told, `the secondary refuses us: ${reason}`);
      }
    }
    const offered = (headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
    if (!offered.includes(SUBPROTOCOL)) {
      throw new ChannelError('BAD_SUBPROTOCOL', `${SUBPROTOCOL} is not asked for`);
    }
    const [token] = this.#tokens;
    if (token === undefined) return;
    const secondary = headers[NONCE_HEADER];
    if (!isNonce(secondary)) throw new ChannelError('NOT_AUTHENTICATED', 'a token is asked for here');
    this.#asked.set(socket, { token, nonces: { secondary, primary: newNonce() } });
  }

  /** What is said with the upgrade, as lines of HTTP. */
  upgradeHeaders({ socket }: IncomingMessage): string[] {
    const asked = this.#asked.get(socket);
    if (asked === undefined) return [];
    const { nonces, token } = asked;
    return [
      `${NONCE_HEADER}: ${nonces.primary}`,
      `${PROOF_HEADER}: ${proofOf(token, 'primary', nonces)}`,
      `${LIFE_HEADER}: ${this.#tokens.map((each) => proofOf(each, 'life', nonces)).join(' ')}`,
    ];
  }

  /** Before anything of the hello counts. @throws ChannelError NOT_AUTHENTICATED */
  authenticate({ proof }: HelloMessage, socket: Socket): void {
    if (this.#tokens.length === 0) return;
    const asked = this.#asked.get(socket);
    if (asked !== undefined && isProof(asked.token, 'secondary', asked.nonces, proof)) return;
    throw new ChannelError('NOT_AUTHENTICATED', 'the secondary does not know the token');
  }

  /** @throws ChannelError NAME_REFUSED */
  judgeName({ domain, secondaryNames = [] }: DomainOffer, socket: Socket): void {
    if (this.#encrypted) checkName(trustedCertificate(socket), secondaryNames, `secondary of ${domain}`);
  }
}

/** The answer to what is no upgrade: HTTP, with code and reason, and the end of the connection. */
export function refuseHttp(socket: Duplex, code: string, reason = ''): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.once('finish', () => socket.destroy());
  const why = `${ERROR_HEADER}: ${code}\r\n${REASON_HEADER}: ${headerText(reason)}\r\n`;
  socket.end(`HTTP/1.1 400 Bad Request\r\n${why}connection: close\r\n\r\n`);
}

/** Words for our log, and nothing else: whoever says it has shown nothing. */
export function refusalOf({ code, message }: ErrorMessage): ChannelError {
  return new ChannelError(code, `the secondary refuses us: ${headerText(message)}`);
}
