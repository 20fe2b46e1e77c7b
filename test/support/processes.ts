// The processes of this machine, as /proc tells.

import { readdirSync, readFileSync } from 'node:fs';
import { until } from './until.js';

export function allProcesses(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Those whose command line, or environment, includes `text`. */
export function processesWith(text: string, where: 'cmdline' | 'environ' = 'cmdline'): number[] {
  return allProcesses().filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/${where}`, 'latin1').includes(text);
    } catch {
      return false; // it has just ended
    }
  });
}

export function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

/** One that has ended but that nobody has waited for (an orphan, where init does not reap) is not alive. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/** Resolves when not one of their threads does anything any more, until SIGCONT. */
export async function stopProcesses(pids: readonly number[]): Promise<void> {
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  await until('they stand still', () =>
    pids.every((pid) => threadStates(pid).every((state) => state === 'T')),
  );
}

function threadStates(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).map((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2)[0] ?? '';
  });
}
