// The connections of a listener that have not finished their handshake. Each has until its deadline, counted from
// the TCP connection on, whatever it does or does not send; there are never more than a given number of them, and
// when one more comes the oldest goes. So a crowd that stalls costs a bounded number of sockets, and a good secondary,
// which needs some milliseconds, still gets through.

import type { Socket } from 'node:net';

export interface Handshake {
  readonly peer: string;
  /** Ends it when time or room is up; the socket is destroyed at first, a WebSocket is told why once there is one. */
  expire: () => void;
}

/** "address:port" of a socket's other side: unique among the open connections of a listener, under TLS too. */
export function peerOf(socket: Socket): string {
  const { remoteAddress, remotePort } = socket;
  return `${remoteAddress ?? 'unknown'}:${remotePort ?? 0}`;
}

export class Handshakes {
  readonly #pending = new Map<string, { readonly handshake: Handshake; readonly timer: NodeJS.Timeout }>();
  readonly #countMax: number;
  readonly #timeoutMs: number;

  constructor(countMax: number, timeoutMs: number) {
    this.#countMax = countMax;
    this.#timeoutMs = timeoutMs;
  }

  begin(socket: Socket): void {
    const [oldest] = this.#pending.values();
    if (oldest !== undefined && this.#pending.size >= this.#countMax) this.#expire(oldest.handshake);
    const handshake: Handshake = { peer: peerOf(socket), expire: () => socket.destroy() };
    const timer = setTimeout(() => this.#expire(handshake), this.#timeoutMs);
    this.#pending.set(handshake.peer, { handshake, timer });
    socket.once('close', () => this.end(handshake));
  }

  find(socket: Socket): Handshake | null {
    return this.#pending.get(peerOf(socket))?.handshake ?? null;
  }

  /** Finished, well or badly. False if it was ended before. */
  end(handshake: Handshake): boolean {
    const pending = this.#pending.get(handshake.peer);
    if (pending?.handshake !== handshake) return false;
    clearTimeout(pending.timer);
    return this.#pending.delete(handshake.peer);
  }

  expireAll(): void {
    for (const { handshake } of [...this.#pending.values()]) this.#expire(handshake);
  }

  #expire(handshake: Handshake): void {
    if (this.end(handshake)) handshake.expire();
  }
}
