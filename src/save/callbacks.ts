// What the saver asks of whoever drives it: libxc's save_callbacks, with results that say what they mean.
//
// One checkpoint in time order, the domain running outside the brackets:
//
//   prepareSuspend suspend [ copy pages, device state ] postcopy … pieces leave … checkpoint → next one, finish or abort
//   COLO:
//   prepareSuspend suspend [ copy pages, device state, pieces leave, checkpoint ] postcopy … waitCheckpoint → next one, …

import type { DiskWrites } from '../hypervisor/port-disks.js';

/** libxc's precopy_stats. */
export interface PrecopyStats {
  readonly iteration: number;
  /** Pages sent in all iterations. */
  readonly totalWritten: number;
  /** Pages dirty now; -1 while it is not known. */
  readonly dirtyCount: number;
}

export type PrecopyDecision = 'continue-precopy' | 'stop-and-copy' | 'abort';
export type PrecopyPolicy = (stats: PrecopyStats) => PrecopyDecision;

/** Stops below `targetDirtyPages` dirty pages, or when `maxIterations` passes were made. */
export function precopyPolicy(limits: {
  readonly targetDirtyPages: number;
  readonly maxIterations: number;
}): PrecopyPolicy {
  return ({ iteration, dirtyCount }) =>
    (dirtyCount >= 0 && dirtyCount < limits.targetDirtyPages) || iteration >= limits.maxIterations
      ? 'stop-and-copy'
      : 'continue-precopy';
}

/** libxc's default: below 50 dirty pages, or after 5 iterations. */
export const simplePrecopyPolicy: PrecopyPolicy = precopyPolicy({ targetDirtyPages: 50, maxIterations: 5 });

export interface SaveProgress {
  /** "Frames iteration 2", "Checkpointed save", "Frames", "Frames verify". */
  readonly stage: string;
  readonly pagesDone: number;
  readonly pagesTotal: number;
}

/**
 * Of the copy of a disk: octets of it that are in the stream, and that will be. It is told of all disks as soon as it is
 * known, and at the beginning of each copy, with 0 done.
 */
export interface DiskProgress {
  readonly disk: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/**
 * Seconds. `suspend` to `resume` are the pause; `send` is until the last piece has left this process. COLO sends in
 * the pause, before anything is known of the resume, which is 0.
 */
export interface SavePhases {
  readonly suspend: number;
  readonly copy: number;
  readonly state: number;
  readonly resume: number;
  readonly send: number;
}

export interface SavedCheckpoint {
  /** 0 is the first checkpoint of the stream, which holds all memory. */
  readonly epoch: number;
  /** Pages in the suspended pass. */
  readonly dirtyPages: number;
  /** Octets of the stream since the last boundary. */
  readonly bytes: number;
  readonly phases: SavePhases;
}

export type CheckpointDecision = 'continue' | 'finish' | 'abort';

/** What the steps (steps.ts) ask; what libxc's loop on top of them asks besides, SaveCallbacks says. */
export interface SaveStepCallbacks {
  /** The domain is about to be suspended and still runs: whatever makes the pause shorter. */
  prepareSuspend?(epoch: number): Promise<void>;
  /** Suspends the domain (and seals its output). Resolves when the domain is suspended. */
  suspend(epoch: number): Promise<void>;
  /** Lets the domain run again: all of the epoch is in the slab. Not called for a plain save. */
  postcopy(epoch: number): Promise<void>;
  /** Default: simplePrecopyPolicy. */
  readonly precopyPolicy?: PrecopyPolicy;
  /** Turns the device model's dirty tracking on or off, where there is one (libxc's switch_qemu_logdirty). */
  switchDeviceLogDirty?(enable: boolean): Promise<void>;
  progress?(progress: SaveProgress): void;
  diskProgress?(progress: DiskProgress): void;
  /**
   * The domain wrote this to its disks, in this epoch or while the stream began; before it is in the stream, in order, and
   * whether or not it will be. The slabs are not the callback's.
   */
  diskWrites?(epoch: number, writes: DiskWrites): void;
}

export interface SaveCallbacks extends SaveStepCallbacks {
  /**
   * The epoch is captured and is on its way; `sent` resolves when it has left and rejects if it could not. Resolves
   * when the next checkpoint shall be taken, or the stream finished (END) or given up. Not called for a plain save.
   * COLO: the domain is still suspended. Resolves when the secondary has applied the epoch, since both then run on.
   */
  checkpoint(epoch: number, sent: Promise<SavedCheckpoint>): Promise<CheckpointDecision>;
  /** COLO only, and needed there: resolves when the two machines have diverged, or as `checkpoint` does. */
  waitCheckpoint?(): Promise<CheckpointDecision>;
}
