// The HTTP side of an agent, for Prometheus and for whoever supervises the process:
//
//   /metrics   what Prometheus scrapes
//   /healthz   200 if the process lives and its event loop turns
//   /readyz    200 if every domain is in a state that does its job, else 503 and the reasons
//
// It reads and changes nothing. Whatever a client sends, however slowly, the agent behind it does not notice.

import http from 'node:http';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import { asError, codeOf, RomulusError } from '../../errors.js';
import type { Logger } from '../../report/log.js';
import type { DomainStatus } from '../../report/reports.js';

export type HttpErrorCode =
  | 'ADDRESS_IN_USE' // another process listens there
  | 'LISTEN_FAILED' // no such address, no permission, …
  | 'BAD_REQUEST'; // control: a body that cannot be one

/** Facts: `host`, `port`. */
export class HttpError extends RomulusError<HttpErrorCode> {}

export interface HttpServerOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** What is served under /metrics. */
  readonly registry: { readonly contentType: string; metrics(): Promise<string> };
  readonly statuses: () => readonly DomainStatus[];
  readonly log: Logger;
}

export interface HttpServer {
  /** Resolves when it listens. @throws HttpError */
  start(): Promise<void>;
  /** Closes the port and every connection; safe to call twice, and without start(). */
  stop(): Promise<void>;
  /** The port, once started. */
  readonly port: number;
}

const HEADERS_TIMEOUT_MS = 5000;
const REQUEST_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 15_000;
const HEADERS_BYTES_MAX = 8192;
const CONNECTIONS_MAX = 64;

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { log } = options;
  const server = http.createServer(
    {
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: HEADERS_BYTES_MAX,
    },
    (request, response) => {
      answer(options, request).then(
        (reply) => send(request, response, reply),
        (thrown: unknown) => {
          log.error({ err: asError(thrown), path: request.url }, 'HTTP request failed');
          send(request, response, text(500, 'internal error'));
        },
      );
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
  // A client that neither reads nor writes is let go.
  server.setTimeout(IDLE_TIMEOUT_MS, (socket) => socket.destroy());
  server.on('clientError', (error, socket) => {
    log.debug({ err: error }, 'an HTTP client sent what is not HTTP');
    refuse(socket);
  });

  return {
    start: () => listen(server, options),
    async stop() {
      if (!server.listening) return;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
    get port() {
      const address = server.address();
      return typeof address === 'object' && address !== null ? address.port : 0;
    },
  };
}

function listen(server: http.Server, { host, port, log }: HttpServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error) => {
      const inUse = codeOf(error) === 'EADDRINUSE';
      const code = inUse ? 'ADDRESS_IN_USE' : 'LISTEN_FAILED';
      const why = inUse ? 'another process listens there' : error.message;
      const message = `cannot serve HTTP on ${host}:${port}: ${why} (http.host, http.port)`;
      reject(new HttpError(code, message, { host, port }, { cause: error }));
    };
    server.once('error', failed);
    server.listen(port, host, () => {
      server.off('error', failed);
      // After listening, only accept() fails (no descriptors left): that costs a scrape, not the service.
      server.on('error', (error) => log.warn({ err: error }, 'HTTP server'));
      resolve();
    });
  });
}

interface Reply {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

function text(status: number, body: string, headers: Readonly<Record<string, string>> = {}): Reply {
  return { status, type: 'text/plain; charset=utf-8', body: `${body}\n`, headers };
}

function json(status: number, body: unknown): Reply {
  return { status, type: 'application/json; charset=utf-8', body: `${JSON.stringify(body)}\n` };
}

async function answer(options: HttpServerOptions, request: http.IncomingMessage): Promise<Reply> {
  const path = (request.url ?? '').split('?', 1)[0];
  if (path !== '/metrics' && path !== '/healthz' && path !== '/readyz') return text(404, 'not found');
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return text(405, 'only GET and HEAD', { Allow: 'GET, HEAD' });
  }
  switch (path) {
    case '/metrics':
      return { status: 200, type: options.registry.contentType, body: await options.registry.metrics() };
    case '/healthz':
      return json(200, { status: 'ok', uptimeSeconds: process.uptime() });
    case '/readyz': {
      const reasons = unreadiness(options.statuses());
      const ready = reasons.length === 0;
      return json(ready ? 200 : 503, { ready, reasons });
    }
  }
}

function send(request: http.IncomingMessage, response: http.ServerResponse, reply: Reply): void {
  if (response.destroyed || response.headersSent) return;
  const body = Buffer.from(reply.body);
  response.writeHead(reply.status, {
    'Content-Type': reply.type,
    'Content-Length': body.length,
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    ...reply.headers,
    // A body that nobody asked for is not read to its end.
    ...(request.complete ? {} : { Connection: 'close' }),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function refuse(socket: Duplex): void {
  if (!socket.writable || (socket instanceof net.Socket && socket.bytesWritten > 0)) {
    socket.destroy();
    return;
  }
  socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n', () =>
    socket.destroy(),
  );
}

export interface Unreadiness {
  readonly domain: string | null;
  readonly role: string | null;
  readonly link: string | null;
  readonly reason: string;
}

/** Why the service does not do its job: one entry for each domain that is not safe, none if all are. */
export function unreadiness(statuses: readonly DomainStatus[]): Unreadiness[] {
  if (statuses.length === 0) return [{ domain: null, role: null, link: null, reason: 'no domains yet' }];
  return statuses.flatMap((status) => {
    const reason = whyNotReady(status);
    return reason === null ? [] : [{ domain: status.domain, role: status.role, link: status.link, reason }];
  });
}

function whyNotReady(status: DomainStatus): string | null {
  switch (status.role) {
    case 'active':
      return null;
    case 'primary':
    case 'standby':
      return status.link === 'replicating' ? null : `not protected: the link is ${status.link}`;
    case 'none':
      return 'nothing of it is here';
    case 'fenced':
      return 'fenced: the secondary has taken over';
    case 'ended':
      return 'the domain has ended';
    case 'failed':
      return status.error ? `failed: ${status.error.code}: ${status.error.message}` : 'failed';
  }
}
