// The disks of a domain that are replicated: what its hypervisor must be able to do for them, beside what port.ts says of
// the domain. A disk is an array of octets (../disk/extents.ts says what a write is); disks are told by their index in
// `disks`, which are the same disks in the same order on both sides.
//
//   source   attach ─▶ rest: chunks are marked ─ keep ─▶ seal, seal, … (what was written, in order) ─ rest ─▶ …
//                                                 └ copy: what the other side does not have, while the guest writes
//   target   begin ─▶ write … ─▶ committed(point) ─▶ write … ─▶ committed(point)          durable$: points, behind

import type { Observable } from 'rxjs';
import type { DirtyMap } from '../disk/dirty-map.js';
import type { Extents, Slab } from '../disk/extents.js';

export interface ReplicatedDisk {
  /** The same on both hosts: 1 to 64 of A-Z a-z 0-9 . _ - */
  readonly id: string;
  /** Of the disk as the guest sees it: a multiple of 512. */
  readonly bytes: number;
}

/** What was written to one disk between two seals. */
export interface DiskWrites {
  readonly disk: number;
  readonly extents: Extents;
  /** The data of the extents. Whoever takes them gives them back: release(). */
  readonly slabs: readonly Slab[];
  /** Chunks that were written without their data being kept; no extent touches them. Null: there are none. */
  readonly dirty: DirtyMap | null;
}

/** What a disk held in some extents (DATA and ZERO) while it was copied; places are in the slab. */
export interface CopiedExtents {
  readonly extents: Extents;
  readonly slab: Slab | null;
  /**
   * Calls of seal() since keep(): it is applied after what those gave, and before what the next one gives; so it is told
   * (take) before the promise of the next one settles.
   */
  readonly seals: number;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface DiskCopyOrder {
  readonly disk: number;
  /** What is to be copied; left out: all. */
  readonly todo?: DirtyMap;
  /** Left out: no limit. */
  readonly bytesPerSecond?: number;
  readonly signal: AbortSignal;
  /** One batch after another; whoever is done with one resolves. */
  readonly take: (copied: CopiedExtents) => Promise<void>;
}

/** What is known of a disk now; some tenths of a second old. */
export interface DiskFigures {
  /** The guest's writes, zeroes and discards since the disk came to us, and octets of data in them. */
  readonly requests: number;
  readonly writtenBytes: number;
  /** Octets of data that are kept since the last seal. */
  readonly journalBytes: number;
  /** What is written to it is not known, for this reason. Null: it is, or it never was attached. */
  readonly lost: string | null;
}

export type DiskEvent =
  /** Little room is left for what is written: an early seal, and release(), make some. */
  | { readonly kind: 'pressure' }
  /** What is written to this disk is not known any more; until it is attached again. */
  | { readonly kind: 'lost'; readonly disk: number; readonly reason: string };

export interface DiskSource {
  readonly disks: readonly ReplicatedDisk[];
  /** Hot. Never fails. */
  readonly events$: Observable<DiskEvent>;
  /** In the order of the disks. */
  readonly figures: readonly DiskFigures[];
  /**
   * From here on the domain's writes are known; they are marked. A domain that runs is stopped for some milliseconds. Done
   * already: nothing happens; of disks that were lost: they are attached again.
   * @throws HypervisorError BAD_CONFIGURATION naming the disk that cannot be replicated, FAILED, HUNG, DOMAIN_GONE
   */
  attach(): Promise<void>;
  /**
   * From here on the data of what is written are kept, for seal(). A domain that runs is stopped for a moment. Gives for
   * each disk the chunks that were written since attach() or rest(); null: that is not known (it was lost meanwhile).
   * @throws HypervisorError FAILED, HUNG, DOMAIN_GONE; WRONG_STATE before attach()
   */
  keep(): Promise<readonly (DirtyMap | null)[]>;
  /** From here on chunks are marked, those of what was not sealed yet among them: nobody has a use for the data. */
  rest(): Promise<void>;
  /**
   * The epoch ends with this call, not when its promise settles. In a suspended domain what it gives is the disk's content
   * exactly; while it runs, it is a cut somewhere in the order of its writes. Disks that were not written to are left out.
   * @throws HypervisorError FAILED if a disk is lost
   */
  seal(): Promise<readonly DiskWrites[]>;
  /** The data in these slabs are not wanted any more. Once for each. */
  release(slabs: readonly Slab[]): void;
  /** While the domain runs. Resolves with what was not taken, and why; it does not reject. */
  copy(order: DiskCopyOrder): Promise<{ readonly left: DirtyMap; readonly error: Error | null }>;
  /** xxh3 (128 bits) of chunks first … first + count - 1, 16 octets each, as the disk is now. */
  sums(disk: number, first: number, count: number): Promise<Uint8Array>;
}

/** What an image holds: the domain's disk as of this epoch of this stream. */
export interface DiskPoint {
  readonly streamUuid: string;
  readonly epoch: number;
}

export interface DiskTarget {
  readonly disks: readonly ReplicatedDisk[];
  /** The last point that survives a crash of this host, the present one first; null: none that is known. */
  readonly durable$: Observable<DiskPoint | null>;
  /** Whether nothing was ever written to the image: all of it is zeroes. */
  isBlank(disk: number): boolean;
  /**
   * What follows belongs to the next checkpoint. staged: it must not touch the images before committed(), because they
   * belong to an older checkpoint that may still be needed. Once at the beginning of each stream; what was staged before
   * and not committed is dropped.
   */
  begin(how: 'in-place' | 'staged'): Promise<void>;
  /**
   * In the order of the stream. `data`: what places of DATA extents are in. The caller keeps both until the promise
   * settles.
   * @throws HypervisorError FAILED with the system's code (ENOSPC, EIO, EROFS)
   */
  write(disk: number, extents: Extents, data: Uint8Array): Promise<void>;
  /** All writes of the checkpoint were given; staged ones are applied. Durable some time later. */
  committed(point: DiskPoint): Promise<void>;
  /** As in DiskSource. */
  sums(disk: number, first: number, count: number): Promise<Uint8Array>;
  /**
   * The domain runs on these disks from here on; what is written to them is not of any point. Makes them durable. What was
   * staged and not committed is dropped.
   */
  taken(): Promise<void>;
}
