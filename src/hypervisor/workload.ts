// What the guests that Romulus brings along do: numbers of a configuration, the same for each hypervisor.

import { badConfiguration } from './port.js';

export interface Workload {
  /** Pages rewritten per tick; default 200. */
  readonly dirtyPages?: number;
  /** Pages that are checked at every tick; default 1024. */
  readonly workingSetPages?: number;
  /** 1 to 60000; default 50. */
  readonly tickMs?: number;
}

const WORKING_SET_PAGES_MAX = 1 << 18;

/** With its defaults; `prefix` of its keys in the configuration. @throws as checkRange() */
export function checkWorkload(
  { workingSetPages: pages = 1024, dirtyPages: dirty = Math.min(200, pages), tickMs = 50 }: Workload,
  prefix = '',
): { pages: number; dirty: number; tickMs: number } {
  checkRange(`${prefix}workingSetPages`, pages, 1, WORKING_SET_PAGES_MAX);
  checkRange(`${prefix}dirtyPages`, dirty, 0, pages);
  checkRange(`${prefix}tickMs`, tickMs, 1, 60_000);
  return { pages, dirty, tickMs };
}

/** @throws HypervisorError BAD_CONFIGURATION */
export function checkRange(key: string, value: number, low: number, high: number): void {
  if (Number.isInteger(value) && value >= low && value <= high) return;
  throw badConfiguration(`${key} must be a whole number from ${low} to ${high}`, { key, value, low, high });
}
