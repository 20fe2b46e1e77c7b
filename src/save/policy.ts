// When the pre-copy phase of a live save ends: a function of what was sent and what is dirty.

import type { PrecopyPolicy } from './callbacks.js';

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
