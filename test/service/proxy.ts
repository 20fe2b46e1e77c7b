// A TCP proxy between the two services: the network, which can be cut, silent, slow to come back, or lead elsewhere.

import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';

export class Proxy {
  /** Where new connections lead. */
  target: number;
  /** 'refuse' closes new connections at once; 'silent' forwards nothing, in either direction. */
  mode: 'forward' | 'silent' | 'refuse' = 'forward';
  /** Octets towards the secondary after which a connection is cut; for the connections that come. */
  cutAfterBytes = Infinity;
  /** The octet of the next chunk of at least 1 KiB towards the secondary that is changed, once. */
  corruptAt: number | null = null;
  connections = 0;
  /** A connection has come, and is forwarded unless it was cut. */
  accepted: () => void = () => undefined;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private readonly secondaries = new Set<Socket>();

  constructor(target: number) {
    this.target = target;
    this.server = createServer((socket) => this.accept(socket));
  }

  async listen(port = 0): Promise<number> {
    await new Promise<void>((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    return (this.server.address() as AddressInfo).port;
  }

  /** Ends all connections that stand. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  /** Ends all connections for the secondary; the primary hears nothing more, not even that. */
  reset(): void {
    for (const secondary of [...this.secondaries]) {
      this.secondaries.delete(secondary);
      secondary.removeAllListeners('close');
      this.sockets.delete(secondary);
      secondary.destroy();
    }
  }

  /** Nobody listens any more. */
  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private accept(secondary: Socket): void {
    this.connections++;
    if (this.mode === 'refuse') {
      secondary.destroy();
      return;
    }
    const primary = connect(this.target, '127.0.0.1');
    this.secondaries.add(secondary);
    let left = this.cutAfterBytes;
    this.join(secondary, primary, () => undefined);
    this.join(primary, secondary, (chunk) => {
      this.corrupt(chunk);
      left -= chunk.length;
      if (left < 0) primary.destroy();
    });
    this.accepted();
  }

  private corrupt(chunk: Buffer): void {
    if (this.corruptAt === null || chunk.length < 1024) return;
    const at = this.corruptAt % chunk.length;
    chunk[at] = (chunk[at] ?? 0) ^ 0x40;
    this.corruptAt = null;
  }

  private join(from: Socket, to: Socket, passing: (chunk: Buffer) => void): void {
    this.sockets.add(from);
    from.setNoDelay(true);
    from.on('data', (chunk: Buffer) => {
      if (this.mode === 'silent' || to.destroyed) return;
      passing(chunk);
      to.write(chunk);
    });
    // A connection that fails is closed, and so is its other half.
    from.on('error', () => undefined);
    from.on('close', () => {
      this.sockets.delete(from);
      this.secondaries.delete(from);
      to.destroy();
    });
  }
}
