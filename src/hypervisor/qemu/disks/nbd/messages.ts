// What the thread that serves the exports and the one that it serves them for say to each other.

import type { Extents, Slab } from '../../../../disk/extents.js';
import type { SealedJournal } from '../../../../disk/journal.js';
import type { Facts } from '../../../../errors.js';
import type { CopyProgress } from './copy.js';
import type { NbdErrorCode } from './error.js';
import type { ExportFigures, ExportMode, WriteCounters } from './export.js';
import type { Exported } from './negotiation.js';

export interface ServerStart {
  readonly path: string;
  readonly disks: readonly Exported[];
  readonly poolBytes: number;
  /**
   * Shared: the epochs that have ended. Whoever ends one counts here, before the guest may write again; the thread looks
   * here before it looks at anything that the guest has written.
   */
  readonly epochs: Int32Array<SharedArrayBuffer>;
}

/** One disk's, of one epoch. */
export interface SealedDisk extends Omit<SealedJournal, 'dirty'> {
  readonly name: string;
  /** The words of the map of chunks whose data were not kept; null: there are none. */
  readonly dirty: Uint32Array<ArrayBuffer> | null;
  readonly counters: WriteCounters;
}

export interface CopyRequest {
  readonly id: number;
  readonly disk: string;
  /** Of the server that it is read from. */
  readonly path: string;
  readonly exportName: string;
  readonly isKept: boolean;
  /** The words of the map of what is to be copied. */
  readonly todo: Uint32Array<ArrayBuffer>;
  readonly bytesPerSecond: number;
}

export interface ErrorMessage {
  readonly code: NbdErrorCode;
  readonly message: string;
  readonly facts: Facts;
}

export type ServerRequest =
  | { readonly kind: 'ask' }
  | { readonly kind: 'seal' }
  | { readonly kind: 'release'; readonly slabs: readonly Slab[] }
  | { readonly kind: 'let-through' }
  | { readonly kind: 'mode'; readonly disk: string; readonly mode: ExportMode }
  | ({ readonly kind: 'copy' } & CopyRequest)
  | { readonly kind: 'copy-taken'; readonly id: number; readonly batch: number; readonly slab: Slab | null }
  | { readonly kind: 'copy-stop'; readonly id: number };

/** What a disk held, in some extents of it. */
export interface CopiedMessage {
  readonly id: number;
  readonly batch: number;
  readonly epoch: number;
  readonly extents: Extents;
  readonly slab: Slab | null;
  readonly progress: CopyProgress;
}

export type ServerNews =
  | { readonly kind: 'listening' }
  /** The answer to `ask`. */
  | { readonly kind: 'alive'; readonly figures: readonly ExportFigures[] }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'connected'; readonly disk: string }
  | { readonly kind: 'lost'; readonly disk: string; readonly reason: string | null }
  /** Once in an epoch: little room is left for what the guest writes. */
  | { readonly kind: 'pressure' }
  /** The answers to `seal`, and to `mode`, in the order in which these were asked. */
  | { readonly kind: 'sealed'; readonly disks: readonly SealedDisk[] }
  | { readonly kind: 'mode-set'; readonly map: Uint32Array<ArrayBuffer> | null }
  | ({ readonly kind: 'copied' } & CopiedMessage)
  | {
      readonly kind: 'copy-ended';
      readonly id: number;
      readonly error: ErrorMessage | null;
      /** The words of the map of what has not been taken. */
      readonly left: Uint32Array<ArrayBuffer>;
    };

export type Post = (news: ServerNews, transfer: readonly ArrayBuffer[]) => void;
