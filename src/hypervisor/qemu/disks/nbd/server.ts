// The NBD server: a socket, the exports behind it, and who has which. An export has one client at a time: two would
// write in an order that nobody knows.

import { createServer, type Server, type Socket } from 'node:net';
import { Connection } from './connection.js';
import { NbdError } from './error.js';
import type { DiskExport } from './export.js';

/** Clients that have not chosen yet, beside one for each export: more are sent away at once. */
const STRANGERS_MAX = 4;

export interface ServerEvents {
  /** Before anything that has arrived is dealt with. */
  readonly arriving: () => void;
  readonly connected: (disk: string) => void;
  /** `error`: why its client is gone; null: it took its leave. */
  readonly lost: (disk: string, error: Error | null) => void;
}

export class NbdServer {
  readonly exports: readonly DiskExport[];
  readonly #server: Server;
  readonly #events: ServerEvents;
  readonly #connections = new Set<Connection>();
  readonly #taken = new Set<DiskExport>();

  constructor(exports: readonly DiskExport[], events: ServerEvents) {
    this.exports = exports;
    this.#events = events;
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = exports.length + STRANGERS_MAX;
  }

  /** @throws NbdError FAILED */
  async listen(path: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const refused = (cause: Error) =>
        reject(
          new NbdError('FAILED', `no socket can listen at ${path}: ${cause.message}`, { path }, { cause }),
        );
      this.#server.once('error', refused);
      this.#server.listen(path, () => {
        this.#server.off('error', refused);
        // One that cannot be accepted (no descriptors left) is that client's loss.
        this.#server.on('error', () => undefined);
        resolve();
      });
    });
  }

  /** @throws NbdError FAILED if there is none of this name */
  export(name: string): DiskExport {
    const found = this.exports.find((each) => each.name === name);
    if (found) return found;
    throw new NbdError('FAILED', `no disk is exported as ${name}`, { export: name });
  }

  close(): void {
    this.#server.close();
    for (const connection of this.#connections) connection.end(null);
  }

  #accept(socket: Socket): void {
    const choice = {
      exports: this.exports,
      claim: (disk: DiskExport) => {
        if (this.#taken.has(disk)) return false;
        this.#taken.add(disk);
        return true;
      },
    };
    const connection: Connection = new Connection(socket, choice, {
      arriving: this.#events.arriving,
      chosen: (disk) => this.#events.connected(disk.name),
      ended: (disk, error) => {
        this.#connections.delete(connection);
        if (disk === null) return;
        this.#taken.delete(disk);
        this.#events.lost(disk.name, error);
      },
    });
    this.#connections.add(connection);
  }
}
