// What the agent and the process that writes to its files say to each other.

import type { StandardFd } from './non-blocking.js';

/** A file by its path, or a descriptor that the process was given. */
export type FileTarget = { readonly path: string } | { readonly fd: StandardFd };

/** Those of one file are carried out in order; each is answered. */
export type FileRequest = { readonly id: number; readonly file: number } & (
  | { readonly kind: 'open'; readonly target: FileTarget }
  /** Opens the file first if it is not open. `whole`: waits for a reader that is slow, until all is written. */
  | {
      readonly kind: 'write';
      readonly target: FileTarget;
      readonly bytes: Uint8Array;
      readonly whole: boolean;
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

/** The descriptors that the process has for the agent's, where it is to write to them. */
export const INHERITED_FD: Readonly<Record<StandardFd, number>> = { 1: 4, 2: 5 };
