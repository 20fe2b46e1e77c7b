// What the domain's side and the machine's worker say to each other. Calls are answered in order; page data never is in
// a message, it lies in shared memory that both sides know by a number. The data of block writes are handed over.

import type { Extents, Slab } from '../../disk/extents.js';
import type { Facts } from '../../errors.js';
import { HypervisorError, type HypervisorErrorCode } from '../port.js';
import type { MachineSpec } from './config.js';
import type { SealedDisk } from './machine-disk.js';

/** Pages in one slot of the staging memory, through which pages come into the machine. */
export const SLOT_PAGES = 256;
export const SLOT_COUNT = 4;

/**
 * Memory that both sides hold from the beginning.
 *
 *   staging  SLOT_COUNT × SLOT_PAGES pages
 *   frames   for each page of the staging memory, where it belongs
 *   bitmap   the dirty bitmap, as a Bitmap's words
 *   figures  of the disk (DiskFigure), 64-bit floats
 */
export interface SharedMemory {
  readonly staging: SharedArrayBuffer;
  readonly frames: SharedArrayBuffer;
  readonly bitmap: SharedArrayBuffer;
  readonly figures: SharedArrayBuffer;
}

export interface WorkerStart {
  readonly spec: MachineSpec;
  readonly shared: SharedMemory;
}

/** Of the disk: see MachineDisk. Slabs in an argument or a result are handed over, not copied. */
export interface DiskCalls {
  diskAttach: { argument: undefined; result: undefined };
  diskKeep: { argument: undefined; result: Uint32Array<ArrayBuffer> };
  diskRest: { argument: undefined; result: undefined };
  diskSeal: { argument: undefined; result: SealedDisk };
  diskRelease: { argument: { slabs: readonly Slab[] }; result: undefined };
  diskRead: {
    argument: { offset: number; length: number; slabs: readonly Slab[] };
    result: { extents: Extents; seals: number; slabs: readonly Slab[] };
  };
  diskSums: { argument: { first: number; count: number }; result: Uint8Array };
  diskBegin: { argument: 'in-place' | 'staged'; result: undefined };
  /** The data are in the one slab, which is of their size. */
  diskWrite: { argument: { extents: Extents; slabs: readonly Slab[] }; result: undefined };
  diskCommitted: { argument: undefined; result: undefined };
  diskTaken: { argument: undefined; result: undefined };
  diskCopied: { argument: undefined; result: SharedArrayBuffer };
  diskLoad: { argument: SharedArrayBuffer; result: undefined };
}

/** The calls: what is asked, and what comes back. */
export interface Calls extends DiskCalls {
  start: { argument: undefined; result: undefined };
  suspend: { argument: undefined; result: undefined };
  resume: { argument: undefined; result: undefined };
  input: { argument: Uint8Array; result: undefined };
  enableLogDirty: { argument: undefined; result: undefined };
  /** Fills the shared bitmap; returns the number of dirty pages. */
  scan: { argument: { clean: boolean }; result: number };
  disableLogDirty: { argument: undefined; result: undefined };
  /** Frames into a slab (`memory` goes along the first time that a slab is named). */
  copy: {
    argument: { frames: Uint32Array; slab: number; offset: number; memory?: SharedArrayBuffer };
    result: undefined;
  };
  /** Frames into the staging memory, from its beginning on. */
  copyToStaging: { argument: { frames: Uint32Array }; result: undefined };
  forgetSlab: { argument: number; result: undefined };
  saveContext: { argument: undefined; result: Uint8Array };
  restoreContext: { argument: Uint8Array; result: undefined };
  /** The first `count` pages of a slot to where the frames say. */
  write: { argument: { slot: number; count: number }; result: undefined };
  /** The same, compared: the places in the slot of those that differ. */
  compare: { argument: { slot: number; count: number }; result: number[] };
  clear: { argument: number; result: undefined };
}
export type CallName = keyof Calls;

export interface CallMessage<K extends CallName = CallName> {
  readonly id: number;
  readonly name: K;
  readonly argument: Calls[K]['argument'];
}

/** An error as it travels. */
export interface ErrorMessage {
  readonly code: HypervisorErrorCode;
  readonly message: string;
  readonly facts: Facts;
  readonly cause?: string;
}

export type WorkerMessage =
  | { readonly kind: 'ready'; readonly version: string; readonly isDiskBlank: boolean }
  | { readonly kind: 'refused'; readonly error: ErrorMessage }
  | { readonly kind: 'result'; readonly id: number; readonly result: Calls[CallName]['result'] }
  | { readonly kind: 'failed'; readonly id: number; readonly error: ErrorMessage }
  | { readonly kind: 'output'; readonly bytes: Uint8Array }
  /** Little room is left for what the guest writes to its disk. */
  | { readonly kind: 'pressure' }
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'crashed'; readonly reason: string };

interface Pending {
  readonly settle: (result: Calls[CallName]['result']) => void;
  readonly reject: (error: HypervisorError) => void;
}

/** What of an argument or a result is handed over. */
export function handedOver(of: unknown): ArrayBuffer[] {
  if (typeof of !== 'object' || of === null || !('slabs' in of)) return [];
  return (of.slabs as readonly Slab[]).map(({ buffer }) => buffer);
}

/** The domain's side of the calls, which may overlap. */
export class WorkerCalls {
  readonly #post: (message: CallMessage, handedOver: readonly ArrayBuffer[]) => void;
  readonly #refusal: (name: CallName) => HypervisorError | null;
  readonly #pending = new Map<number, Pending>();
  #next = 0;

  /** `refusal`: why this call cannot be made any more; null: it can. */
  constructor(
    post: (message: CallMessage, handedOver: readonly ArrayBuffer[]) => void,
    refusal: (name: CallName) => HypervisorError | null,
  ) {
    this.#post = post;
    this.#refusal = refusal;
  }

  call<K extends CallName>(name: K, argument: Calls[K]['argument']): Promise<Calls[K]['result']> {
    const refusal = this.#refusal(name);
    if (refusal) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#pending.set(id, { settle: resolve, reject });
      this.#post({ id, name, argument } satisfies CallMessage<K>, handedOver(argument));
    });
  }

  answered(answer: Extract<WorkerMessage, { kind: 'result' | 'failed' }>): void {
    const call = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (answer.kind === 'result') call?.settle(answer.result);
    else call?.reject(errorOf(answer.error));
  }

  /** Nothing more is answered. */
  rejectAll(error: HypervisorError): void {
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of calls) call.reject(error);
  }
}

/** As it was before it travelled. */
export function errorOf({ code, message, facts, cause }: ErrorMessage): HypervisorError {
  const options = cause === undefined ? undefined : { cause: new Error(cause) };
  return new HypervisorError(code, message, facts, options);
}
