// The HTTP side: what it answers, and that nothing a client does reaches the service.

import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { expect } from 'chai';
import { createHttpServer, HttpError, type HttpServer, unreadiness } from '../../src/observe/http/server.js';
import type { DomainStatus } from '../../src/report/reports.js';
import { captureLog } from '../support/capture.js';
import { status } from '../service/fakes.js';

interface Answer {
  readonly status: number | undefined;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

function ask(port: number, path: string, method = 'GET', body = ''): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path, method, agent: false }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.once('end', () =>
        resolve({ status: response.statusCode, headers: response.headers, body: text }),
      );
      response.once('error', reject);
    });
    request.once('error', reject);
    request.end(body);
  });
}

/** Sends octets as they are; resolves with what came back when the server has closed the connection. */
function sendRaw(port: number, octets: string | Buffer): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = net.connect(port, '127.0.0.1', () => socket.end(octets));
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
    // A reset is one of the ways to be shown the door.
    socket.on('error', () => undefined);
    socket.once('close', () => resolve(text));
  });
}

describe('HTTP side', () => {
  let statuses: readonly DomainStatus[];
  let metrics: () => Promise<string>;
  let server: HttpServer;
  let captured: ReturnType<typeof captureLog>;

  function create(port = 0): HttpServer {
    return createHttpServer({
      host: '127.0.0.1',
      port,
      registry: { contentType: 'text/plain; version=0.0.4', metrics: () => metrics() },
      statuses: () => statuses,
      log: captured.log,
    });
  }

  beforeEach(async () => {
    statuses = [status()];
    metrics = () => Promise.resolve('romulus_build_info 1\n');
    captured = captureLog();
    server = create();
    await server.start();
  });
  afterEach(() => server.stop());

  it('serves the metrics', async () => {
    const answer = await ask(server.port, '/metrics?x=1');
    expect(answer.status).to.equal(200);
    expect(answer.body).to.equal('romulus_build_info 1\n');
    expect(answer.headers['content-type']).to.equal('text/plain; version=0.0.4');
    expect(answer.headers['cache-control']).to.equal('no-store');
  });

  it('is healthy while it answers, ready while every domain does its job', async () => {
    statuses = [status({ link: 'down' })];
    expect((await ask(server.port, '/healthz')).status).to.equal(200);
    const notReady = await ask(server.port, '/readyz');
    expect(notReady.status).to.equal(503);
    expect(JSON.parse(notReady.body)).to.deep.equal({
      ready: false,
      reasons: [{ domain: 'web', role: 'primary', link: 'down', reason: 'not protected: the link is down' }],
    });
    statuses = [status()];
    const ready = await ask(server.port, '/readyz');
    expect(ready.status).to.equal(200);
    expect(JSON.parse(ready.body)).to.deep.equal({ ready: true, reasons: [] });
  });

  it('answers HEAD without a body, refuses other methods, knows no other path', async () => {
    const head = await ask(server.port, '/metrics', 'HEAD');
    expect([head.status, head.body, head.headers['content-length']]).to.deep.equal([200, '', '21']);
    for (const [method, body] of [
      ['POST', 'x'.repeat(100_000)],
      ['PUT', 'x'],
      ['PATCH', ''],
      ['DELETE', ''],
      ['OPTIONS', ''],
    ] as const) {
      const refused = await ask(server.port, '/metrics', method, body);
      expect(refused.status, method).to.equal(405);
      expect(refused.headers.allow, method).to.equal('GET, HEAD');
    }
    for (const path of [
      '/',
      '/metrics/',
      '/../metrics',
      '/METRICS',
      '/%6detrics',
      '//metrics',
      '/healthz%00',
    ]) {
      expect((await ask(server.port, path)).status, path).to.equal(404);
    }
  });

  it('says 500 and logs when the metrics fail, and goes on', async () => {
    metrics = () => Promise.reject(new Error('collect failed'));
    expect((await ask(server.port, '/metrics')).status).to.equal(500);
    expect(captured.lines().some((line) => line['msg'] === 'HTTP request failed')).to.equal(true);
    expect((await ask(server.port, '/healthz')).status).to.equal(200);
  });

  it('survives what is not HTTP', async () => {
    const garbage = [
      'garbage\r\n\r\n',
      Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
      `GET /metrics HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
      'GET /metrics HTTP/9.9\r\n\r\n',
      'GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
      'CONNECT host:1 HTTP/1.1\r\nHost: host\r\n\r\n',
      'GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGARBAGE',
      Buffer.alloc(100_000),
    ];
    for (const octets of garbage) expect(await sendRaw(server.port, octets)).to.not.include('HTTP/1.1 5');
    expect((await ask(server.port, '/healthz')).status).to.equal(200);
  });

  it('survives clients that go away in the middle of a request or an answer', async () => {
    metrics = () => Promise.resolve('x'.repeat(8 * 2 ** 20));
    for (const request of ['GET /met', 'GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n']) {
      for (let n = 0; n < 10; n++) {
        await new Promise<void>((resolve) => {
          const socket = net.connect(server.port, '127.0.0.1', () => {
            socket.write(request, () => socket.resetAndDestroy());
          });
          socket.on('error', () => undefined);
          socket.once('close', () => resolve());
        });
      }
    }
    expect((await ask(server.port, '/healthz')).status).to.equal(200);
  });

  it('stops with clients connected, at once, twice, and frees the port', async () => {
    const { port } = server;
    const idle = net.connect(port, '127.0.0.1');
    const closed = once(idle, 'close');
    idle.on('error', () => undefined);
    idle.write('GET /metr');
    await ask(port, '/healthz');
    await server.stop();
    await server.stop();
    await closed;
    server = create(port);
    await server.start();
    expect((await ask(port, '/healthz')).status).to.equal(200);
  });

  it('says why it cannot listen', async () => {
    const second = create(server.port);
    const error = await second.start().catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(HttpError).with.property('code', 'ADDRESS_IN_USE');
    expect(error).to.have.deep.property('facts', { host: '127.0.0.1', port: server.port });
    await second.stop();
  });
});

describe('readiness', () => {
  const reasons = (...changes: Partial<DomainStatus>[]) =>
    unreadiness(changes.map((change) => status(change))).map(({ reason }) => reason);

  it('is a matter of role and link', () => {
    expect(
      reasons({ role: 'primary', link: 'replicating' }, { role: 'standby', link: 'replicating' }),
    ).to.deep.equal([]);
    expect(reasons({ role: 'active', link: 'down' })).to.deep.equal([]);
    for (const link of ['down', 'connecting', 'syncing', 'suspect'] as const) {
      expect(reasons({ role: 'primary', link }, { role: 'standby', link })).to.have.length(2);
    }
    expect(reasons({ role: 'fenced' }, { role: 'ended' })).to.have.length(2);
    expect(reasons({ role: 'failed', error: { code: 'DOMAIN_GONE', message: 'it crashed' } })).to.deep.equal([
      'failed: DOMAIN_GONE: it crashed',
    ]);
    expect(reasons()).to.deep.equal(['no domains yet']);
  });
});
