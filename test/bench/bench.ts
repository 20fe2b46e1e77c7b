// What a benchmark reports: a number, and where the promise is a ratio, what it is compared with in the same run.

import { readFileSync } from 'node:fs';

export interface BenchResult {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly reference?: { readonly name: string; readonly value: number };
  /** value / reference, whichever way round the target is meant. */
  readonly ratio?: number;
  /** "<= 1.5", ">= 0.4": of the ratio if there is one, else of the value. */
  readonly target?: string;
}

export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

/** null: there is no target. */
export function isMet(result: BenchResult): boolean | null {
  if (result.target === undefined) return null;
  const match = /^(<=|>=) ([\d.]+)$/.exec(result.target);
  if (match === null) throw new Error(`a target reads "<= 1.5" or ">= 0.4", not "${result.target}"`);
  const measured = result.ratio ?? result.value;
  const limit = Number(match[2]);
  return match[1] === '<=' ? measured <= limit : measured >= limit;
}

/**
 * The most memory that this process had, in MiB. Not getrusage's, which a child starts
 * with that of its parent.
 */
export function peakMemoryMiB(): number {
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(match?.[1]) / 1024;
}
