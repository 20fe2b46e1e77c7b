// What the demo saw, and what follows from it. Pure: observations in, report out, so that the measuring itself can be
// tested. All readings are of the machine's monotonic clock, in milliseconds, so the processes' times compare.
//
//   what the machine said on the primary (tap)  ├──────────── committed ────────────┤── lost with the epoch ──┤
//   what the secondary's machine says                                              ├─────────────────────── …
//
// A line that the machine was printing when the last committed checkpoint was taken begins in the first part and ends
// in the second: it was not printed at the checkpoint, and is the first that the secondary's machine prints.

import type { CheckpointReport, CommitReport } from '../../report/reports.js';

/** Octets that the outside saw on the primary's console, in the order in which it saw them. */
export interface SeenOutput {
  readonly bytes: number;
  readonly atMs: number;
}

export interface Observations {
  readonly checkpoints: readonly CheckpointReport[];
  readonly commits: readonly CommitReport[];
  readonly seenOnPrimary: readonly SeenOutput[];
  /** What the machine said on the primary before the gate, held or not. */
  readonly saidOnPrimary: string;
  /** What the machine said on the secondary. */
  readonly saidOnSecondary: string;
  readonly killedAtMs: number;
  readonly failoverStartedAtMs: number;
  readonly runningAtMs: number;
}

export interface DemoReport {
  readonly ok: boolean;
  readonly epochsCommitted: number;
  /** The last tick that the guest had printed when its last committed checkpoint was taken; -1: none. */
  readonly tickCommitted: number;
  /** The first tick that the secondary's machine printed; -1: none. */
  readonly tickResumed: number;
  /** Pages that the guest's own check found wrong, on either side. */
  readonly badPages: number;
  /** Octets that the outside saw before their epoch was acknowledged. */
  readonly outputBeforeAck: number;
  readonly pauseMs: { readonly p50: number; readonly p99: number };
  readonly detectMs: number;
  readonly takeoverMs: number;
}

/** The value below which `fraction` of the values lie (nearest rank); NaN for none. */
export function percentile(values: readonly number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.min(sorted.length - 1, Math.max(0, Math.ceil(fraction * sorted.length) - 1));
  return sorted[rank] ?? NaN;
}

export interface Tick {
  readonly number: number;
  readonly badPages: number;
  /** Offset in the text just behind the line's end. */
  readonly end: number;
}

/** The whole lines `tick N ok` and `tick N BAD p` of a console. */
export function ticks(text: string): Tick[] {
  const found: Tick[] = [];
  for (const match of text.matchAll(/^tick (\d+) (?:ok|BAD (\d+))\r?\n/gm)) {
    const end = match.index + match[0].length;
    found.push({ number: Number(match[1]), badPages: Number(match[2] ?? 0), end });
  }
  return found;
}

/**
 * Octets seen before an acknowledgement covered them. `commits` in the order of their epochs: epoch e covers the
 * output up to its outputBytes from its acknowledgedAtMs on.
 */
export function countSeenBeforeAcknowledgement(
  seen: readonly SeenOutput[],
  commits: readonly CommitReport[],
): number {
  let early = 0;
  let position = 0;
  let covered = 0;
  let next = 0;
  for (const piece of seen) {
    for (
      let commit = commits[next];
      commit && commit.acknowledgedAtMs <= piece.atMs;
      commit = commits[next]
    ) {
      covered = Math.max(covered, commit.outputBytes);
      next++;
    }
    const end = position + piece.bytes;
    early += Math.max(0, end - Math.max(position, covered));
    position = end;
  }
  return early;
}

export function measure(seen: Observations): DemoReport {
  const last = seen.commits.at(-1);
  const committedText = Buffer.from(seen.saidOnPrimary, 'latin1')
    .subarray(0, last?.outputBytes ?? 0)
    .toString('latin1');
  const whole = ticks(committedText + seen.saidOnSecondary);
  const tickCommitted = whole.filter((tick) => tick.end <= committedText.length).at(-1)?.number ?? -1;
  const onSecondary = whole.filter((tick) => tick.end > committedText.length);
  const tickResumed = onSecondary[0]?.number ?? -1;
  let badPages = 0;
  for (const tick of [...ticks(seen.saidOnPrimary), ...onSecondary]) badPages += tick.badPages;
  const outputBeforeAck = countSeenBeforeAcknowledgement(seen.seenOnPrimary, seen.commits);
  const pauses = seen.checkpoints.map((checkpoint) => checkpoint.pause * 1000);
  const round = (value: number): number => Math.round(value * 100) / 100;
  return {
    ok: last !== undefined && tickResumed === tickCommitted + 1 && badPages === 0 && outputBeforeAck === 0,
    epochsCommitted: seen.commits.length,
    tickCommitted,
    tickResumed,
    badPages,
    outputBeforeAck,
    pauseMs: { p50: round(percentile(pauses, 0.5)), p99: round(percentile(pauses, 0.99)) },
    detectMs: round(seen.failoverStartedAtMs - seen.killedAtMs),
    takeoverMs: round(seen.runningAtMs - seen.failoverStartedAtMs),
  };
}
