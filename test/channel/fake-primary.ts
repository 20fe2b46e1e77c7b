// A primary that welcomes everybody and then says exactly what a test tells it to: no heartbeats, no order.

import type { AddressInfo } from 'node:net';
import { WebSocketServer, type WebSocket } from 'ws';
import { PROTOCOL_VERSION, SUBPROTOCOL, type SecondaryLink } from '../../src/channel/contract.js';
import { StreamDigest } from '../../src/channel/link/digest.js';
import { dial, type DialOptions } from '../../src/channel/dial/dialer.js';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { type CheckpointMessage } from '../../src/channel/wire/message.js';
import { STREAM, helloOf } from './support.js';

export class FakePrimary {
  #server: WebSocketServer | null = null;
  #connected: ((peer: WebSocket) => void) | null = null;
  port = 0;

  static welcome(): Buffer {
    return encodeControl({
      kind: 'welcome',
      protocolVersion: PROTOCOL_VERSION,
      software: 'fake',
      host: 'north',
      streamUuid: STREAM,
      heartbeatIntervalMs: 50,
      heartbeatTimeoutMs: 200,
      windowEpochs: 1,
      continuous: false,
      pairing: STREAM,
      resumes: false,
    });
  }

  static checkpoint(fields: Partial<CheckpointMessage>): Buffer {
    const message = {
      epoch: 0,
      bytes: 1,
      digest: 0n,
      outputBytes: 0,
      end: false,
      trial: false,
      handOver: false,
      ...fields,
    };
    return encodeControl({ ...message, kind: 'checkpoint' });
  }

  /** The parts as one piece, and their checkpoint message with the right digest. */
  static sendEpoch(peer: WebSocket, parts: Uint8Array[], fields: Partial<CheckpointMessage>): void {
    const piece = Buffer.concat(parts);
    const digest = new StreamDigest();
    digest.update(piece);
    peer.send(Buffer.concat([Buffer.from([2]), piece]));
    peer.send(FakePrimary.checkpoint({ ...digest.take(), ...fields }));
  }

  /** `reply` answers the hello; the default is a welcome. */
  async start(
    reply: (peer: WebSocket) => void = (peer) => {
      peer.send(FakePrimary.welcome());
    },
  ): Promise<this> {
    const server = new WebSocketServer({
      host: '127.0.0.1',
      port: 0,
      perMessageDeflate: false,
      handleProtocols: () => SUBPROTOCOL,
    });
    this.#server = server;
    server.on('connection', (peer) => {
      peer.on('error', () => undefined);
      peer.once('message', () => {
        reply(peer);
        this.#connected?.(peer);
      });
    });
    await new Promise((resolve) => server.once('listening', resolve));
    this.port = (server.address() as AddressInfo).port;
    return this;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  nextPeer(): Promise<WebSocket> {
    return new Promise((resolve) => (this.#connected = resolve));
  }

  async pair(options: Partial<DialOptions> = {}): Promise<{ link: SecondaryLink; peer: WebSocket }> {
    const connected = this.nextPeer();
    const link = await dial({ url: this.url, hello: helloOf(), ...options });
    return { link, peer: await connected };
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      for (const peer of this.#server?.clients ?? []) peer.terminate();
      this.#server?.close(() => {
        resolve();
      });
    });
  }
}
