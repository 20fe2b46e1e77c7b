// Taking over, once it is decided: the domain runs, and only then the world hears it.
//
//   start ─▶ running ─▶ gate passes

import type { TargetDomain } from '../hypervisor/port.js';
import type { OutputGate } from '../output/gate.js';

/**
 * Resolves when the domain runs and what it says is let out. If it does not start, nothing is let out, and it may be
 * tried again.
 */
export async function takeOver(
  domain: Pick<TargetDomain, 'start'>,
  gate: Pick<OutputGate, 'pass'>,
): Promise<void> {
  await domain.start();
  await gate.pass();
}
