// Plaintext with a token: who does not know it learns nothing, says nothing that counts, and is let in nowhere.

import { expect } from 'chai';
import type { IncomingHttpHeaders } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import WebSocket, { WebSocketServer } from 'ws';
import { PROTOCOL_VERSION, SUBPROTOCOL } from '../../../src/channel/contract.js';
import { dial } from '../../../src/channel/dial/dialer.js';
import { encodeControl } from '../../../src/channel/wire/encode.js';
import { decodeControl } from '../../../src/channel/wire/message.js';
import {
  LIFE_HEADER,
  NONCE_HEADER,
  PROOF_HEADER,
  TOKENS_MAX,
  newNonce,
  proofOf,
  type ChannelToken,
} from '../../../src/channel/credentials/token.js';
import { Cleanup } from '../../support/cleanup.js';
import { TestPrimary, errorOf, helloOf, pieceOf, streamHeaders } from '../support.js';

const token = { secret: 'b'.repeat(64), file: '/run/token' };
const other = { secret: 'c'.repeat(64), file: '/run/other' };
const hello = { kind: 'hello', ...helloOf(), protocolVersion: PROTOCOL_VERSION, software: 't' } as const;

describe('token', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(options = {}): Promise<TestPrimary> {
    const primary = await new TestPrimary({ token, ...options }).start();
    cleanup.add(() => primary.listener.close());
    return primary;
  }

  it('both know it: a link', async () => {
    const test = await primaryOf();
    const { primary, secondary } = await test.pair({ token });
    await primary.sink.write(pieceOf(streamHeaders));
    expect((await secondary.source.headers()).version).to.equal(3);
  });

  it('a stranger is not linked, and both logs say why', async () => {
    const test = await primaryOf();
    for (const given of [helloOf(), helloOf('db')]) {
      // Dials as we do, but does not hold the primary to a token.
      const error = await errorOf(dial({ url: test.url, hello: given }));
      expect(error.code).to.equal('NOT_AUTHENTICATED');
    }
    const mistaken = await errorOf(dial({ url: test.url, hello: helloOf(), token: other }));
    expect(mistaken.code).to.equal('NOT_AUTHENTICATED');
    expect(mistaken.message).to.include('/run/other');
    expect(test.links).to.deep.equal([]);
    expect(test.log[0]?.code).to.equal('NOT_AUTHENTICATED');
    await test.pair({ token });
  });

  /** What a client that has its own way with nonces and proofs is told. */
  function attack(
    url: string,
    prove: (mine: string, theirs: string, proof: string) => string | undefined,
  ): Promise<string> {
    const mine = newNonce();
    return new Promise((resolve) => {
      const client = new WebSocket(url, [SUBPROTOCOL], { headers: { [NONCE_HEADER]: mine } });
      let proof: string | undefined;
      client.on('upgrade', ({ headers }) => {
        proof = prove(mine, String(headers[NONCE_HEADER]), String(headers[PROOF_HEADER]));
      });
      client.on('open', () =>
        client.send(encodeControl({ ...hello, ...(proof !== undefined && { proof }) })),
      );
      client.on('message', (data: Buffer) => {
        const answer = decodeControl(data);
        resolve(answer.kind === 'error' ? answer.code : answer.kind);
        client.terminate();
      });
      client.on('error', () => resolve('cut'));
    });
  }

  it('a proof is of this connection and of this side: none, the primary’s own, one from before, one of another token', async () => {
    const test = await primaryOf();
    let before = '';
    const proofs: [string, (mine: string, theirs: string, proof: string) => string | undefined, string][] = [
      ['none', () => undefined, 'NOT_AUTHENTICATED'],
      ['empty', () => '', 'NOT_AUTHENTICATED'],
      ['sent back', (_mine, _theirs, proof) => proof, 'NOT_AUTHENTICATED'],
      [
        'another token',
        (secondary, primary) => proofOf(other, 'secondary', { secondary, primary }),
        'NOT_AUTHENTICATED',
      ],
      [
        'right',
        (secondary, primary) => (before = proofOf(token, 'secondary', { secondary, primary })),
        'welcome',
      ],
      ['used before', () => before, 'NOT_AUTHENTICATED'],
    ];
    for (const [what, prove, answer] of proofs) expect(await attack(test.url, prove), what).to.equal(answer);
  });

  it('who listens in the primary’s place learns neither token nor hello, and nothing that it says counts', async () => {
    const heard: string[] = [];
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: () => SUBPROTOCOL });
    cleanup.add(() => {
      for (const client of server.clients) client.terminate();
      return new Promise((resolve) => server.close(resolve));
    });
    await new Promise((resolve) => server.once('listening', resolve));
    // Plays our own nonce and a proof back.
    server.on('headers', (headers, request) => {
      heard.push(JSON.stringify(request.headers));
      headers.push(`${NONCE_HEADER}: ${newNonce()}`, `${PROOF_HEADER}: ${newNonce()}`);
    });
    server.on('connection', (peer) => {
      peer.on('message', (data: Buffer) => heard.push(data.toString('latin1')));
      peer.send(encodeControl({ kind: 'error', code: 'UNKNOWN_DOMAIN', message: 'dead', facts: {} }));
    });
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const error = await errorOf(dial({ url, hello: helloOf(), token }));
    expect(error.code).to.equal('NOT_AUTHENTICATED');
    expect(heard).to.have.length(1);
    expect(heard[0]).to.not.include(token.secret);
  });

  it('an HTTP answer in plaintext is anybody’s: no code in it means that the primary is dead, or alive', async () => {
    for (const code of ['UNKNOWN_DOMAIN', 'REFUSED', 'TLS', 'FENCED', 'ALREADY_LINKED', 'constructor']) {
      const server = createServer((socket) => {
        socket.on('error', () => undefined).resume();
        socket.end(`HTTP/1.1 400 Bad Request\r\nromulus-error: ${code}\r\ncontent-length: 0\r\n\r\n`);
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
      for (const given of [{}, { token }]) {
        expect((await errorOf(dial({ url, hello: helloOf(), ...given }))).code, code).to.equal(
          'BAD_SUBPROTOCOL',
        );
      }
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it('a primary with another token shows that it lives to whom it was linked with, and to nobody else', async () => {
    const third = { secret: 'd'.repeat(64), file: '/run/third' };
    const test = await primaryOf();
    const told = async (mine: ChannelToken, lastToken?: ChannelToken) =>
      (await errorOf(dial({ url: test.url, hello: helloOf(), token: mine, lastToken }))).code;
    // Changed here, there, and here so often that it is forgotten.
    expect(await told(other, token)).to.equal('TOKEN_MISMATCH');
    expect(await told(other, third)).to.equal('NOT_AUTHENTICATED');
    expect(await told(other)).to.equal('NOT_AUTHENTICATED');
    test.listener.renew({ token: other });
    expect(await told(token, token)).to.equal('TOKEN_MISMATCH');
    expect(await told(third, token)).to.equal('TOKEN_MISMATCH');
    expect(await told(third, third)).to.equal('NOT_AUTHENTICATED');
    for (let n = 0; n < TOKENS_MAX; n++) {
      test.listener.renew({ token: { secret: String(n).repeat(40), file: '/run/token' } });
    }
    expect(await told(token, token)).to.equal('NOT_AUTHENTICATED');
    expect(test.links).to.deep.equal([]);
  });

  it('a sign of life is no proof, and is of its connection', async () => {
    const test = await primaryOf();
    const nonce = newNonce();
    const asked = new WebSocket(test.url, [SUBPROTOCOL], { headers: { [NONCE_HEADER]: nonce } });
    const headers = await new Promise<IncomingHttpHeaders>((resolve) =>
      asked.once('upgrade', (response) => resolve(response.headers)),
    );
    asked.terminate();
    const [theirs, sign] = [String(headers[NONCE_HEADER]), String(headers[LIFE_HEADER])];
    expect(sign).to.match(/^[0-9a-f]{64}$/);
    expect(sign).to.not.equal(headers[PROOF_HEADER]);
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: () => SUBPROTOCOL });
    cleanup.add(() => {
      for (const client of server.clients) client.terminate();
      return new Promise((resolve) => server.close(resolve));
    });
    await new Promise((resolve) => server.once('listening', resolve));
    // What it has heard from the primary: played back to another connection, as a sign and as a proof.
    const replayed = [`${NONCE_HEADER}: ${theirs}`, `${LIFE_HEADER}: ${sign}`, `${PROOF_HEADER}: ${sign}`];
    server.on('headers', (lines) => lines.push(...replayed));
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
    for (const mine of [token, other]) {
      const error = await errorOf(dial({ url, hello: helloOf(), token: mine, lastToken: token }));
      expect(error.code).to.equal('NOT_AUTHENTICATED');
    }
  });

  it('a new token is for those who come, and none does not open the door', async () => {
    const test = await primaryOf();
    test.listener.renew({ token: other });
    expect((await errorOf(dial({ url: test.url, hello: helloOf(), token }))).code).to.equal(
      'NOT_AUTHENTICATED',
    );
    test.listener.renew({});
    expect((await errorOf(dial({ url: test.url, hello: helloOf() }))).code).to.equal('NOT_AUTHENTICATED');
    await test.pair({ token: other });
  });
});
