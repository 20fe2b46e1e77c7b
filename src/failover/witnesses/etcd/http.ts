// One request to one member of etcd: JSON by POST, answered by JSON. Each has a connection of its own: there are a few of
// them when a link is made or lost, and what was left open since the last would be dead more often than not. (Node's
// fetch takes no client certificate.)

import { request as plain, type ClientRequest, type IncomingMessage } from 'node:http';
import { request as secure } from 'node:https';
import { asError, codeOf } from '../../../errors.js';
import { WitnessError } from '../../error.js';

/** PEM. */
export interface EtcdTls {
  /** That signs the certificates of the members; default: those that Node trusts. */
  readonly ca?: string | Buffer;
  /** Ours, for members that ask for one, and its key. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
}

export interface Post {
  readonly endpoint: URL;
  readonly path: string;
  readonly body: object;
  /** Of a user that is logged in. */
  readonly authorization: string | null;
  readonly tls: () => EtcdTls;
  /** Aborted: the connection is cut. */
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  /** Parsed, not looked at. */
  readonly body: unknown;
}

/** An answer has one register, or a sentence. */
const ANSWER_BYTES_MAX = 64 * 1024;

/** Of Node and OpenSSL, for a side that does not accept the other's certificate. */
const TLS_ERROR =
  /^(ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|HOSTNAME_MISMATCH|INVALID_CA)/;

/** @throws WitnessError UNREACHABLE, DENIED (TLS), CORRUPT (no JSON) */
export function post(options: Post): Promise<HttpAnswer> {
  const { endpoint, signal } = options;
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) => reject(asWitnessError(cause, endpoint));
    let request: ClientRequest;
    try {
      request = open(options);
    } catch (thrown) {
      // A certificate or key that is none, or cannot be had.
      const cause = asError(thrown);
      reject(new WitnessError('DENIED', `TLS cannot be used: ${cause.message}`, {}, { cause }));
      return;
    }
    const abort = () => request.destroy(new Error('given up'));
    signal.addEventListener('abort', abort, { once: true });
    request.once('close', () => signal.removeEventListener('abort', abort));
    request.on('error', failed);
    request.on('response', (response) => {
      answerOf(response).then(resolve, failed);
    });
    if (signal.aborted) abort();
    else request.end(JSON.stringify(options.body));
  });
}

function open({ endpoint, path, authorization, tls }: Post): ClientRequest {
  const headers = {
    'content-type': 'application/json',
    ...(authorization !== null && { authorization }),
  };
  const common = { method: 'POST', agent: false, headers };
  const url = new URL(path, endpoint);
  return endpoint.protocol === 'https:' ? secure(url, { ...common, ...tls() }) : plain(url, common);
}

async function answerOf(response: IncomingMessage): Promise<HttpAnswer> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of response as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length > ANSWER_BYTES_MAX)
      throw new WitnessError('CORRUPT', 'an answer that is too long', { length });
    pieces.push(piece);
  }
  const text = Buffer.concat(pieces).toString('utf8');
  const status = response.statusCode ?? NaN;
  try {
    return { status, body: JSON.parse(text) };
  } catch {
    const facts = { status, begins: text.slice(0, 128) };
    throw new WitnessError('CORRUPT', 'what answers does not answer as etcd does', facts);
  }
}

function asWitnessError(cause: Error, endpoint: URL): WitnessError {
  if (cause instanceof WitnessError) {
    return new WitnessError(cause.code, cause.message, { ...cause.facts, endpoint: endpoint.href });
  }
  const code = codeOf(cause);
  const facts = { endpoint: endpoint.href, error: code };
  const message = `etcd at ${endpoint.host}: ${cause.message}`;
  return new WitnessError(TLS_ERROR.test(code) ? 'DENIED' : 'UNREACHABLE', message, facts, { cause });
}
