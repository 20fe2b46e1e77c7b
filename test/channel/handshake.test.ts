// Everything that can go wrong before a link stands, and that the primary takes none of it amiss.

import { expect } from 'chai';
import { connect, type Socket } from 'node:net';
import WebSocket from 'ws';
import {
  ChannelError,
  PROTOCOL_VERSION,
  SUBPROTOCOL,
  type ChannelErrorCode,
} from '../../src/channel/contract.js';
import { closeCodeOf } from '../../src/channel/wire/close-codes.js';
import { dial } from '../../src/channel/dial/dialer.js';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { decodeControl } from '../../src/channel/wire/message.js';
import { PrimaryListener } from '../../src/channel/listen/listener.js';
import { mutate, validControls } from './mutations.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { STREAM, TestPrimary, errorOf, helloOf, lostOf, pieceOf, seeded, streamHeaders } from './support.js';

const timing = { heartbeatIntervalMs: 50, heartbeatTimeoutMs: 1000 };
const hello = { kind: 'hello', ...helloOf(), protocolVersion: PROTOCOL_VERSION, software: 't' } as const;

/** What the primary says to one message of a client that is no Romulus: the error's code and the close code. */
function askPrimary(url: string, message: Buffer | string): Promise<{ code: string; closeCode: number }> {
  return new Promise((resolve) => {
    let code = 'none';
    const client = new WebSocket(url, [SUBPROTOCOL], { perMessageDeflate: false });
    client.on('open', () => {
      client.send(message);
    });
    client.on('error', () => undefined);
    client.on('message', (data: Buffer) => {
      const answer = decodeControl(data);
      code = answer.kind === 'error' ? answer.code : answer.kind;
      if (answer.kind === 'welcome') client.close();
    });
    client.on('close', (closeCode) => {
      resolve({ code, closeCode });
    });
  });
}

/** A plain TCP connection that says `text`; resolves with all that came back when it is closed. */
function askTcp(port: number, text: string | Buffer): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      resolve(answer);
    });
    socket.write(text);
  });
}

const welcome = {
  ...{ host: 'north', streamUuid: 'u', pairing: 'u', windowEpochs: 2 },
  ...{ continuous: true, resumes: true },
};

describe('handshake', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(options = {}): Promise<TestPrimary> {
    const primary = await new TestPrimary(options).start();
    cleanup.add(() => primary.listener.close());
    return primary;
  }

  /** A good link that must survive what the test does, and a good secondary that must still be taken after it. */
  async function unharmed(test: TestPrimary, act: () => Promise<unknown>): Promise<void> {
    const other = { ...hello, domain: 'other' };
    const losses: Promise<unknown>[] = [];
    const withdraw = test.listener.offer({
      domain: 'other',
      welcome: () => welcome,
      linked: (link) => {
        losses.push(lostOf(link));
      },
    });
    const running = await dial({ url: test.url, hello: helloOf('other') });
    await act();
    expect(await Promise.race([lostOf(running), ...losses, Promise.resolve('linked')])).to.equal('linked');
    expect((await askPrimary(test.url, encodeControl(other))).code).to.equal('ALREADY_LINKED');
    await running.bye('shutdown');
    withdraw();
    const { primary, secondary } = await test.pair();
    await primary.sink.write(pieceOf(streamHeaders));
    expect((await secondary.source.headers()).version).to.equal(3);
  }

  it('refuses a second secondary, another domain, a standby that does not fit', async () => {
    const test = await primaryOf();
    await unharmed(test, async () => {
      const refusal = async (over: object) =>
        errorOf(dial({ url: test.url, hello: { ...helloOf(), ...over } }));
      const unknown = await refusal({ domain: 'web2' });
      expect(unknown.code).to.equal('UNKNOWN_DOMAIN');
      expect(unknown.facts).to.include({ domain: 'web2' });
      const mismatch = await refusal({ p2mSize: 99 });
      expect(mismatch.code).to.equal('DOMAIN_MISMATCH');
      expect(mismatch.facts).to.include({ p2mSize: 99 });
      const { secondary } = await test.pair();
      expect((await refusal({})).code).to.equal('ALREADY_LINKED');
      await secondary.bye('shutdown');
    });
    expect(test.log.map(({ code }) => code)).to.include.members(['UNKNOWN_DOMAIN', 'ALREADY_LINKED']);
  });

  it('a domain is free again as soon as its link is lost', async () => {
    const test = await primaryOf();
    for (let i = 0; i < 5; i++) {
      const { primary, secondary } = await test.pair();
      const lost = lostOf(secondary);
      primary.destroy(new ChannelError('INTERNAL', 'again'));
      await lost;
    }
    expect(test.links.length).to.equal(5);
  });

  it('one that says that it runs the domain is one more standby: that is the register’s to say', async () => {
    const test = await primaryOf();
    const active = { ...helloOf(), role: 'active', streamUuid: STREAM, epoch: 7, pairing: STREAM };
    await unharmed(test, async () => {
      const { primary, secondary } = await test.pair();
      expect((await errorOf(dial({ url: test.url, hello: active }))).code).to.equal('ALREADY_LINKED');
      await primary.sink.write(pieceOf(streamHeaders));
      expect((await secondary.source.headers()).version).to.equal(3);
      await secondary.bye('shutdown');
      const alone = await test.pair({ hello: active });
      expect(alone.primary.hello).to.not.have.property('role');
      await alone.secondary.bye('shutdown');
    });
  });

  it('an offer that fails is INTERNAL on both sides', async () => {
    const test = await primaryOf();
    test.listener.offer({
      domain: 'broken',
      welcome: () => {
        throw new Error('no disk');
      },
      linked: () => undefined,
    });
    const error = await errorOf(dial({ url: test.url, hello: helloOf('broken') }));
    expect(error).to.include({ code: 'INTERNAL', message: 'no disk' });
    expect(() => test.listener.offer({ domain: 'broken' } as never)).to.throw(ChannelError);
  });

  it('an owner that fails on its link loses that link', async () => {
    const test = await primaryOf();
    test.listener.offer({
      domain: 'broken',
      welcome: () => welcome,
      linked: () => {
        throw new Error('no room');
      },
    });
    const link = await dial({ url: test.url, hello: helloOf('broken') });
    expect(await lostOf(link)).to.include({ code: 'INTERNAL', message: 'no room' });
  });

  const refused: [string, Buffer | string, ChannelErrorCode][] = [
    [
      'another version',
      encodeControl({ ...hello, protocolVersion: PROTOCOL_VERSION + 1 }),
      'PROTOCOL_VERSION',
    ],
    ['text', 'hello', 'BAD_MESSAGE'],
    ['garbage', Buffer.from('deadbeefcafe', 'hex'), 'BAD_MESSAGE'],
    ['a piece', Buffer.from([2, 1, 2, 3]), 'BAD_MESSAGE'],
    ['an acknowledgement', encodeControl({ kind: 'ack', epoch: 1 }), 'BAD_MESSAGE'],
  ];
  for (const [what, message, code] of refused) {
    it(`first message is ${what}: ${code} and its close code`, async () => {
      const test = await primaryOf();
      await unharmed(test, async () => {
        expect(await askPrimary(test.url, message)).to.deep.equal({ code, closeCode: closeCodeOf(code) });
      });
      expect(test.log[0]?.code).to.equal(code);
    });
  }

  it('an oversized first message', async () => {
    const test = await primaryOf();
    await unharmed(test, async () => {
      expect((await askPrimary(test.url, Buffer.alloc(1 << 20, 1))).closeCode).to.equal(1009);
    });
  });

  it('another subprotocol, or none', async () => {
    const test = await primaryOf();
    await unharmed(test, async () => {
      for (const protocols of [['romulus.v2'], []]) {
        const client = new WebSocket(test.url, protocols);
        const status = await new Promise<number>((resolve) => {
          client.on('unexpected-response', (_request, response) => {
            expect(response.headers['romulus-error']).to.equal('BAD_SUBPROTOCOL');
            resolve(response.statusCode ?? 0);
            client.terminate();
          });
          client.on('error', () => undefined);
        });
        expect(status).to.equal(400);
      }
    });
  });

  it('garbage instead of HTTP, and HTTP that is no upgrade', async () => {
    const test = await primaryOf();
    await unharmed(test, async () => {
      expect(await askTcp(test.port, '\x16\x03\x01\x02\x00garbage\r\n\r\n')).to.match(/^HTTP\/1\.1 400/);
      expect(await askTcp(test.port, Buffer.alloc(100_000, 0xff))).to.match(/^(HTTP\/1\.1 400|$)/);
      expect(await askTcp(test.port, 'GET / HTTP/1.1\r\nhost: x\r\n\r\n')).to.match(/^HTTP\/1\.1 426/);
      const upgrade = `GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: ${SUBPROTOCOL}\r\n`;
      expect(await askTcp(test.port, `${upgrade}\r\n`)).to.match(/^HTTP\/1\.1 400/);
      const key = 'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n';
      // Frames that no client may send: reserved bits, no mask, a claim of 2^63 octets.
      for (const frame of ['f0ff', '8200', '82ff7fffffffffffffff00000000']) {
        const answer = await askTcp(
          test.port,
          Buffer.concat([Buffer.from(upgrade + key), Buffer.from(frame, 'hex')]),
        );
        expect(answer).to.match(/^HTTP\/1\.1 101/);
      }
    });
  });

  it('silence after the TCP connection, after the upgrade, and drop by drop: cut in time', async () => {
    const test = await primaryOf({ handshakeTimeoutMs: 150 });
    await unharmed(test, async () => {
      const started = performance.now();
      const drip = async () => {
        const socket = connect(test.port, '127.0.0.1');
        socket.on('error', () => undefined);
        const timer = setInterval(() => socket.write('x'), 20);
        socket.write('GET / HTTP/1.1\r\nx-');
        await new Promise((resolve) => socket.once('close', resolve));
        clearInterval(timer);
      };
      const mute = new Promise<number>((resolve) => {
        const client = new WebSocket(test.url, [SUBPROTOCOL]);
        client.on('close', resolve);
      });
      await Promise.all([askTcp(test.port, ''), drip()]);
      expect(await mute).to.equal(closeCodeOf('HANDSHAKE_TIMEOUT'));
      expect(performance.now() - started)
        .to.be.greaterThan(140)
        .and.lessThan(3000);
    });
    expect(test.log.map(({ code }) => code)).to.include('HANDSHAKE_TIMEOUT');
  });

  it('a crowd that stalls does not keep a good secondary out', async () => {
    const test = await primaryOf({ handshakesMax: 4, handshakeTimeoutMs: 60_000 });
    const crowd: Socket[] = [];
    await unharmed(test, async () => {
      let closed = 0;
      for (let i = 0; i < 40; i++) {
        const socket = connect(test.port, '127.0.0.1');
        socket.on('error', () => undefined);
        socket.on('close', () => closed++);
        socket.write('GET / HTTP/1.1\r\n');
        crowd.push(socket);
      }
      await until('all but four are cut', () => closed === 36);
    });
    for (const socket of crowd) socket.destroy();
  });

  it('close() ends links, handshakes and the port', async () => {
    const test = await primaryOf();
    const { secondary } = await test.pair();
    const pending = connect(test.port, '127.0.0.1');
    pending.on('error', () => undefined);
    await new Promise((resolve) => pending.once('connect', resolve));
    const ended = new Promise((resolve) => pending.once('close', resolve));
    await Promise.all([test.listener.close(), test.listener.close(), ended]);
    expect((await lostOf(secondary)).facts['bye']).to.equal('shutdown');
    expect((await errorOf(dial({ url: test.url, hello: helloOf() }))).code).to.equal('REFUSED');
  });

  it('a port that is taken is a typed error', async () => {
    const test = await primaryOf();
    const second = new PrimaryListener({ host: '127.0.0.1', port: test.port, ...timing });
    const error = await errorOf(second.listen());
    expect(error.facts['cause']).to.equal('EADDRINUSE');
    await second.close();
  });

  it('bad frames, versions and texts of one stranger are said once for each reason, and not without end', async () => {
    const test = await primaryOf({ handshakesMax: 64 });
    const strange = async (act: (client: WebSocket, raw: Socket) => void): Promise<void> => {
      const client = new WebSocket(test.url, [SUBPROTOCOL], { perMessageDeflate: false });
      const closed = new Promise((resolve) => client.once('close', resolve));
      let raw: Socket | undefined;
      client.once('upgrade', ({ socket }) => (raw = socket));
      client.on('error', () => undefined);
      client.once('open', () => raw && act(client, raw));
      await closed;
    };
    const version = (theirs: number) => encodeControl({ ...hello, protocolVersion: theirs });
    for (let n = 0; n < 10; n++) {
      // An opcode that is none; an unmasked frame would be the same.
      await strange((_client, raw) => raw.write(Buffer.from([0x8b, 0x80, 0, 0, 0, 0])));
    }
    expect(test.log).to.have.length(1);
    for (let n = 0; n < 10; n++) await strange((client) => client.send(version(77)));
    expect(test.log.map(({ code }) => code)).to.deep.equal(['BAD_MESSAGE', 'PROTOCOL_VERSION']);
    for (let n = 0; n < 150; n++) await strange((client) => client.send(version(100 + n)));
    expect(test.log.length).to.be.within(100, 103);
    await test.pair();
  });

  it('500 mutated messages, as hello or after it, leave the primary unharmed', async () => {
    const test = await primaryOf({ handshakeTimeoutMs: 1000, handshakesMax: 64 });
    const random = seeded(500);
    const messages = validControls.map(encodeControl);
    const valid = encodeControl(hello);
    const attack = async (index: number) => {
      const base = index % 2 === 0 ? valid : (messages[index % messages.length] ?? valid);
      const message = mutate(base, random, messages[(index * 3) % messages.length] ?? valid);
      await new Promise<void>((resolve) => {
        const client = new WebSocket(test.url, [SUBPROTOCOL], { perMessageDeflate: false });
        client.on('open', () => {
          if (index % 4 === 3) client.send(valid);
          client.send(message);
          client.send('the end');
        });
        client.on('error', () => undefined);
        client.on('close', () => {
          resolve();
        });
      });
    };
    await unharmed(test, async () => {
      for (let i = 0; i < 500; i += 20) {
        await Promise.all(Array.from({ length: 20 }, (_, k) => attack(i + k)));
      }
    });
    const known = new Set<unknown>(test.log.map(({ code }) => code));
    expect([...known].filter((code) => code === 'INTERNAL' || code === undefined)).to.deep.equal([]);
  });
});
