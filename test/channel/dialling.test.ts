// What a dial comes to, and TLS on both sides.

import { expect } from 'chai';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type WebSocket from 'ws';
import { ChannelError, type ChannelErrorCode } from '../../src/channel/contract.js';
import { closeCodeOf } from '../../src/channel/wire/close-codes.js';
import { dial } from '../../src/channel/dial/dialer.js';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { PrimaryListener } from '../../src/channel/listen/listener.js';
import { FakePrimary } from './fake-primary.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { TestPrimary, errorOf, helloOf, pieceOf, streamHeaders, tlsOf } from './support.js';

const timing = { heartbeatIntervalMs: 50, heartbeatTimeoutMs: 1000 };

describe('dialling', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  /** A TCP server that does `act` with each connection. */
  async function tcp(act: (socket: Socket) => void): Promise<string> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      act(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanup.add(() => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    });
    return `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  const answers: [string, (socket: Socket) => void, ChannelErrorCode][] = [
    ['nothing', () => undefined, 'HANDSHAKE_TIMEOUT'],
    ['an end', (socket) => socket.end(), 'UNREACHABLE'],
    ['a reset', (socket) => socket.resetAndDestroy(), 'UNREACHABLE'],
    ['no HTTP', (socket) => socket.end('220 mail.example ESMTP\r\n'), 'BAD_SUBPROTOCOL'],
    ['a web page', (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n<html>'), 'BAD_SUBPROTOCOL'],
    [
      'an upgrade with a wrong key',
      (socket) =>
        socket.end(
          'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n',
        ),
      'BAD_SUBPROTOCOL',
    ],
  ];
  for (const [what, act, code] of answers) {
    it(`answered with ${what}: ${code}`, async () => {
      const url = await tcp(act);
      expect((await errorOf(dial({ url, hello: helloOf(), handshakeTimeoutMs: 100 }))).code).to.equal(code);
    });
  }

  const replies: [string, (peer: WebSocket) => void, ChannelErrorCode][] = [
    ['nothing', () => undefined, 'HANDSHAKE_TIMEOUT'],
    ['text', (peer) => peer.send('welcome'), 'BAD_MESSAGE'],
    ['a heartbeat', (peer) => peer.send(encodeControl({ kind: 'heartbeat' })), 'BAD_MESSAGE'],
    ['a piece', (peer) => peer.send(Buffer.from([2, 1])), 'BAD_MESSAGE'],
    ['an end', (peer) => peer.close(1000), 'LINK_CLOSED'],
    ['a cut', (peer) => peer.terminate(), 'LINK_CLOSED'],
    ['a close code', (peer) => peer.close(closeCodeOf('UNKNOWN_DOMAIN')), 'UNKNOWN_DOMAIN'],
    ['a goodbye', (peer) => peer.send(encodeControl({ kind: 'bye', reason: 'shutdown' })), 'BAD_MESSAGE'],
    ['something too large', (peer) => peer.send(Buffer.alloc(1 << 20)), 'MESSAGE_TOO_LARGE'],
  ];
  for (const [what, reply, code] of replies) {
    it(`welcomed with ${what}: ${code}`, async () => {
      const fake = await new FakePrimary().start(reply);
      cleanup.add(() => fake.close());
      const options = { url: fake.url, hello: helloOf(), handshakeTimeoutMs: 200, maxMessageBytes: 1 << 19 };
      expect((await errorOf(dial(options))).code).to.equal(code);
    });
  }

  it('to nobody: REFUSED', async () => {
    const url = await tcp(() => undefined);
    await cleanup.run();
    const error = await errorOf(dial({ url, hello: helloOf() }));
    expect(error.code).to.equal('REFUSED');
    expect(error.facts).to.include({ cause: 'ECONNREFUSED' });
  });

  it('to a name that does not exist, or no URL: UNREACHABLE', async () => {
    const options = { hello: helloOf(), plaintext: true, connectTimeoutMs: 3000 };
    expect((await errorOf(dial({ url: 'ws://no-such-host.invalid:1', ...options }))).code).to.equal(
      'UNREACHABLE',
    );
    expect((await errorOf(dial({ url: 'nonsense', ...options }))).code).to.equal('UNREACHABLE');
    expect((await errorOf(dial({ url: 'ftp://127.0.0.1', ...options }))).code).to.equal('UNREACHABLE');
  });

  it('in plaintext to another host: PLAINTEXT_REFUSED, on both sides', async () => {
    const url = 'ws://192.0.2.1:7000';
    expect((await errorOf(dial({ url, hello: helloOf() }))).code).to.equal('PLAINTEXT_REFUSED');
    expect(() => new PrimaryListener({ host: '0.0.0.0', port: 0, ...timing })).to.throw(ChannelError);
  });

  it('a listener whose port is taken says so, and whose', async () => {
    const first = new PrimaryListener({ host: '127.0.0.1', port: 0, ...timing });
    const { port } = await first.listen();
    try {
      const error = await errorOf(new PrimaryListener({ host: '127.0.0.1', port, ...timing }).listen());
      expect(error).to.deep.include({
        code: 'LISTEN_FAILED',
        facts: { host: '127.0.0.1', port, cause: 'EADDRINUSE' },
      });
      expect(error.message).to.include(`127.0.0.1:${port}`);
    } finally {
      await first.close();
    }
  });

  it('given up by its caller', async () => {
    const url = await tcp(() => undefined);
    const abort = new AbortController();
    const dialling = dial({ url, hello: helloOf(), signal: abort.signal });
    abort.abort(new Error('enough'));
    const error = await dialling.catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(Error).with.property('message', 'enough');
    const again = await dial({ url, hello: helloOf(), signal: abort.signal }).catch(
      (thrown: unknown) => thrown,
    );
    expect(again).to.equal(error);
  });
});

describe('TLS', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(): Promise<TestPrimary> {
    const primary = await new TestPrimary({ tls: tlsOf('host'), heartbeatTimeoutMs: 300 }).start();
    cleanup.add(() => primary.listener.close());
    return primary;
  }
  const secure = (test: TestPrimary) => test.url.replace('ws:', 'wss:');

  it('with certificates of the same CA: a link, and heartbeats over it', async () => {
    const test = await primaryOf();
    const { primary, secondary } = await test.pair({ url: secure(test), tls: tlsOf('host') });
    await primary.sink.write(pieceOf(streamHeaders));
    expect((await secondary.source.headers()).version).to.equal(3);
    let heard = 0;
    const subscriptions = [primary, secondary].map((link) =>
      link.events$.subscribe((event) => {
        if (event.kind === 'heard') heard++;
        else throw new Error(`${event.kind} after ${heard}`);
      }),
    );
    // More than the 300 ms of silence that would end it.
    await until('both heard the other', () => heard >= 20);
    for (const subscription of subscriptions) subscription.unsubscribe();
  });

  it('a secondary without, or with another CA’s certificate, is not let in', async () => {
    const test = await primaryOf();
    const { ca } = tlsOf('host');
    const stranger = tlsOf('stranger');
    const without = { url: secure(test), hello: helloOf(), tls: { ca } as never };
    expect((await errorOf(dial(without))).code).to.equal('TLS');
    const error = await errorOf(dial({ url: secure(test), hello: helloOf(), tls: stranger }));
    expect(error.code).to.equal('TLS');
    await test.pair({ url: secure(test), tls: tlsOf('host') });
  });

  it('a primary of another CA is not dialled', async () => {
    const test = await new TestPrimary({ tls: tlsOf('stranger') }).start();
    cleanup.add(() => test.listener.close());
    const dialling = dial({ url: secure(test), hello: helloOf(), tls: tlsOf('host') });
    expect((await errorOf(dialling)).code).to.equal('TLS');
  });

  it('plaintext to a TLS port, TLS to a plaintext port, garbage in TLS', async () => {
    const test = await primaryOf();
    const plain = await errorOf(dial({ url: test.url, hello: helloOf() }));
    expect(plain.code).to.be.oneOf(['UNREACHABLE', 'BAD_SUBPROTOCOL']);
    const open = await new TestPrimary().start();
    cleanup.add(() => open.listener.close());
    const error = await errorOf(dial({ url: secure(open), hello: helloOf(), tls: tlsOf('host') }));
    expect(error.code).to.equal('TLS');
    const socket = connectTls({ port: test.port, host: '127.0.0.1', ...tlsOf('host') });
    socket.on('error', () => undefined);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('data', () => undefined);
    socket.write('garbage\r\n\r\n');
    await closed;
    await test.pair({ url: secure(test), tls: tlsOf('host') });
  });

  it('a key that is none is a typed error', async () => {
    const bad = { ...tlsOf('host'), key: 'no key' };
    expect(() => new PrimaryListener({ host: '0.0.0.0', port: 0, tls: bad, ...timing }))
      .to.throw(ChannelError)
      .with.property('code', 'TLS');
    const dialling = dial({ url: 'wss://127.0.0.1:1', hello: helloOf(), tls: bad });
    expect((await errorOf(dialling)).code).to.equal('TLS');
  });
});
