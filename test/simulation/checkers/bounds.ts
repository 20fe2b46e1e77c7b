// Everything has a limit: what hosts, links and the witness' clients keep is counted again and again.

import type { History } from './history.js';

/** Entries in all that one agent keeps: streams remembered, epochs under way, work in turn, what waits for a stopped process. */
const AGENT_MAX = 2500;
/** Events that are due in the whole run. */
const DUE_MAX = 4000;

export function checkBounds(
  history: History,
  due: number,
  agents: readonly { name: string; size: number }[],
): void {
  if (due > DUE_MAX) history.wrong(`${due} events are due at once`);
  for (const { name, size } of agents) if (size > AGENT_MAX) history.wrong(`${name} keeps ${size} entries`);
}
