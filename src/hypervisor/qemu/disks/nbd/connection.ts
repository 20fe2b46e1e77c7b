// One client of our NBD server: its socket, read no faster than there is room for what it says, and the replies to it.
//
//   socket ─▶ chunk ─▶ handshake ─▶ requests ─▶ replies, one write for all of a chunk ─▶ socket
//               ▲                       │ held: no room on the disk's side
//               └── the rest waits ─────┘ and nothing more is read, until room, or until the time for it is over

import type { Socket } from 'node:net';
import { asError } from '../../../../errors.js';
import { NbdError } from './error.js';
import type { DiskExport } from './export.js';
import { Negotiation, type Choice } from './negotiation.js';
import { readInto } from './read-into.js';
import { Transmission } from './transmission.js';

/** Read at a time: requests and replies go in dozens then, each dozen with one call of the kernel's. */
const CHUNK_BYTES = 256 * 1024;
/** A handshake is some milliseconds of work. */
const HANDSHAKE_MS = 10_000;
/**
 * A write is held no longer, whoever has forgotten it: QEMU waits for it in `stop`, and with it all who talk to QEMU.
 */
const HELD_MS_MAX = 500;
/** Replies that the client has not read: beyond that it is not listened to. */
const UNREAD_BYTES_MAX = 256 * 1024;

export interface ConnectionEvents {
  /** Before anything that has arrived is dealt with. */
  readonly arriving: () => void;
  readonly chosen: (disk: DiskExport) => void;
  /** Once. `disk`: that it had chosen; `error`: why it ended, null if it took its leave. */
  readonly ended: (disk: DiskExport | null, error: Error | null) => void;
}

export class Connection {
  readonly #socket: Socket;
  readonly #events: ConnectionEvents;
  readonly #negotiation: Negotiation<DiskExport>;
  #transmission: Transmission | null = null;
  #disk: DiskExport | null = null;
  /** What has been read and must wait. It lies where the next read would put its octets: until then there is none. */
  #rest: Uint8Array | null = null;
  #restFrom = 0;
  readonly #handshakeTimer: NodeJS.Timeout;
  #heldTimer: NodeJS.Timeout | null = null;
  #hasEnded = false;

  /** @param accepted by a server with pauseOnConnect */
  constructor(accepted: Socket, choice: Choice<DiskExport>, events: ConnectionEvents) {
    const memory = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    const socket = (this.#socket = readInto(accepted, memory, (chunk) => this.#receive(chunk)));
    this.#events = events;
    this.#handshakeTimer = setTimeout(
      () => this.end(new NbdError('HUNG', 'a client does not choose an export in time')),
      HANDSHAKE_MS,
    );
    socket.on('drain', () => this.#goOn());
    socket.on('error', (error) => this.end(error));
    socket.on('close', () => this.end(new NbdError('CLOSED', 'the client has gone without a word')));
    this.#negotiation = new Negotiation(choice, (octets) => socket.write(octets));
    socket.resume();
  }

  /** May be called twice. */
  end(error: Error | null): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#handshakeTimer);
    this.#notHeld();
    this.#rest = null;
    if (this.#disk !== null) this.#disk.onRoom = () => undefined;
    // What was replied before is heard, unless nobody listens.
    if (error === null && this.#socket.writableLength === 0) this.#socket.destroySoon();
    else this.#socket.destroy();
    this.#events.ended(this.#disk, error);
  }

  #receive(chunk: Uint8Array): void {
    if (this.#hasEnded) return;
    this.#rest = chunk;
    this.#restFrom = 0;
    this.#work();
  }

  /** There may be room now, on either side. */
  #goOn(): void {
    if (this.#rest !== null) this.#work();
    else if (!this.#hasEnded && this.#isHeard()) this.#socket.resume();
  }

  #work(): void {
    this.#events.arriving();
    try {
      while (this.#rest !== null && this.#isHeard()) {
        const rest = this.#rest;
        this.#restFrom = this.#feed(rest, this.#restFrom);
        if (this.#hasEnded) return;
        if (this.#restFrom === rest.length) this.#rest = null;
        if (this.#transmission?.isHeld === true) {
          this.#held();
          return;
        }
      }
    } catch (error) {
      this.end(asError(error));
      return;
    }
    this.#notHeld();
    if (this.#rest === null && this.#isHeard()) this.#socket.resume();
    else this.#socket.pause();
  }

  #isHeard(): boolean {
    return this.#socket.writableLength <= UNREAD_BYTES_MAX;
  }

  /** The index behind the last octet that was taken. */
  #feed(chunk: Uint8Array, from: number): number {
    if (this.#transmission === null) return this.#handshake(chunk, from);
    const at = this.#transmission.feed(chunk, from);
    const replies = this.#transmission.takeReplies();
    if (replies !== null) this.#socket.write(replies);
    if (this.#transmission.isOver) this.end(null);
    return at;
  }

  #handshake(chunk: Uint8Array, from: number): number {
    const at = this.#negotiation.feed(chunk, from);
    if (this.#negotiation.isAborted) this.end(null);
    const { chosen } = this.#negotiation;
    if (chosen !== null) {
      clearTimeout(this.#handshakeTimer);
      this.#disk = chosen;
      this.#transmission = new Transmission(chosen);
      chosen.onRoom = () => this.#goOn();
      this.#events.chosen(chosen);
    }
    return at;
  }

  #held(): void {
    this.#socket.pause();
    this.#heldTimer ??= setTimeout(() => this.#disk?.letThrough(), HELD_MS_MAX);
  }

  #notHeld(): void {
    if (this.#heldTimer !== null) clearTimeout(this.#heldTimer);
    this.#heldTimer = null;
  }
}
