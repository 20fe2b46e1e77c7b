// What the agent and the process that writes to its files say to each other, over a socket: what is in it when one end
// is gone can still be read at the other, which Node's own channel between processes does not grant.
//
//   message: length, 32 bits ─ value, as v8 serialises it

import { deserialize, serialize } from 'node:v8';
import type { StandardFd } from './non-blocking.js';

/** A file by its path, or a descriptor that the process was given. */
export type FileTarget = { readonly path: string } | { readonly fd: StandardFd };

/** Those of one file are carried out in order; each is answered. */
export type FileRequest = { readonly id: number; readonly file: number } & (
  | { readonly kind: 'open'; readonly target: FileTarget }
  /**
   * Opens the file first if it is not open. `whole`: waits for a reader that is slow, until all is written. `untilMs`, of
   * the monotonic clock: nothing is taken afterwards; the agent may have been stopped, and replaced.
   */
  | {
      readonly kind: 'write';
      readonly target: FileTarget;
      readonly bytes: Uint8Array;
      readonly whole: boolean;
      readonly untilMs: number;
    }
  /** Ends a write that waits. */
  | { readonly kind: 'close' }
);

export interface FileReply {
  readonly id: number;
  /** Octets taken. Fewer than there were, without an error: the others not now. */
  readonly taken: number;
  readonly error?: { readonly code: string; readonly message: string };
}

const LENGTH_BYTES = 4;

export function encodeMessage(message: FileRequest | FileReply): Buffer {
  const value = serialize(message);
  const head = Buffer.alloc(LENGTH_BYTES);
  head.writeUInt32LE(value.length);
  return Buffer.concat([head, value]);
}

/** Cuts what comes into messages. The other end is ours, too: nothing is checked. */
export class MessageReader<Message extends FileRequest | FileReply> {
  #chunks = Buffer.alloc(0);

  *read(chunk: Buffer): Generator<Message> {
    this.#chunks = Buffer.concat([this.#chunks, chunk]);
    while (this.#chunks.length >= LENGTH_BYTES) {
      const end = LENGTH_BYTES + this.#chunks.readUInt32LE();
      if (this.#chunks.length < end) return;
      const message = deserialize(this.#chunks.subarray(LENGTH_BYTES, end)) as Message;
      this.#chunks = this.#chunks.subarray(end);
      yield message;
    }
  }
}

export const SOCKET_FD = 3;
/** The descriptors that the process has for the agent's, where it is to write to them. */
export const INHERITED_FD: Readonly<Record<StandardFd, number>> = { 1: 4, 2: 5 };
