// What the demo saw, and what follows from it. Pure: observations in, report out, so that the measuring itself can be
// tested. All readings are of the machine's monotonic clock, in milliseconds, so the processes' times compare.
//
//   first, on alpha (tap)  ├── unprotected ──┬── committed ──┤── lost with the epoch ──┤
//   then, on beta                                            ├── unprotected ──┬── committed ──┤
//   at last, on alpha                                                                          ├─────── …
//
// Until its first checkpoint on a host the machine is unprotected there: nobody else may run it, and nothing is held.
//
// A line that the machine was printing when the last committed checkpoint was taken begins in one part and ends in the
// next: it was not printed at the checkpoint, and is the first that the machine prints on the other host.

import type { CheckpointReport, CommitReport } from '../../report/reports.js';

/** Octets that the outside saw on a host's console, in the order in which it saw them. */
export interface SeenOutput {
  readonly bytes: number;
  readonly atMs: number;
}

/** The machine on one host, until the other one has it. */
export interface Run {
  /** In latin1. On alpha, which dies: what the machine said before the gate, held or not. */
  readonly said: string;
  readonly seen: readonly SeenOutput[];
  /** On the other host, in the order of their epochs. */
  readonly commits: readonly CommitReport[];
}

export interface Observations {
  /** Of the first run. */
  readonly checkpoints: readonly CheckpointReport[];
  /** Until alpha dies. */
  readonly first: Run;
  /** On beta, until it is handed over. */
  readonly second: Run;
  /** What the machine said on alpha when it was back there. */
  readonly saidAtLast: string;
  readonly killedAtMs: number;
  readonly failoverStartedAtMs: number;
  readonly runningAtMs: number;
  /** Alpha's second start, and when beta was sure that alpha has a checkpoint. */
  readonly restartedAtMs: number;
  readonly reprotectedAtMs: number;
  /** The request to switch over, and when alpha had the machine. */
  readonly askedAtMs: number;
  readonly switchedAtMs: number;
}

export interface DemoReport {
  readonly ok: boolean;
  /** In the first run. */
  readonly epochsCommitted: number;
  /** The last tick that the guest had printed when its last committed checkpoint was taken; -1: none. */
  readonly tickCommitted: number;
  /** The first tick that the machine printed after the failover; -1: none. */
  readonly tickResumed: number;
  /** The same of the switchover. */
  readonly tickHandedOver: number;
  readonly tickGoneOn: number;
  /** Pages that the guest's own check found wrong, wherever it ran. */
  readonly badPages: number;
  /** Octets that the outside saw before their epoch was acknowledged. */
  readonly outputBeforeAck: number;
  readonly pauseMs: { readonly p50: number; readonly p99: number };
  readonly detectMs: number;
  readonly takeoverMs: number;
  /** From the start of the old host's agent until the machine was protected again. */
  readonly reprotectMs: number;
  /** From the request until the machine ran on the other host. */
  readonly switchoverMs: number;
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
 * output up to its outputBytes from its acknowledgedAtMs on. What was said before the first of them was captured had none
 * to wait for.
 */
export function countSeenBeforeAcknowledgement(
  seen: readonly SeenOutput[],
  commits: readonly CommitReport[],
): number {
  let early = 0;
  let position = 0;
  let covered = commits[0]?.outputBytes ?? Infinity;
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
  const { first, second } = seen;
  const last = first.commits.at(-1);
  const committed = first.said.slice(0, last?.outputBytes ?? 0);
  const untilSwitchover = committed + second.said;
  const world = ticks(untilSwitchover + seen.saidAtLast);
  const [tickCommitted, tickResumed] = around(world, committed.length);
  const [tickHandedOver, tickGoneOn] = around(world, untilSwitchover.length);
  const inOrder = world.every(
    ({ number }, index) => index === 0 || number === (world[index - 1]?.number ?? NaN) + 1,
  );
  let badPages = 0;
  const lost = ticks(first.said).filter(({ end }) => end > committed.length);
  for (const tick of [...world, ...lost]) badPages += tick.badPages;
  const outputBeforeAck =
    countSeenBeforeAcknowledgement(first.seen, first.commits) +
    countSeenBeforeAcknowledgement(second.seen, second.commits);
  const pauses = seen.checkpoints.map((checkpoint) => checkpoint.pause * 1000);
  const goesOn = inOrder && tickResumed === tickCommitted + 1 && tickGoneOn === tickHandedOver + 1;
  return {
    ok: last !== undefined && second.commits.length > 0 && goesOn && badPages === 0 && outputBeforeAck === 0,
    epochsCommitted: first.commits.length,
    ...{ tickCommitted, tickResumed, tickHandedOver, tickGoneOn },
    ...{ badPages, outputBeforeAck },
    pauseMs: { p50: round(percentile(pauses, 0.5)), p99: round(percentile(pauses, 0.99)) },
    detectMs: round(seen.failoverStartedAtMs - seen.killedAtMs),
    takeoverMs: round(seen.runningAtMs - seen.failoverStartedAtMs),
    reprotectMs: round(seen.reprotectedAtMs - seen.restartedAtMs),
    switchoverMs: round(seen.switchedAtMs - seen.askedAtMs),
  };
}

/** The last tick before an offset, and the first one behind it; -1: none. */
function around(all: readonly Tick[], offset: number): readonly [number, number] {
  const before = all.filter(({ end }) => end <= offset).at(-1);
  const behind = all.find(({ end }) => end > offset);
  return [before?.number ?? -1, behind?.number ?? -1];
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
