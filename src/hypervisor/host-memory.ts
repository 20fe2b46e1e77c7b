// What this host has of memory for a domain: asked before it is taken, for a host that has no more knows no error then, only
// somebody who is killed.

import { readFileSync } from 'node:fs';
import { HypervisorError } from './port.js';

export const MEBIBYTE = 2 ** 20;

/**
 * The host has so much memory to give, as far as it can be known. `what` begins the message.
 * @throws HypervisorError OUT_OF_MEMORY
 */
export function requireHostMemory(bytes: number, what: string): void {
  const available = hostMemory();
  if (bytes <= available) return;
  throw new HypervisorError(
    'OUT_OF_MEMORY',
    `${what} needs ${inMebibytes(bytes)} of memory, and this host has ${inMebibytes(available)} available`,
    { needed: bytes, free: available },
  );
}

/** What is not in use, or can be had at once; swap counts. */
function hostMemory(): number {
  // 0, or more than there is: no limit.
  const limit = process.constrainedMemory() || Infinity;
  let text: string;
  try {
    text = readFileSync('/proc/meminfo', 'latin1');
  } catch {
    return limit; // not known
  }
  const kibibytes = (key: string) => Number(new RegExp(`^${key}: +(\\d+) kB$`, 'm').exec(text)?.[1]);
  const available = (kibibytes('MemAvailable') + kibibytes('SwapFree')) * 1024;
  return Number.isNaN(available) ? limit : Math.min(limit, available);
}

export function inMebibytes(bytes: number): string {
  return `${Math.round((bytes / MEBIBYTE) * 10) / 10} MiB`;
}
