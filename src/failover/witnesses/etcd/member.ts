// What is said to a member of etcd, as one user: calls of its JSON gateway (version 3), with a token that is had again
// when it is not accepted any more (it expires, and a member that was restarted has forgotten it).

import { WitnessError } from '../../error.js';
import { isRecord } from '../value.js';
import { post, type EtcdTls, type HttpAnswer } from './http.js';

export interface EtcdUser {
  readonly name: string;
  readonly password: string;
}

export interface EtcdAccess {
  /** As it is now: asked for at each request, so that renewed certificates come into use. It may throw (DENIED). */
  readonly tls?: () => EtcdTls;
  readonly user?: EtcdUser;
}

// Codes of gRPC, which the gateway passes on.
const INVALID_ARGUMENT = 3; // a wrong password, no user where one is needed
const DEADLINE_EXCEEDED = 4;
const PERMISSION_DENIED = 7;
const FAILED_PRECONDITION = 9; // a user where there are none
const UNAUTHENTICATED = 16;
const DENIED: ReadonlySet<number> = new Set([
  ...[INVALID_ARGUMENT, PERMISSION_DENIED, FAILED_PRECONDITION, UNAUTHENTICATED],
]);
/** A user was changed since the token was given: it has the code of a bad argument. */
const OLD_TOKEN = /revision of auth store is old/;
const MESSAGE_LENGTH_MAX = 512;

export class EtcdMembers {
  readonly #access: EtcdAccess;
  /** All members know it. */
  #token: string | null = null;

  constructor(access: EtcdAccess) {
    this.#access = access;
  }

  /**
   * The body of the answer. What is refused for its token is refused before it is done, so it may be sent again.
   * @throws WitnessError UNREACHABLE, TIMEOUT, DENIED, CORRUPT
   */
  async call(
    endpoint: URL,
    path: string,
    body: object,
    signal: AbortSignal,
  ): Promise<Record<string, unknown>> {
    const { user } = this.#access;
    if (user === undefined) return bodyOf(await this.#post(endpoint, path, body, null, signal), endpoint);
    const known = this.#token;
    const token = known ?? (await this.#authenticate(endpoint, user, signal));
    const answer = await this.#post(endpoint, path, body, token, signal);
    if (!isRefused(answer)) return bodyOf(answer, endpoint);
    if (this.#token === token) this.#token = null;
    if (known === null) return bodyOf(answer, endpoint);
    const renewed = await this.#authenticate(endpoint, user, signal);
    return bodyOf(await this.#post(endpoint, path, body, renewed, signal), endpoint);
  }

  async #authenticate(endpoint: URL, user: EtcdUser, signal: AbortSignal): Promise<string> {
    const { name, password } = user;
    const answer = await this.#post(endpoint, '/v3/auth/authenticate', { name, password }, null, signal);
    const { token } = bodyOf(answer, endpoint);
    if (typeof token !== 'string' || !/^[\x21-\x7e]{1,8192}$/.test(token)) {
      throw new WitnessError('CORRUPT', 'etcd gives no token', { endpoint: endpoint.href });
    }
    this.#token = token;
    return token;
  }

  #post(
    endpoint: URL,
    path: string,
    body: object,
    authorization: string | null,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const { tls = () => ({}) } = this.#access;
    return post({ endpoint, path, body, authorization, tls, signal });
  }
}

function isRefused({ status, body }: HttpAnswer): boolean {
  if (status === 200 || !isRecord(body)) return false;
  return body['code'] === UNAUTHENTICATED || OLD_TOKEN.test(String(body['message']));
}

/** @throws WitnessError */
function bodyOf({ status, body }: HttpAnswer, endpoint: URL): Record<string, unknown> {
  if (!isRecord(body)) {
    throw new WitnessError('CORRUPT', 'what answers does not answer as etcd does', {
      endpoint: endpoint.href,
      status,
    });
  }
  if (status === 200) return body;
  const { code, message, error } = body;
  const said = [message, error].find((each) => typeof each === 'string') ?? '';
  const text = said.slice(0, MESSAGE_LENGTH_MAX);
  const facts = { endpoint: endpoint.href, status, code: typeof code === 'number' ? code : undefined };
  throw new WitnessError(codeFor(code), `etcd at ${endpoint.host}: ${text || `status ${status}`}`, facts);
}

function codeFor(code: unknown): 'DENIED' | 'TIMEOUT' | 'UNREACHABLE' {
  if (typeof code !== 'number') return 'UNREACHABLE';
  if (DENIED.has(code)) return 'DENIED';
  return code === DEADLINE_EXCEEDED ? 'TIMEOUT' : 'UNREACHABLE';
}
