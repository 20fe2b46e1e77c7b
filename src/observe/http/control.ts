// What an operator asks of the agent of a host, over a socket that only its owner may open: HTTP and JSON.
//
//   GET  /v1/domains                        what each of them is doing here
//   POST /v1/domains/NAME/start             it may start here, whatever the register says
//   POST /v1/domains/NAME/switchover        {"to": HOST}: it goes on there; here it stands by from then on
//   POST /v1/domains/NAME/test-failover     {"seconds": N}: what it holds of it is tried, until whoever asks hangs up
//   POST /v1/evacuate                       the same of all that run here
//
// An answer is {"ok": true, …} or {"ok": false, "code", "message"}. A question waits for its answer as long as it takes: what
// it is about has limits of its own.

import { chmodSync, mkdirSync, unlinkSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { asError, codeOf } from '../../errors.js';
import type { Logger } from '../../report/log.js';
import type { AgentService } from '../../report/reports.js';
import { HttpError } from './server.js';

export interface ControlOptions {
  /** A path; the directory is made, for its owner only, if it is not there. */
  readonly socket: string;
  readonly agent: Pick<
    AgentService,
    'host' | 'statuses' | 'refresh' | 'force' | 'switchover' | 'evacuate' | 'testFailover'
  >;
  readonly log: Logger;
}

export interface Control {
  /** Resolves when it listens. @throws HttpError */
  start(): Promise<void>;
  /** Safe to call twice, and without start(). */
  stop(): Promise<void>;
}

const BODY_BYTES_MAX = 4096;
const CONNECTIONS_MAX = 32;
const BODY_TIMEOUT_MS = 5000;

export function createControl(options: ControlOptions): Control {
  const { socket, log } = options;
  const server = http.createServer({ requestTimeout: BODY_TIMEOUT_MS }, (request, response) => {
    const asking = new AbortController();
    response.once('close', () => asking.abort());
    answer(options, request, asking.signal).then(
      (body) => send(response, 'code' in body ? 409 : 200, body),
      (thrown: unknown) => {
        const error = asError(thrown);
        log.warn({ err: error, path: request.url }, `refused: ${error.message}`);
        send(response, 409, { ok: false, code: codeOf(error), message: error.message });
      },
    );
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.on('clientError', (_error, connection) => connection.destroy());
  return {
    start: () => listen(server, socket, log),
    async stop() {
      if (!server.listening) return;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listen(server: http.Server, socket: string, log: Logger): Promise<void> {
  mkdirSync(path.dirname(socket), { recursive: true, mode: 0o700 });
  await removeStale(socket);
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error) => {
      const message = `cannot listen on ${socket}: ${error.message} (control)`;
      reject(new HttpError('LISTEN_FAILED', message, { host: socket, port: 0 }, { cause: error }));
    };
    server.once('error', failed);
    // It is there before anybody else could be told to keep out.
    const mask = process.umask(0o177);
    server.listen(socket, () => {
      server.off('error', failed);
      server.on('error', (error) => log.warn({ err: error }, 'control socket'));
      resolve();
    });
    process.umask(mask);
  });
  chmodSync(socket, 0o600);
}

/** A socket that nobody listens at was left by one who was killed. @throws HttpError ADDRESS_IN_USE */
async function removeStale(socket: string): Promise<void> {
  const code = await new Promise<string | null>((resolve) => {
    const connection = net.connect(socket);
    connection.once('connect', () => {
      connection.destroy();
      resolve(null);
    });
    connection.once('error', (error) => resolve(codeOf(error)));
  });
  if (code === null) {
    const message = `another agent listens at ${socket} (control)`;
    throw new HttpError('ADDRESS_IN_USE', message, { host: socket, port: 0 });
  }
  if (code === 'ECONNREFUSED') unlinkSync(socket);
}

type Answer = Readonly<Record<string, unknown>>;

/** `signal`: nobody waits for the answer any more. */
async function answer(
  { agent, log }: ControlOptions,
  request: http.IncomingMessage,
  signal: AbortSignal,
): Promise<Answer> {
  const [, version, ...parts] = (request.url ?? '').split('/');
  const { method } = request;
  const given = method === 'POST' ? await bodyOf(request) : {};
  const [what, domain, verb] = version === 'v1' ? parts : [];
  if (method === 'GET' && what === 'domains' && domain === undefined) {
    await agent.refresh();
    return { ok: true, host: agent.host, domains: agent.statuses() };
  }
  if (method === 'POST' && what === 'evacuate' && domain === undefined) {
    return { ok: true, domains: await agent.evacuate() };
  }
  if (method === 'POST' && what === 'domains' && domain !== undefined) {
    log.info({ domain, verb, ...given }, `asked for: ${verb ?? ''} ${domain}`);
    if (verb === 'start') return started(agent, domain);
    if (verb === 'switchover') {
      return { ok: true, ...(await agent.switchover(domain, stringOf(given['to']))) };
    }
    if (verb === 'test-failover') {
      const { seconds } = given;
      const request = { signal, ...(seconds !== undefined && { seconds: Number(seconds) }) };
      return { ok: true, ...(await agent.testFailover(domain, request)) };
    }
  }
  return { ok: false, code: 'UNKNOWN_REQUEST', message: `there is no ${method ?? ''} ${request.url ?? ''}` };
}

function started(agent: ControlOptions['agent'], domain: string): Answer {
  if (agent.force(domain)) return { ok: true };
  return { ok: false, code: 'NOT_STARTED', message: `${domain} runs here, or stands by for one that runs` };
}

function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** @throws HttpError BAD_REQUEST */
async function bodyOf(request: http.IncomingMessage): Promise<Record<string, unknown>> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > BODY_BYTES_MAX) throw new HttpError('BAD_REQUEST', `more than ${BODY_BYTES_MAX} octets`);
    pieces.push(piece);
  }
  const text = Buffer.concat(pieces).toString('utf8').trim();
  if (text === '') return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch (cause) {
    throw new HttpError('BAD_REQUEST', 'the body is not JSON', {}, { cause });
  }
  throw new HttpError('BAD_REQUEST', 'the body is not a JSON object');
}

function send(response: http.ServerResponse, status: number, body: Answer): void {
  if (response.destroyed || response.headersSent) return;
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}
