// A domain whose disks both hosts see must not run on both, not even for a moment and unheard: each would write. There
// is no clock that both share, so each counts from what it knows:
//
//   secondary  ──── last word ✕ link lost ················ standstillMs ················▶ may take over
//                       ╲
//   primary    ───────── heard, late ···· silence ····▶ guest told to stop ── stopped
//                        ≤ stall + interval    ≤ timeout + beat + stall    ≤ STOP_MS
//
// The primary counts from when it last heard the secondary, and may hear late: its process may stand still, but for no
// longer than a stall; if longer, it trusts nothing that it heard before. A primary that stands still for good cannot
// stop anything: that is what the fence is for that the configuration asks for.

import type { Welcome } from '../contract.js';

/** From telling the hypervisor to stop a guest until it has, its last writes done. */
const STOP_MS = 500;

/** This process was stopped if it hears nothing, not even its own beat, for longer. */
export function stallMsOf(heartbeatTimeoutMs: number): number {
  return heartbeatTimeoutMs / 2;
}

export function beatMsOf(heartbeatTimeoutMs: number): number {
  return stallMsOf(heartbeatTimeoutMs) / 4;
}

/** From the loss of the link, as the secondary sees it, until the primary's guest surely stands still. */
export function standstillMsOf({
  heartbeatIntervalMs,
  heartbeatTimeoutMs,
}: Pick<Welcome, 'heartbeatIntervalMs' | 'heartbeatTimeoutMs'>): number {
  const heardLate = stallMsOf(heartbeatTimeoutMs) + heartbeatIntervalMs;
  const decided = heartbeatTimeoutMs + beatMsOf(heartbeatTimeoutMs) + stallMsOf(heartbeatTimeoutMs);
  return heardLate + decided + STOP_MS;
}
