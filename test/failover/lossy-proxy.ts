// A network between a client and a server that loses what it is told to lose. Each connection is one request.

import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import type { Cleanup } from '../support/cleanup.js';

/**
 * `request`: it does not arrive. `reply`: what was asked for is done, and the connection is cut when the reply comes.
 * `silence`: as reply, but nothing is cut, nothing comes.
 */
export type Loss = 'none' | 'request' | 'reply' | 'silence';

export class LossyProxy {
  readonly endpoint: string;
  /** For the next connections, one each; then nothing is lost. */
  losses: Loss[] = [];
  readonly #target: URL;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number, target: URL) {
    this.endpoint = `http://127.0.0.1:${port}`;
    this.#target = target;
  }

  static async open(cleanup: Cleanup, target: string): Promise<LossyProxy> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const proxy = new LossyProxy((server.address() as AddressInfo).port, new URL(target));
    server.on('connection', (socket) => proxy.#serve(socket));
    cleanup.add(async () => {
      for (const socket of proxy.#sockets) socket.destroy();
      await once(server.close(), 'close');
    });
    return proxy;
  }

  #serve(client: Socket): void {
    const loss = this.losses.shift() ?? 'none';
    this.#own(client);
    if (loss === 'request') {
      client.once('data', () => client.resetAndDestroy());
      return;
    }
    const server = this.#own(connect(Number(this.#target.port), this.#target.hostname));
    client.pipe(server);
    if (loss === 'none') server.pipe(client);
    // The client has gone, but its request shall arrive: what it has sent is on its way to the server.
    else server.once('data', () => loss === 'reply' && client.resetAndDestroy());
  }

  #own(socket: Socket): Socket {
    this.#sockets.add(socket);
    socket.on('error', () => undefined); // 'close' follows
    socket.on('close', () => this.#sockets.delete(socket));
    return socket;
  }
}
